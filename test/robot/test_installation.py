"""What does not fit is said in one sentence, with what was found, what is needed and the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_perception_ros import robot_environment
from diffusion_perception_ros.robot_environment import VARIABLE


def sentences(executables: Path, **environment: str) -> list[str]:
    """What an executable prints instead of starting."""
    command = [str(executables / "replay_plan"), "nowhere"]
    answer = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert answer.returncode == 2, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stderr.splitlines()


BY_ITSELF = importlib.util.find_spec("diffusion_perception_ros_workspace") is not None
"""The environment of `make setup` sources its workspace whenever its Python starts."""


@pytest.mark.skipif(BY_ITSELF, reason="this Python sources the workspace by itself")
def test_a_workspace_that_is_not_sourced(prefix: Path, executables: Path) -> None:
    (sentence,) = sentences(executables, AMENT_PREFIX_PATH="/opt/ros/elsewhere", ROS_DISTRO="")
    assert sentence == f"replay_plan: the workspace {prefix} is not sourced: source {prefix}/setup.bash"


def test_a_workspace_of_another_distribution(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "noetic")
    (sentence,) = robot_environment.workspace_problems(prefix, "humble")
    assert sentence.startswith(f"ROS 2 noetic is sourced, but this workspace ({prefix}) was built for humble")


def test_two_installations(prefix: Path, executables: Path, tmp_path: Path) -> None:
    other = tmp_path / "share" / "diffusion_perception_ros"
    other.mkdir(parents=True)
    (other / "package.xml").touch()
    (sentence,) = sentences(executables, AMENT_PREFIX_PATH=f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}")
    assert sentence.startswith(
        f"replay_plan: two installations of diffusion_perception_ros are sourced and {tmp_path}"
    )
    assert sentence.endswith(f"source {prefix}/setup.bash")
    if BY_ITSELF:
        return
    (sentence,) = sentences(executables, AMENT_PREFIX_PATH=str(tmp_path))
    assert f"but {tmp_path} is the one that is sourced" in sentence


def test_packages_that_are_missing_or_too_old(executables: Path, tmp_path: Path) -> None:
    if not robot_environment.package_problems():
        pytest.skip("this Python has everything that the environment would bring")
    said = sentences(executables, **{VARIABLE: str(tmp_path / "none")})
    for sentence in said:
        assert sentence.endswith((robot_environment.INSTALL_COMMAND, "apt install python3-opencv"))
    assert any("onnxruntime was not found, 1.17 up to below 2 is needed" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("1.10.14", False), ("2.6", True), ("2.14.3", True), ("2.0.0b1", False), ("3.0", False), ("2.6.0rc1", True)],
)
def test_versions(version: str, fits: bool) -> None:
    numbers = robot_environment.numbers
    assert (numbers("2.6") <= numbers(version) < numbers("3")) is fits


@pytest.mark.parametrize(
    ("version", "distribution", "fits"),
    [("2.2.6", "jazzy", False), ("1.26.4", "jazzy", True), ("2.2.6", "rolling", True)],
)
def test_numpy_2_over_what_apt_built_for_numpy_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, distribution: str, fits: bool
) -> None:
    """In a Python that finds these two packages first, as after `pip install` beside an installation from apt."""
    for name, number in (("rclpy", "7.1"), ("numpy", version)):
        (tmp_path / "opt" / name).mkdir(parents=True)
        (tmp_path / "opt" / name / "__init__.py").touch()
        (tmp_path / "opt" / f"{name}-{number}.dist-info").mkdir()
        (tmp_path / "opt" / f"{name}-{number}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {number}\n")
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import robot_environment as it; "
        "it.ROS_FROM_APT = sys.argv[1]; print(*it.numpy_problems(), sep='\\n')"
    )
    folders = [str(tmp_path / "opt"), str(Path(robot_environment.__file__).parent)]
    environment = os.environ | {"ROS_DISTRO": distribution}
    answer = subprocess.run(
        [sys.executable, "-c", code, *folders], env=environment, capture_output=True, text=True, check=True
    )
    if fits:
        assert answer.stdout == "\n"
    else:
        assert f"NumPy 2.2.6 ({tmp_path}/opt/numpy) was found, 1.x is needed" in answer.stdout
        assert answer.stdout.endswith("-m pip uninstall numpy\n")


def test_an_environment_is_made_once_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "environment"))
    empty = tmp_path / "wheels"
    empty.mkdir()
    with pytest.raises(robot_environment.EnvironmentProblem, match="failed: check the network"):
        robot_environment.make_environment("", str(empty))
    assert robot_environment.environment_python() is None
    assert not (tmp_path / "environment").exists()
    mine = tmp_path / "environment" / "thesis.txt"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(robot_environment.EnvironmentProblem, match="exists and is no virtual environment"):
        robot_environment.make_environment("", str(empty))
    assert mine.exists()


def test_pins_are_those_of_make_setup() -> None:
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    known = {line.strip().lower() for line in constraints.read_text(encoding="utf-8").splitlines()}
    only_numpy_1 = {"ml-dtypes==0.5.4", "numpy==1.26.4", "scipy==1.15.3"}
    without_markers = {line.partition(";")[0] for line in known}
    for major in ("1", "2"):
        for line in robot_environment.pins(major):
            assert line in known or line.partition(";")[0] in without_markers or line in only_numpy_1, line


def test_the_oldest_opencv_has_all_that_is_used() -> None:
    cv2 = pytest.importorskip("cv2")
    package = Path(robot_environment.__file__).parent
    used = {name for file in package.rglob("*.py") for name in re.findall(r"\bcv2\.(\w+)", file.read_text("utf-8"))}
    # Names for annotations only.
    assert [name for name in sorted(used - {"typing"}) if not hasattr(cv2, name)] == []
