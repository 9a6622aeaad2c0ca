"""What `make setup` needs from the machine: a Python, a compiler, disk, network; or a ROS 2 that is already there.

Standard library only, and no syntax newer than Python 3.8: it must run far enough to say what is missing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


OLDEST, NEWEST = (3, 10), (3, 13)
"""Versions of Python that the wheels in `constraints.txt` are tried with."""

COMMANDS = ("python3", "python3.12", "python3.11", "python3.13", "python3.10", "/usr/bin/python3")
"""Where to look for one, best first."""

PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "version": list(sys.version_info[:2]),
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
    "headers": os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
}))
"""


class SetupError(Exception):
    """Something the user has to provide; the message is one sentence per missing thing, each with its remedy."""


@dataclass(frozen=True)
class Python:
    """An interpreter to base the virtual environment on."""

    executable: str
    version: tuple[int, int]
    has_venv: bool
    has_headers: bool

    @property
    def label(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    def lacks(self) -> list[str]:
        """What has to be installed for this interpreter, as sentences."""
        name, missing = f"Python {self.label} ({self.executable})", []
        if not self.has_venv:
            missing.append(f"{name} lacks its venv module: sudo apt install python{self.label}-venv.")
        if not self.has_headers:
            missing.append(f"{name} lacks its C headers: sudo apt install python{self.label}-dev.")
        return missing


@dataclass(frozen=True)
class Ros:
    """A ROS 2 installation whose environment has been sourced."""

    distribution: str
    prefixes: tuple[str, ...]
    python: Python


def clean_environment() -> dict[str, str]:
    """The process environment without what an active virtual environment or its ROS wheels put there."""
    unwanted = ("PYTHONHOME", "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def probe_python(command: str) -> Python | None:
    """What the interpreter can do, or None if it does not run."""
    try:
        answer = subprocess.run(
            [command, "-c", PROBE], check=True, capture_output=True, text=True, env=clean_environment(), timeout=60
        )
        facts = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    major, minor = facts["version"]
    return Python(facts["executable"], (major, minor), facts["venv"], facts["headers"])


def find_python(*preferred: str) -> Python:
    """The first suitable one of `preferred`, the interpreter that runs this program, and those on the PATH.

    Raises:
        SetupError: none is in the supported range, or those that are lack their venv module or headers.
    """
    found, supported = [], []
    for command in (*preferred, sys.executable, *COMMANDS):
        python = probe_python(command)
        if python:
            found.append(python)
            if OLDEST <= python.version <= NEWEST:
                if not python.lacks():
                    return python
                supported.append(python)
    if supported:
        raise SetupError("\n".join(supported[0].lacks()))
    versions = ", ".join(sorted({python.label for python in found})) or "none"
    raise SetupError(
        f"Python 3.10 to 3.13 is needed and this machine has {versions}: install one, for example with "
        "'sudo apt install python3.12 python3.12-venv python3.12-dev' or 'pyenv install 3.12'."
    )


def find_ros(own_root: Path) -> Ros | None:
    """The ROS 2 installation that is sourced in this shell, None if there is none.

    Raises:
        SetupError: ROS 2 is sourced, but no Python here can import rclpy.
    """
    paths = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes = tuple(path for path in paths if path and own_root not in Path(path).resolve().parents)
    distribution = os.environ.get("ROS_DISTRO", "")
    if not distribution or not prefixes:
        return None
    for command in (sys.executable, "/usr/bin/python3", "python3"):
        python = probe_python(command)
        if python and python.version >= OLDEST and imports_rclpy(python):
            return Ros(distribution, prefixes, python)
    raise SetupError(
        f"ROS 2 {distribution} is sourced but no Python here (3.10 or newer) can import rclpy: "
        f"'sudo apt install ros-{distribution}-ros-base', or unset ROS_DISTRO to use the ROS 2 wheels instead."
    )


def imports_rclpy(python: Python) -> bool:
    """Whether rclpy works with the environment of this shell."""
    command = [python.executable, "-c", "import rclpy"]
    return subprocess.run(command, capture_output=True, env=clean_environment()).returncode == 0


def check_machine(root: Path, gigabytes: float, ros: Ros | None) -> None:
    """See that an installation below `root` can succeed.

    Raises:
        SetupError: it cannot; one sentence per missing thing.
    """
    missing = ros.python.lacks() if ros else []
    if not ros and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        missing.append(
            f"There are no ROS 2 wheels for {platform.system()} on {platform.machine()}: install ROS 2 "
            "(Humble, Jazzy, Kilted or newer) and source its setup.bash first."
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        missing.append("There is no C++ compiler, which the ROS 2 messages need: sudo apt install build-essential.")
    if not os.access(root, os.W_OK):
        missing.append(f"The folder {root} is not writable for this user: change its owner or clone it elsewhere.")
    free = shutil.disk_usage(root).free / 1e9
    if free < gigabytes:
        missing.append(
            f"The disk of {root} has {free:.1f} GB free, {gigabytes:.1f} GB are needed: make room or clone elsewhere."
        )
    if missing:
        raise SetupError("\n".join(missing))


def check_packages_reachable(pip: list[str], requirement: str, folder: Path) -> None:
    """See that pip can download, with one small package, before anything large starts.

    Raises:
        SetupError: it cannot; the last line of pip's answer is part of the message.
    """
    command = [*pip, "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", str(folder), requirement]
    answer = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(
            f"pip cannot download packages ({reason}): check the network, the proxy settings and 'pip config list'."
        )
