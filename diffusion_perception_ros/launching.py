"""What the launch files share: arguments with types, and what has to be right before anything starts.

It runs in the interpreter of `ros2 launch`, which has what apt gives: the standard library, launch and ament_index.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration


PACKAGE = "diffusion_perception_ros"
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
PROFILES = {True: "FASTRTPS_DEFAULT_PROFILES_FILE", False: "FASTDDS_DEFAULT_PROFILES_FILE"}
"""Variable that names the profile of Fast DDS, up to Jazzy and since Kilted."""


@dataclass(frozen=True)
class Argument:
    """A launch argument; on the command line everything is text."""

    default: str | None
    """None: it has to be given."""
    description: str
    kind: str = "text"
    """text, bool, number, file (it must exist), or the words that are allowed, as in raw|compressed."""

    def problem(self, text: str) -> str | None:
        """What is wrong with a value, None if nothing is. An empty text leaves the choice to somebody else."""
        if not text:
            return None if self.default == "" else "it is empty"
        if self.kind == "bool" and text.lower() not in TRUE + FALSE:
            return "true or false is needed"
        if self.kind == "number" and not is_number(text):
            return "a number is needed, as in 0.5"
        if self.kind == "file" and not Path(text).expanduser().is_file():
            return "there is no such file"
        if "|" in self.kind and text not in self.kind.split("|"):
            return f"{', '.join(self.kind.split('|'))} is needed"
        return None


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def is_true(text: str) -> bool:
    """A launch argument of kind bool."""
    return text.lower() in TRUE


def declare(arguments: Mapping[str, Argument]) -> list[DeclareLaunchArgument]:
    """What `ros2 launch … --show-args` lists."""
    return [
        DeclareLaunchArgument(name, default_value=argument.default, description=argument.description)
        for name, argument in arguments.items()
    ]


def values_of(context: LaunchContext, arguments: Mapping[str, Argument]) -> dict[str, str]:
    """The arguments as they were given.

    Raises:
        RuntimeError: one of them is wrong; launch prints the sentence and starts nothing.
    """
    values = {name: LaunchConfiguration(name).perform(context) for name in arguments}
    problems = [
        f"launch argument {name}:={value}: {problem}"
        for name, value in values.items()
        if (problem := arguments[name].problem(value))
    ]
    if problems:
        raise RuntimeError("; ".join(problems))
    return values


def executable(name: str) -> str:
    """Path of one of this package's executables.

    Raises:
        RuntimeError: the workspace is not sourced.
    """
    try:
        path = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / name
    except PackageNotFoundError:
        raise RuntimeError(
            f"{PACKAGE} is not sourced: source install/setup.bash of the workspace it was built in"
        ) from None
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: colcon build --packages-select {PACKAGE}")
    return str(path)


def answer_of(command: list[str]) -> str:
    """What one of this package's executables prints.

    Raises:
        RuntimeError: it failed; the message is what it said about that.
    """
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        said = answer.stderr.strip() or f"{command[0]} ended with {answer.returncode}"
        raise RuntimeError(said)
    return answer.stdout


def check_installation() -> None:
    """See that the executables will find what they need.

    Raises:
        RuntimeError: they will not; one sentence per missing thing.
    """
    answer_of([executable("install_dependencies"), "--check"])


def has_package(name: str) -> bool:
    """Whether a ROS 2 package is installed and sourced."""
    try:
        get_package_prefix(name)
    except PackageNotFoundError:
        return False
    return True


def rviz_default() -> str:
    """`true` where rviz2 is installed and there is a display to show it on."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return "true" if display and has_package("rviz2") else "false"


def check_rviz() -> None:
    """Raises RuntimeError where rviz is asked for and not installed; a robot need not have it."""
    if not has_package("rviz2"):
        distribution = os.environ.get("ROS_DISTRO", "DISTRO")
        raise RuntimeError(
            f"rviz:=true needs rviz2, which is not installed: sudo apt install ros-{distribution}-rviz2"
        )


def large_image_settings(profile: Path) -> list[SetEnvironmentVariable]:
    """Fast DDS loses large images with its defaults; a profile that the user has chosen is left alone."""
    if any(os.environ.get(name) for name in PROFILES.values()):
        return []
    older = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    return [SetEnvironmentVariable(PROFILES[older], str(profile))]
