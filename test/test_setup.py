"""Setting up: what a machine lacks is named before anything is installed, and what was installed is whole."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement

import diffusion_perception_ros


REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "scripts"
sys.path.insert(0, str(SCRIPTS))

import machine  # noqa: E402
import setup_workspace  # noqa: E402


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh clone, as far as setting up looks at it."""
    root = tmp_path / "clone"
    for name in ("scripts", "msg"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", "pyproject.toml", "setup.py", "package.xml", "CMakeLists.txt", "Makefile"):
        shutil.copy(REPOSITORY / name, root)
    return root


def set_up(checkout: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the set-up of a clone in an environment that is not this one's."""
    wanted = {"PATH": os.environ["PATH"], "HOME": str(checkout)} | environment
    command = [sys.executable, str(checkout / "scripts" / "setup_workspace.py"), *options]
    return subprocess.run(command, env=wanted, capture_output=True, text=True)


def test_missing_compiler_is_named(checkout: Path, tmp_path: Path) -> None:
    answer = set_up(checkout, PATH=str(tmp_path))
    assert answer.returncode == 1
    assert "There is no C++ compiler" in answer.stderr
    assert "sudo apt install build-essential" in answer.stderr
    assert not (checkout / ".venv").exists()


def test_unreachable_packages_are_named(checkout: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    answer = set_up(checkout, **nowhere)
    assert answer.returncode == 1
    assert "pip cannot download packages" in answer.stderr
    assert "check the network" in answer.stderr
    assert not (checkout / ".venv").exists()


def other_python(path: Path) -> None:
    """A program that answers like a Python 3.12 of another folder when it is asked what it is."""
    path.parent.mkdir(parents=True)
    facts = {"executable": "/elsewhere/bin/python3.12", "version": [3, 12], "venv": True, "headers": True}
    path.write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n")
    path.chmod(0o755)


def test_the_present_environment_keeps_its_python(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    monkeypatch.setattr(setup_workspace, "VENV", checkout / ".venv")
    own = setup_workspace.choose_python(this=False)
    other_python(checkout / ".venv" / "bin" / "python")
    assert setup_workspace.choose_python(this=False).executable == "/elsewhere/bin/python3.12"
    assert setup_workspace.choose_python(this=True) == own
    (checkout / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")  # its Python was removed
    assert setup_workspace.choose_python(this=False) == own


def test_an_environment_of_another_python_is_not_remade_silently(checkout: Path) -> None:
    other_python(checkout / ".venv" / "bin" / "python")
    (checkout / ".venv" / "setup.json").write_text(
        '{"origin": "with the other one", "packages": "p", "messages": "m"}'
    )
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    answer = set_up(checkout, "--this-python", **nowhere)
    assert answer.returncode == 1
    python = machine.find_python()
    assert f".venv is not of Python {python.label} ({python.executable}) and this folder" in answer.stderr


def test_make_passes_on_the_python_that_was_chosen(checkout: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    for arguments, chosen, expected in (
        ([], {}, "python3 scripts/setup_workspace.py"),
        (["PYTHON=python3.12"], {}, "python3.12 scripts/setup_workspace.py --this-python"),
        ([], {"PYTHON": "python3.12"}, "python3.12 scripts/setup_workspace.py --this-python"),
    ):
        command = ["make", "--dry-run", "setup", *arguments]
        answer = subprocess.run(command, cwd=checkout, env=environment | chosen, capture_output=True, text=True)
        assert answer.stdout.strip().endswith(expected)


def test_ros_without_rclpy_is_named(checkout: Path, tmp_path: Path) -> None:
    answer = set_up(checkout, ROS_DISTRO="humble", AMENT_PREFIX_PATH=str(tmp_path))
    assert answer.returncode == 1
    assert "ROS 2 humble is sourced but no Python here (3.10 or newer) can import rclpy" in answer.stderr
    assert "sudo apt install ros-humble-ros-base" in answer.stderr


def test_lack_of_disk_is_named() -> None:
    with pytest.raises(machine.SetupError, match=r"GB free, 1000000000\.0 GB are needed"):
        machine.check_machine(REPOSITORY, 1e9, None)


def test_incomplete_python_is_named() -> None:
    python = machine.Python("/usr/bin/python3", (3, 12), has_venv=False, has_headers=False)
    assert python.lacks() == [
        "Python 3.12 (/usr/bin/python3) lacks its venv module: sudo apt install python3.12-venv.",
        "Python 3.12 (/usr/bin/python3) lacks its C headers: sudo apt install python3.12-dev.",
    ]


def test_what_is_compiled_decides_about_building_again(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    monkeypatch.setattr(setup_workspace, "ROOT", checkout)
    monkeypatch.setattr(setup_workspace, "CONSTRAINTS", checkout / "constraints.txt")
    setup = setup_workspace.Setup(machine.find_python(), None, test=False)
    before = setup.messages_hash()
    message = checkout / "msg" / "SegmentationLabel.msg"
    message.touch()
    assert setup.messages_hash() == before
    message.write_text(message.read_text() + "bool is_thing\n")
    assert setup.messages_hash() != before


def test_everything_that_is_installed_is_pinned() -> None:
    pins = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                pins[canonical(requirement.name)] = str(requirement.specifier).removeprefix("==")
    for line in importlib.metadata.requires("diffusion-perception-ros") or ():
        requirement = Requirement(line)
        if not (requirement.marker and requirement.marker.evaluate({"extra": "gpu"})):
            assert requirement.specifier.contains(pins[canonical(requirement.name)]), line


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_same_everywhere() -> None:
    package = ElementTree.parse(REPOSITORY / "package.xml")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert package.findtext("version") == citation["version"] == diffusion_perception_ros.__version__


def test_messages_are_found_without_sourcing_anything(tmp_path: Path) -> None:
    program = (
        "from ament_index_python.packages import get_package_share_directory as share\n"
        "from rclpy.serialization import deserialize_message, serialize_message\n"
        "from diffusion_perception_ros.msg import PerceptionStatus\n"
        "message = deserialize_message(serialize_message(PerceptionStatus(model='m')), PerceptionStatus)\n"
        "print(message.model, share('std_msgs') and share('diffusion_perception_ros'))\n"
    )
    # A ROS 2 installation that the workspace lies on has to be sourced, the wheels have not.
    sourced = dict(os.environ) if os.environ.get("ROS_DISTRO") else {"HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=sourced, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["m", str(REPOSITORY / "install" / "share" / "diffusion_perception_ros")]


def test_no_path_of_the_machine_that_built_the_wheels_is_left() -> None:
    exports = list(Path(sys.prefix).glob("share/*/cmake/*Export*.cmake"))
    assert [file.name for file in exports if "/opt/python/" in file.read_text()] == []


def test_the_architecture_page_shows_the_code() -> None:
    command = [sys.executable, str(SCRIPTS / "architecture.py"), "--check"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_a_release_changes_the_version_everywhere(checkout: Path) -> None:
    for name in ("CITATION.cff", "CHANGELOG.md", "diffusion_perception_ros/__init__.py"):
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, checkout / name)
    answer = subprocess.run([sys.executable, str(checkout / "scripts" / "release.py"), "9.8.7"])
    assert answer.returncode == 0
    for name in ("package.xml", "CITATION.cff", "diffusion_perception_ros/__init__.py", "CHANGELOG.md"):
        assert "9.8.7" in (checkout / name).read_text()
    assert "## Unreleased\n\n## 9.8.7 (" in (checkout / "CHANGELOG.md").read_text()
