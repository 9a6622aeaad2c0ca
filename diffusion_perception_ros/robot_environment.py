"""The Python packages that ROS 2 distributions lack, in an environment of their own, found by every executable.

Ubuntu's pydantic, ONNX Runtime and bag readers are too old or missing, pip may not touch the system's Python (PEP
668), and NumPy 2 from pip breaks what ROS 2 compiled for NumPy 1. So `ros2 run diffusion_perception_ros
install_dependencies` makes a virtual environment over the system's packages, once per user and set of versions, and
the executables of this package (scripts/ros_executable.py.in) continue in it. What does not fit is said in one
sentence before anything starts.

Standard library only, and no syntax newer than Python 3.8: it must run far enough to say what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


PACKAGE = "diffusion_perception_ros"
INSTALL_COMMAND = f"ros2 run {PACKAGE} install_dependencies"
REQUIREMENTS = Path(__file__).with_name("robot_requirements.txt")
VARIABLE = "DIFFUSION_PERCEPTION_ENVIRONMENT"
"""Names another folder for the environment, for services of another user and for containers."""
ROS_FROM_APT = "/opt/ros/"
OLDEST_PYTHON = (3, 10)
COMPLETE = "complete.json"
"""In the environment once everything is installed; an interrupted one lacks it and is made anew."""


@dataclass(frozen=True)
class Requirement:
    """A module that has to be importable, in a version from `oldest` up to but without `below`."""

    module: str
    oldest: str
    below: str
    apt: str = ""
    """The Debian package that has it in every supported distribution; empty: `install_dependencies` brings it."""
    distributions: tuple[str, ...] = ()
    """Names under which pip knows it, if not by the module's."""


NEEDED = (
    Requirement("numpy", "1.21", "3", "python3-numpy"),
    Requirement("cv2", "4.5", "6", "python3-opencv", ("opencv-python-headless", "opencv-python")),
    Requirement("yaml", "5.3", "7", "python3-yaml", ("PyYAML",)),
    Requirement("pydantic", "2.6", "3"),
    Requirement("onnx", "1.16", "2"),
    Requirement("onnxruntime", "1.17", "2", "", ("onnxruntime", "onnxruntime-gpu")),
    Requirement("rosbags", "0.10.4", "1"),
    Requirement("mcap", "1.2", "2"),
)


class EnvironmentProblem(Exception):
    """What keeps an executable from starting; each line names what was found, what is needed and the remedy."""


def numbers(version: str) -> tuple[int, ...]:
    """`1.26.4` → (1, 26, 4); whatever follows the numbers is left out."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def installed_version(requirement: Requirement) -> str | None:
    """The version that `import` would find, None if there is none.

    Ubuntu's OpenCV has no metadata, so the module itself is asked where pip knows nothing.
    """
    if importlib.util.find_spec(requirement.module) is None:
        return None
    for name in requirement.distributions or (requirement.module,):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    try:
        return str(getattr(importlib.import_module(requirement.module), "__version__", "0"))
    except Exception as error:  # compiled for another NumPy, or a library of the system is missing
        return f"0 (broken: {str(error).splitlines()[0] if str(error) else type(error).__name__})"


def package_problems() -> list[str]:
    """One sentence for each module that is missing or of a version that does not fit."""
    problems = []
    if sys.version_info < OLDEST_PYTHON:
        problems.append(
            f"Python {sys.version_info[0]}.{sys.version_info[1]} runs this, 3.10 or newer is needed: "
            "use ROS 2 Humble or newer, and build the workspace with its Python."
        )
    for requirement in NEEDED:
        found = installed_version(requirement)
        if found and numbers(requirement.oldest) <= numbers(found) < numbers(requirement.below):
            continue
        remedy = f"sudo apt install {requirement.apt}" if requirement.apt else INSTALL_COMMAND
        if found and requirement.apt:
            remedy = f"{sys.executable} -m pip uninstall {(requirement.distributions or (requirement.module,))[0]}"
        state = f"{requirement.module} {found} was found" if found else f"{requirement.module} was not found"
        problems.append(f"{state}, {requirement.oldest} up to below {requirement.below} is needed: {remedy}")
    return problems + numpy_problems()


def numpy_problems() -> list[str]:
    """Whether NumPy 2 came over a ROS 2 that apt installed with NumPy 1."""
    numpy, rclpy = importlib.util.find_spec("numpy"), importlib.util.find_spec("rclpy")
    built_with_1 = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy", "kilted")
    if not (numpy and rclpy and built_with_1 and str(rclpy.origin).startswith(ROS_FROM_APT)):
        return []
    version = installed_version(NEEDED[0]) or ""
    if numbers(version) < (2,):
        return []
    return [
        f"NumPy {version} ({Path(str(numpy.origin)).parent}) was found, 1.x is needed, because ROS 2 "
        f"{os.environ['ROS_DISTRO']} is compiled for it: {sys.executable} -m pip uninstall numpy"
    ]


def workspace_problems(prefix: Path, built_for: str) -> list[str]:
    """Whether the installation below `prefix`, built for a ROS 2 distribution, is the one that this shell uses."""
    source = f"source {prefix}/setup.bash"
    distribution = os.environ.get("ROS_DISTRO", "")
    if built_for and distribution and built_for != distribution:
        return [
            f"ROS 2 {distribution} is sourced, but this workspace ({prefix}) was built for {built_for}: open a new "
            f"terminal and {source}"
        ]
    paths = [Path(part) for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    installs = [path for path in paths if (path / "share" / PACKAGE / "package.xml").is_file()]
    if not any(same(path, prefix) for path in paths):
        if installs:
            return [
                f"this belongs to the installation {prefix}, but {installs[0]} is the one that is sourced: open a new "
                f"terminal and {source}"
            ]
        return [f"the workspace {prefix} is not sourced: {source}"]
    if installs and not same(installs[0], prefix):
        return [
            f"two installations of {PACKAGE} are sourced and {installs[0]} comes before {prefix}, where this belongs: "
            f"open a new terminal and source only one of them, as in {source}"
        ]
    if importlib.util.find_spec("rclpy") is None:
        return [
            f"{sys.executable} (Python {sys.version_info[0]}.{sys.version_info[1]}) finds no rclpy: source "
            f"/opt/ros/{distribution or 'DISTRO'}/setup.bash, and build the workspace with the Python of that ROS 2"
        ]
    if importlib.util.find_spec(f"{PACKAGE}.msg") is None:
        return [f"the messages of {PACKAGE} are not built: colcon build --packages-select {PACKAGE}, then {source}"]
    return []


def same(first: Path, second: Path) -> bool:
    """Whether two paths are one folder."""
    return first.resolve() == second.resolve()


def pins(numpy_major: str) -> list[str]:
    """The lines of `robot_requirements.txt` that hold for ROS 2 built with this NumPy, without their comments."""
    lines = []
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        pin, _, comment = line.partition("#")
        if pin.strip() and (not comment or comment.strip() == f"numpy {numpy_major}"):
            lines.append(pin.strip())
    return lines


def environment_folder() -> Path:
    """Where the environment for this Python and this set of versions is, or would be."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:8]
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    return data / PACKAGE / "environments" / f"{python}-{digest}"


def environment_python() -> Path | None:
    """The interpreter of the environment, None if there is no complete one."""
    folder = environment_folder()
    python = folder / "bin" / "python"
    return python if (folder / COMPLETE).is_file() and python.exists() else None


def inside(folder: Path) -> bool:
    """Whether this process runs in that environment."""
    return same(Path(sys.prefix), folder)


def python_to_continue_in() -> Path | None:
    """The environment's interpreter; None where this one already is it, is the better choice, or the only one.

    A virtual environment that the workspace was built in, as `make setup` does, is taken as it is if it fits.
    """
    python = environment_python()
    if python is None or inside(environment_folder()):
        return None
    fits = sys.prefix != sys.base_prefix and not package_problems()
    return None if fits else python


def enter(executable: str, prefix: Path, built_for: str) -> None:
    """Continue in the environment where there is one; end with a sentence where the executable could not run.

    Args:
        executable: for messages.
        prefix: installation that the executable belongs to, such as `~/ros2_ws/install/diffusion_perception_ros`.
        built_for: ROS 2 distribution of the build, empty if it was none that is sourced.
    """
    problems = workspace_problems(prefix, built_for)
    python = None if problems else python_to_continue_in()
    if python:
        os.execv(python, [str(python), "-s", *sys.argv])
    problems = problems or package_problems()
    if problems:
        for problem in problems:
            print(f"{executable}: {problem}", file=sys.stderr)
        sys.exit(2)


# Making the environment


def make_environment(onnxruntime: str, wheels: str, also: Sequence[str] = ()) -> Path:
    """Make the environment, or find that it is there; its folder.

    Args:
        onnxruntime: what pip installs in place of the pinned onnxruntime, such as `onnxruntime-gpu==1.23.2` or the
            path of NVIDIA's wheel for a Jetson; empty = the pinned one.
        wheels: folder of wheels to install from, without a network; empty = the package index.
        also: more that pip installs, such as `cuda-bindings==12.6.2`.

    Raises:
        EnvironmentProblem: it cannot be made.
    """
    folder = environment_folder()
    wanted = {
        "onnxruntime": onnxruntime,
        "also": list(also),
        "python": sys.version.split()[0],
        "requirements": requirements_hash(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if recorded(folder) == wanted and environment_python():
            return folder
        check_before(folder)
        if folder.exists():
            if not (folder / "pyvenv.cfg").is_file():
                raise EnvironmentProblem(
                    f"{folder} exists and is no virtual environment: choose another folder with {VARIABLE}"
                )
            shutil.rmtree(folder)
        try:
            run([sys.executable, "-m", "venv", "--system-site-packages", str(folder)])
            show_parent_packages(folder)
            install(folder, onnxruntime, wheels, also)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        temporary = folder / f"{COMPLETE}.tmp"
        temporary.write_text(json.dumps(wanted, indent=2), encoding="utf-8")
        os.replace(temporary, folder / COMPLETE)
    return folder


def requirements_hash() -> str:
    """Of the pinned versions."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def recorded(folder: Path) -> object:
    """What an environment was made from, None if it is incomplete."""
    try:
        return json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def check_before(folder: Path) -> None:
    """What can be said before anything is downloaded."""
    problems = []
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < OLDEST_PYTHON:
        problems += package_problems()[:1]
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        problems.append(f"{sys.executable} has no venv module, which is needed: sudo apt install {python}-venv")
    free = shutil.disk_usage(folder.parent).free / 1e9
    if free < 1:
        problems.append(
            f"the disk of {folder.parent} has {free:.1f} GB free, 1 GB is needed: make room, or set {VARIABLE}"
        )
    if problems:
        raise EnvironmentProblem("\n".join(problems))


def show_parent_packages(folder: Path) -> None:
    """A virtual environment over a virtual environment sees only the system's packages; add those between."""
    if sys.prefix == sys.base_prefix:
        return
    (own,) = folder.glob("lib/python3*/site-packages")
    parents = [path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages")]
    (own / "parent_environment.pth").write_text("\n".join(parents) + "\n", encoding="utf-8")


def install(folder: Path, onnxruntime: str, wheels: str, also: Sequence[str]) -> None:
    """Install the pinned packages into a new environment."""
    python = str(folder / "bin" / "python")
    numpy = subprocess.run(
        [python, "-s", "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True
    )
    lines = pins("2" if numpy.stdout.startswith("2") else "1")
    if onnxruntime:
        lines = [line for line in lines if not line.startswith("onnxruntime==")] + [onnxruntime]
    lines += also
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = ["--no-index", "--find-links", wheels] if wheels else []
    pip = [python, "-s", "-m", "pip", "--disable-pip-version-check", "install", "--no-input", "--progress-bar=off"]
    # What the system has of the same version is installed again: apt may remove its own later.
    run([*pip, "--no-deps", "--ignore-installed", "--only-binary=:all:", *source, "--requirement", str(listed)])


def run(command: list[str]) -> None:
    """One step of the installation; the end of what it printed is part of the error."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if answer.returncode:
        reason = "\n".join(answer.stdout.strip().splitlines()[-5:])
        raise EnvironmentProblem(
            f"{reason}\n'{' '.join(command[:6])} …' failed: check the network and 'pip config list', or give a folder "
            "of wheels with --wheels"
        )


def check(prefix: Path | None, built_for: str) -> int:
    """Say what would keep the executables from starting; the exit code."""
    problems = workspace_problems(prefix, built_for) if prefix else []
    python = None if problems else python_to_continue_in()
    if python:
        return subprocess.run([str(python), "-s", str(Path(__file__).resolve()), "--check"]).returncode
    problems = problems or package_problems()
    for problem in problems:
        print(f"{PACKAGE}: {problem}", file=sys.stderr)
    return 2 if problems else 0


def main(argv: list[str] | None = None, prefix: Path | None = None, built_for: str = "") -> int:
    """Entry point of the executable `install_dependencies`, which knows its installation as `enter` does."""
    parser = argparse.ArgumentParser(
        prog="install_dependencies",
        description="Install what apt lacks into an environment of this package's own, which its executables find.",
    )
    parser.add_argument(
        "--onnxruntime", default="", help="another ONNX Runtime: onnxruntime-gpu==…, or a wheel's path"
    )
    parser.add_argument(
        "--also", action="append", default=[], help="one more package, as cuda-bindings==…; repeatable"
    )
    parser.add_argument("--wheels", default="", help="folder of wheels, for a robot without a network")
    parser.add_argument("--where", action="store_true", help="print the environment's folder and do nothing")
    parser.add_argument("--list", action="store_true", help="print the pinned packages, for pip download")
    parser.add_argument("--check", action="store_true", help="say what keeps the executables from starting")
    arguments = parser.parse_args(argv)
    if arguments.check:
        return check(prefix, built_for)
    if arguments.where:
        print(environment_folder())
        return 0
    if arguments.list:
        major = (installed_version(NEEDED[0]) or "1")[0]
        print("\n".join(pins(major)))
        return 0
    try:
        print(f"install_dependencies: installing into {environment_folder()} ...", file=sys.stderr, flush=True)
        make_environment(arguments.onnxruntime, arguments.wheels, arguments.also)
    except EnvironmentProblem as problem:
        for line in str(problem).splitlines():
            print(f"install_dependencies: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    code = check(prefix, built_for)
    if code == 0:
        print("install_dependencies: complete; the executables of this package use it from now on", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
