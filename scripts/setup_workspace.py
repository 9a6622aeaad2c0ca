"""Make `.venv` and the built ROS 2 workspace from nothing, or find that they are up to date.

    python3 scripts/setup_workspace.py          what `diffusion-perception` and the nodes need
    python3 scripts/setup_workspace.py --test   also training and the tools of the test suite

A `.venv` that is there keeps its Python, whichever runs this; `--this-python`, which `make setup PYTHON=...` gives,
makes it anew with the one that runs this.

Without a ROS 2 installation, rclpy and the message generators come as wheels and `.venv` is all there is to ROS 2.
Where a ROS 2 installation is sourced, `.venv` is laid over it and holds only what it lacks.

Each of the two layers (the packages, the messages built from `msg/`) is recorded in `.venv/setup.json` once it is
complete, with a hash of all it was made from; an interrupted or outdated layer is made again. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import (
    Python,
    Ros,
    SetupError,
    check_machine,
    check_packages_reachable,
    clean_environment,
    find_python,
    find_ros,
)


ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
INSTALL = ROOT / "install"
RECORD = VENV / "setup.json"
ENVIRONMENT_SCRIPT = VENV / "workspace.sh"
CONSTRAINTS = ROOT / "constraints.txt"
PACKAGE = "diffusion_perception_ros"

WORKSPACE_MODULE = f"{PACKAGE}_workspace"
WORKSPACE_CODE = """\
# Written by scripts/setup_workspace.py: what sourcing ROS 2 and the workspace would set, for every Python of this
# environment. It runs before `ros_wheels_bootstrapper`, which restarts Python so that the library path takes effect.
import os

for name, folders in (("AMENT_PREFIX_PATH", {!r}), ("LD_LIBRARY_PATH", {!r})):
    present = [part for part in os.environ.get(name, "").split(os.pathsep) if part]
    os.environ[name] = os.pathsep.join(present + [folder for folder in folders if folder not in present])
"""

GIGABYTES = {False: 2.0, True: 8.0}
"""Free disk space that is asked for, without and with PyTorch (6 GB with its CUDA libraries)."""

NUMPY_1_PINS = ("numpy==1.26.4", "ml-dtypes==0.5.4", "opencv-python-headless==4.11.0.86", "scipy==1.15.3")
"""Take the place of pins in `constraints.txt` where ROS 2 is compiled for NumPy 1: its modules break with NumPy 2."""


class Setup:
    """One run: which Python, which ROS 2, which packages."""

    def __init__(self, python: Python, ros: Ros | None, test: bool) -> None:
        self.python, self.ros = python, ros
        extras = ([] if ros else ["ros"]) + (["train", "dev"] if test else [])
        self.requirement = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
        self.test = test
        self.environment = build_environment(with_ros=ros is not None)

    def origin(self) -> str:
        """Changes when `.venv` has to be made anew."""
        return fingerprint([], f"{ROOT} {self.python} {self.ros}")

    def packages_hash(self) -> str:
        """Changes when pip has to be called again."""
        return fingerprint([CONSTRAINTS, ROOT / "pyproject.toml", ROOT / "setup.py"], self.origin())

    def messages_hash(self) -> str:
        """Changes when colcon has to build again: new contents of what is compiled, new names of what is copied."""
        compiled = [ROOT / "package.xml", ROOT / "CMakeLists.txt", *sorted((ROOT / "scripts").glob("*.in"))]
        compiled += [*sorted((ROOT / "msg").glob("*.msg")), *sorted((ROOT / "src").glob("*.?pp"))]
        copied = [path for name in ("launch", "config", "models", "demo") for path in sorted((ROOT / name).rglob("*"))]
        return fingerprint(compiled, self.packages_hash() + "\n".join(map(str, copied)))

    def python_in_venv(self, *arguments: str) -> None:
        self.run([str(VENV / "bin" / "python"), *arguments])

    def run(self, command: list[str]) -> None:
        """Run a step of the installation; on a terminal its last line is seen, and all of it if it fails."""
        lines = []
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                lines.append(line)
                if sys.stderr.isatty():
                    print(f"\r\033[K{line.strip()[:100]}", end="\r", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\033[K", end="", file=sys.stderr, flush=True)
        if process.returncode:
            sys.stderr.writelines(lines[-60:])
            raise SetupError(f"This step failed (exit status {process.returncode}): {' '.join(command)}")


def build_environment(with_ros: bool) -> dict[str, str]:
    """The environment that pip and colcon run in: the sourced ROS 2 or the wheels, and no earlier build of ours."""
    environment = clean_environment()
    if not with_ros:
        environment.pop("PYTHONPATH", None)
        environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(VENV)
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH"):
        parts = [part for part in environment.get(name, "").split(os.pathsep) if not part.startswith(str(INSTALL))]
        if name in environment:
            environment[name] = os.pathsep.join(parts)
    environment["PATH"] = os.pathsep.join([str(VENV / "bin"), environment.get("PATH", os.defpath)])
    return environment


def fingerprint(files: list[Path], text: str) -> str:
    """SHA-256 over the contents of files and a text."""
    digest = hashlib.sha256(text.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def read_record() -> dict[str, str]:
    """What earlier runs completed: layer → hash; empty when there is none or it cannot be read."""
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(record: dict[str, str]) -> None:
    """Replace the record in one step, so that an interruption leaves the old one or the new one."""
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2))
    os.replace(temporary, RECORD)


def install_packages(setup: Setup, record: dict[str, str]) -> None:
    """Make `.venv` if there is no complete one from this Python, and bring its packages up to date."""
    check_machine(ROOT, GIGABYTES[setup.test], setup.ros)
    if record.get("origin") != setup.origin():
        if record:
            lies_on = f", over ROS 2 {setup.ros.distribution}" if setup.ros else ""
            wanted = f"Python {setup.python.label} ({setup.python.executable}){lies_on}"
            print(f"setup: .venv is not of {wanted} and this folder: it is made anew", file=sys.stderr, flush=True)
        record = {"origin": setup.origin()}
        make_venv(setup)
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--no-input", "--progress-bar=off"]
    with constraints_file(setup) as constraints, step(f"installing the packages{' with PyTorch' * setup.test}"):
        # Until pip is through there is no record: an interrupted installation is not repaired but started over.
        RECORD.unlink(missing_ok=True)
        # colcon and the editable installation use this setuptools; without it pip would fetch one of any version.
        setup.python_in_venv(*pip, "-c", constraints, "setuptools")
        build_tools = [] if shutil.which("cmake") else ["cmake"]
        build_tools += [] if shutil.which("colcon") or not setup.ros else ["colcon-common-extensions"]
        setup.python_in_venv(
            *pip, "-c", constraints, "--no-build-isolation", *build_tools, "--editable", setup.requirement
        )
    if not setup.ros:
        repair_cmake_exports(VENV, VENV / "bin" / "python")
    layers = ["packages", "test"] if setup.test else ["packages"]
    write_record({**record, **dict.fromkeys(layers, setup.packages_hash())})


def make_venv(setup: Setup) -> None:
    """An empty `.venv`; where pip turns out to reach nothing, none."""
    for folder in (VENV, ROOT / "build", INSTALL):
        shutil.rmtree(folder, ignore_errors=True)
    with step(f"making .venv with Python {setup.python.label}"):
        layered = ["--system-site-packages"] if setup.ros else []
        setup.run([setup.python.executable, "-m", "venv", *layered, str(VENV)])
        try:
            with tempfile.TemporaryDirectory() as downloads:
                pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
                check_packages_reachable(pip, "iniconfig", Path(downloads))
        except SetupError:
            shutil.rmtree(VENV)
            raise


@contextlib.contextmanager
def constraints_file(setup: Setup) -> Iterator[str]:
    """`constraints.txt`, with older versions of what depends on NumPy where ROS 2 is compiled for NumPy 1."""
    probe = "import numpy; print(numpy.__version__)"
    if not setup.ros or not output_of([setup.python.executable, "-c", probe]).startswith("1."):
        yield str(CONSTRAINTS)
        return
    replaced = tuple(pin.split("==")[0] + "==" for pin in NUMPY_1_PINS)
    kept = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith(replaced)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join([*kept, *NUMPY_1_PINS]) + "\n")
        file.flush()
        yield file.name


def output_of(command: list[str]) -> str:
    """What a command prints, empty if it fails."""
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment()).stdout


def repair_cmake_exports(prefix: Path, python: Path) -> None:
    """The wheels' CMake files name include folders of the machine that built them; put those of a Python there."""
    probe = "import numpy, sysconfig; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    python_include, numpy_include = output_of([str(python), "-c", probe]).splitlines()
    for file in sorted((prefix / "share").glob("*/cmake/*Export*.cmake")):
        text = file.read_text()
        repaired = re.sub(r'/opt/python/[^;"]*/numpy/(_)?core/include', numpy_include, text)
        repaired = re.sub(r'/opt/python/[^;"]*/include/python3\.\d+', python_include, repaired)
        if repaired != text:
            file.write_text(repaired)


def build_messages(setup: Setup) -> None:
    """Build the package with colcon into `install` and let the virtual environment see the result."""
    with step("building the ROS 2 messages"):
        # Symbolic links keep Python code, launch files and models of the checkout and of `install` the same. Without
        # tests: their CMake side asks for linters that the wheels lack, and pytest runs them anyway.
        setup.run(
            [
                *("colcon", "build", "--paths", str(ROOT), "--merge-install", "--symlink-install"),
                *("--event-handlers", "console_direct+"),
                *("--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={VENV / 'bin' / 'python'}"),
            ]
        )
    (generated,) = INSTALL.glob(f"lib/python3*/site-packages/{PACKAGE}/msg")
    (site_packages,) = VENV.glob("lib/python3*/site-packages")
    # The source tree comes first; `__init__.py` of the package adds the generated `msg` of the built one.
    lines = [str(ROOT), str(generated.parent.parent)]
    if setup.ros:
        write_launcher()
    else:
        prefixes = [str(INSTALL), str(VENV)]
        libraries = [str(INSTALL / "lib")]
        (site_packages / f"{WORKSPACE_MODULE}.py").write_text(WORKSPACE_CODE.format(prefixes, libraries))
        lines.append(f"import {WORKSPACE_MODULE}")
    (site_packages / f"{WORKSPACE_MODULE}.pth").write_text("\n".join(lines) + "\n")


def write_launcher() -> None:
    """On a ROS 2 installation: let `.venv/bin/diffusion-perception` source the workspace (and ROS 2 below it)."""
    ENVIRONMENT_SCRIPT.write_text(f'COLCON_CURRENT_PREFIX="{INSTALL}"\n. "{INSTALL}/setup.sh"\n')
    launcher = VENV / "bin" / "diffusion-perception"
    launcher.write_text(f'#!/bin/sh\n. "{ENVIRONMENT_SCRIPT}"\nexec "{VENV}/bin/python" -m {PACKAGE}.cli.main "$@"\n')
    launcher.chmod(0o755)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what takes time, and how much it took."""
    print(f"setup: {title} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"setup: {title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two terminals may both run `make`; the second waits until the first has set up."""
    with open(ROOT / "constraints.txt") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("setup: waiting for another 'make' in this folder ...", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def choose_python(this: bool) -> Python:
    """The one of the present `.venv`, so that a `python3` that came first on the PATH since then does not undo it.

    Raises:
        SetupError: no Python here is suitable.
    """
    present = VENV / "bin" / "python"
    return find_python(*([str(present)] if present.exists() and not this else []))


def bring_up_to_date(test: bool, this_python: bool) -> None:
    """Do what is missing, and nothing else.

    Raises:
        SetupError: the machine lacks something, or a step failed.
    """
    ros = find_ros(ROOT)
    setup = Setup(ros.python if ros else choose_python(this_python), ros, test)
    record = read_record()
    wanted = ["packages", "test"] if test else ["packages"]
    complete = (VENV / "bin" / "python").exists()
    if not complete or any(record.get(layer) != setup.packages_hash() for layer in wanted):
        install_packages(setup, record if complete else {})
        record = read_record()
    if record.get("messages") != setup.messages_hash() or not INSTALL.is_dir():
        build_messages(setup)
        write_record({**record, "messages": setup.messages_hash()})


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv and the built ROS 2 workspace, or bring them up to date.")
    parser.add_argument("--test", action="store_true", help="also what training and the test suite need")
    parser.add_argument("--this-python", action="store_true", help="even if .venv is of another Python")
    arguments = parser.parse_args()
    try:
        with only_one_at_a_time():
            bring_up_to_date(arguments.test, arguments.this_python)
    except SetupError as error:
        for line in str(error).splitlines():
            print(f"setup: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the same command takes it up again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
