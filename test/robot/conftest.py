"""Tests of an installed package, as `colcon test` runs them: with the system's Python and what apt gives.

Nodes run through the installed executables, which find the environment of `install_dependencies` by themselves. Where
that has not been run (a build farm), tests that need it are skipped, with the sentence that a user would read.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from diffusion_perception_ros.robot_environment import VARIABLE, environment_folder


PACKAGE = "diffusion_perception_ros"
os.environ.setdefault(VARIABLE, str(environment_folder()))  # before the tests get a data folder of their own


def installation() -> Path | None:
    """The prefix that is tested: what colcon says, or the first that is sourced."""
    paths = [os.environ.get("INSTALLATION", ""), *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    found = (Path(path) for path in paths if path and (Path(path) / "lib" / PACKAGE / "replay_plan").is_file())
    return next(found, None)


@pytest.fixture(scope="session")
def prefix() -> Path:
    """The installation."""
    found = installation()
    if found is None:
        pytest.skip(f"{PACKAGE} is not installed: colcon build")
    return found


@pytest.fixture(scope="session")
def executables(prefix: Path) -> Path:
    """The folder of the executables."""
    return prefix / "lib" / PACKAGE


@pytest.fixture(scope="session")
def ready(executables: Path) -> Path:
    """The same, where they have all they need."""
    answer = subprocess.run([executables / "install_dependencies", "--check"], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(answer.stderr.strip())
    return executables
