"""Follow docs/on_your_robot.md word by word on stand-ins for ROS 2 distributions, each from an empty home.

    python3 scripts/distributions.py                 all of them
    python3 scripts/distributions.py jazzy --again   make its stand-in anew

A stand-in has the distribution's Python, apt's versions of the Python packages (test/distributions/NAME.txt) in a
virtual environment that plays the system's, and ROS 2 below `opt/ros/NAME`. ROS 2 itself comes as wheels: Kilted's for
Kilted, Jazzy's for Jazzy and Humble, of which there are none. `launch` and `launch_ros` have no wheels; LAUNCH_SOURCES
names a folder with checkouts of both repositories, whose branch NAME is taken (`rolling` where there is none); without
it the launch files are not tried. `ros2`, `rosdep` and `sudo` are replaced by the few lines below.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from machine import SetupError, clean_environment, probe_python
from setup_workspace import repair_cmake_exports


ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "on_your_robot.md"
PINS = ROOT / "test" / "distributions"
WORK = ROOT / "out" / "distributions"
TOOLS = WORK / "tools"
PYTHONS = {"humble": "3.10", "jazzy": "3.12", "kilted": "3.12"}
APT = {"humble": "humble", "jazzy": "jazzy", "kilted": "jazzy"}
"""Whose file of apt's versions a distribution takes: Jazzy and Kilted are both for Ubuntu 24.04."""
ADDRESS = "https://github.com/diffusion-perception/diffusion_perception_ros"

SETUP = """\
export ROS_DISTRO={name} ROS_VERSION=2 ROS_PYTHON_VERSION=3
export AMENT_PREFIX_PATH={ros}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}} CMAKE_PREFIX_PATH={ros}
export PYTHONPATH={packages}${{PYTHONPATH:+:$PYTHONPATH}}
export LD_LIBRARY_PATH={libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
export PATH={ros}/bin:$PATH
"""
ROS2 = """\
#!{python}
# Stands in for ros2cli: `ros2 run` and `ros2 launch`, with ament's index and the real launch.
import os, sys
from pathlib import Path
from ament_index_python.packages import get_package_prefix
verb, package, name, *rest = sys.argv[1:]
prefix = Path(get_package_prefix(package))
if verb == "run":
    os.execv(prefix / "lib" / package / name, [str(prefix / "lib" / package / name), *rest])
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
file = next((prefix / "share" / package).rglob(name))
arguments = [tuple(word.split(":=", 1)) for word in rest]
service = LaunchService(argv=rest)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(AnyLaunchDescriptionSource(str(file)), launch_arguments=arguments)])
)
sys.exit(service.run())
"""
NOTHING = '#!/bin/sh\necho "($(basename $0) $*: left out in a stand-in)"\n'


class StandIn:
    """One distribution below `out/distributions`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = WORK / name
        self.system = self.folder / "system"
        self.python = self.system / "bin" / "python"
        self.ros = self.folder / "opt" / "ros" / name
        self.packages = self.ros / "lib" / f"python{PYTHONS[name]}" / "site-packages"

    def origin(self) -> str:
        """Changes when the stand-in has to be made anew."""
        digest = hashlib.sha256(os.environ.get("LAUNCH_SOURCES", "").encode())
        for lines in ((PINS / f"{APT[self.name]}.txt").read_text(), *self.ros_packages()):
            digest.update(lines.encode())
        return digest.hexdigest()

    def ros_packages(self) -> list[str]:
        """The wheels of ROS 2: those that `make setup` takes are Kilted's."""
        pins = ROOT / "constraints.txt" if self.name == "kilted" else PINS / "ros.txt"
        return [line for line in pins.read_text(encoding="utf-8").splitlines() if line.startswith("ros-")]

    def make(self) -> None:
        """Make it, or find that it is there."""
        record = self.folder / "origin"
        if not record.is_file() or record.read_text() != self.origin():
            self.install()
            record.write_text(self.origin())
        libraries = ":".join(map(str, [self.ros / "lib", *sorted(self.packages.glob("ros_*.libs"))]))
        text = SETUP.format(name=self.name, ros=self.ros, packages=self.packages, libraries=libraries)
        (self.ros / "setup.bash").write_text(text)
        write_program(self.ros / "bin" / "ros2", ROS2.format(python=self.python))
        for name in ("sudo", "rosdep"):
            write_program(self.ros / "bin" / name, NOTHING)

    def install(self) -> None:
        """Python, apt's packages, ROS 2 and colcon."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        make_tools()
        call([find_python(PYTHONS[self.name]), "-m", "venv", str(self.system)])
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input"]
        call([*pip, "--requirement", str(PINS / f"{APT[self.name]}.txt")])
        call([*pip, "--no-deps", "--ignore-installed", "--prefix", str(self.ros), *self.ros_packages()])
        repair_cmake_exports(self.ros, self.python)
        self.add_launch()
        for name in ("colcon", "cmake", "ctest"):
            (self.ros / "bin" / name).symlink_to(TOOLS / "bin" / name)

    def add_launch(self) -> None:
        """launch and launch_ros of this distribution, from their repositories."""
        sources = os.environ.get("LAUNCH_SOURCES")
        if not sources:
            return
        for name in ("launch", "launch_ros"):
            target = self.folder / "src" / name
            target.mkdir(parents=True)
            repository = ["git", "-C", f"{sources}/{name}"]
            known = subprocess.run([*repository, "rev-parse", "--verify", "--quiet", self.name], capture_output=True)
            archive = [*repository, "archive", "rolling" if known.returncode else self.name]
            files = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
            subprocess.run(["tar", "--extract", "--directory", str(target)], input=files, check=True)
            shutil.copytree(target / name / name, self.packages / name)
            share = self.ros / "share" / name
            share.mkdir(parents=True, exist_ok=True)
            shutil.copy(target / name / "package.xml", share)
            index = self.ros / "share" / "ament_index" / "resource_index" / "packages"
            index.mkdir(parents=True, exist_ok=True)
            (index / name).touch()
        # launch_ros imports it for composable nodes, which none of our launch files load.
        stub = self.packages / "composition_interfaces"
        stub.mkdir()
        (stub / "__init__.py").touch()
        (stub / "srv.py").write_text("class LoadNode:\n    Request = Response = object\n")

    def follow(self, page: Path) -> None:
        """Run the commands of this distribution's section in a shell, in a home of its own that was empty."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        script = commands(page.read_text(encoding="utf-8"), self.name).replace(f"/opt/ros/{self.name}", str(self.ros))
        if not os.environ.get("LAUNCH_SOURCES"):
            script = re.sub(r"(?m)^ros2 launch ", "echo without LAUNCH_SOURCES not tried: ros2 launch ", script)
        environment = clean_environment()
        for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "ROS_DISTRO"):
            environment.pop(name, None)
        environment |= {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(self.system / "bin"), str(self.ros / "bin"), *path_without_environments()]),
            "ROS_DOMAIN_ID": str(90 + list(PYTHONS).index(self.name)),
            "ROS_LOG_DIR": str(self.folder / "log"),
            "ROS_PYTHON_CHECK_FIELDS": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
            "GIT_CONFIG_VALUE_0": ADDRESS,
            "GIT_CONFIG_KEY_1": "safe.directory",
            "GIT_CONFIG_VALUE_1": "*",
        }
        shell = ["bash", "-e", "-o", "pipefail", "-v", "-c", script]
        # The distribution's setup.bash and colcon's are not written for `set -u`.
        if subprocess.run(shell, cwd=home, env=environment, stdin=subprocess.DEVNULL).returncode:
            raise SetupError(f"{self.name}: a command of {page.name} failed, see above")


def make_tools() -> None:
    """colcon and CMake, in an environment that has nothing to do with the stand-ins."""
    if (TOOLS / "bin" / "colcon").is_file():
        return
    call([find_python(PYTHONS["jazzy"]), "-m", "venv", str(TOOLS)])
    pip = [
        str(TOOLS / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-input",
    ]
    call([*pip, "--constraint", str(ROOT / "constraints.txt"), "colcon-common-extensions", "cmake"])


def path_without_environments() -> list[str]:
    """The PATH without the virtual environment that this may run in."""
    return [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part).parent / "pyvenv.cfg").is_file()]


def commands(page: str, name: str) -> str:
    """The bash blocks of the section whose heading begins with the distribution's name."""
    section = re.search(rf"(?ms)^## {name.capitalize()}\b.*?(?=^## |\Z)", page)
    if not section:
        raise SetupError(f"{PAGE.name} has no section '## {name.capitalize()}'")
    return "\n".join(re.findall(r"(?ms)^```bash\n(.*?)^```", section.group()))


def find_python(version: str) -> str:
    """An interpreter of a version: on the PATH, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python3")))]
    for candidate in candidates:
        python = probe_python(candidate)
        if python and python.label == version and not python.lacks():
            return python.executable
    raise SetupError(f"there is no Python {version} with venv and headers here: pyenv install {version}")


def write_program(path: Path, text: str) -> None:
    """A file that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def call(command: list[str]) -> None:
    """A step of making a stand-in."""
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if answer.returncode:
        raise SetupError(f"{answer.stdout[-3000:]}\nThis step failed: {' '.join(command)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow docs/on_your_robot.md on stand-ins for ROS 2 distributions.")
    parser.add_argument(
        "names", nargs="*", default=list(PYTHONS), metavar="NAME", help=f"{', '.join(PYTHONS)}; default: all"
    )
    parser.add_argument("--again", action="store_true", help="make the stand-ins anew")
    arguments = parser.parse_args()
    try:
        for name in arguments.names:
            start = time.monotonic()
            stand_in = StandIn(name)
            if arguments.again:
                shutil.rmtree(stand_in.folder, ignore_errors=True)
            stand_in.make()
            print(f"distributions: {name}: the stand-in is there ({time.monotonic() - start:.0f} s)", flush=True)
            stand_in.follow(PAGE)
            print(f"distributions: {name}: every command succeeded ({time.monotonic() - start:.0f} s)", flush=True)
    except SetupError as error:
        print(f"distributions: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
