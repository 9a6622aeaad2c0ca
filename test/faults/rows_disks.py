"""Full and read-only disks, for everything that writes; and what has its own tests of damaged files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from faults.bench import RGB, TOPIC, Bench
from faults.campaign import NO_NODE, Skip, row


TESTS = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def mounted(bench: Bench, options: str) -> Iterator[Path]:
    """A small disk in memory; only root may make one."""
    folder = bench.folder / "disk"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        raise Skip("a disk in memory can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line tool."""
    path = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    tool = [sys.executable, "-m", "diffusion_perception_ros.cli.main", *map(str, arguments)]
    return subprocess.run(tool, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=570)


def _image_file(bench: Bench) -> Path:
    path = bench.folder / "image.png"
    cv2.imwrite(str(path), cv2.resize(RGB, (640, 480)))
    return path


WRITERS = ("run", "world", "evaluate")


def _arguments(bench: Bench, writer: str, output: Path) -> Sequence[str | Path]:
    model = bench.model("plain")
    if writer == "run":
        return ["run", _image_file(bench), "-o", output, "--model", model, "--save", "npz"]
    if writer == "world":
        return ["world", "-o", output, "--count", "4", "--size", "64x48"]
    data = bench.folder / "data"
    if not data.exists():
        assert command("world", "-o", data, "--count", "2", "--size", "64x48").returncode == 0
    return ["evaluate", "--data", data, "--model", model, "--report", output / "report"]


def _refuses(bench: Bench, folder: Path) -> str:
    said = []
    for writer in WRITERS:
        result = command(*_arguments(bench, writer, folder / writer))
        text = result.stderr.strip()
        assert result.returncode not in (0, 1) or "written" in text, f"{writer}: exit code {result.returncode}: {text}"
        assert "Traceback" not in text, f"{writer}: {text[-1500:]}"
        said.append(f"{writer}: {text.splitlines()[-1] if text else result.returncode}")
    return "; ".join(said)


@row("a full disk, for every command that writes", "one sentence, no traceback, exit code not 0", NO_NODE)
def full_disk(bench: Bench) -> str:
    with mounted(bench, "size=16k") as folder:
        (folder / "filler").write_bytes(bytes(8192))
        return _refuses(bench, folder)


@row("a read-only disk, for every command that writes", "one sentence, no traceback, exit code not 0", NO_NODE)
def read_only_disk(bench: Bench) -> str:
    with mounted(bench, "size=1m,ro") as folder:
        return _refuses(bench, folder)


@row("the recorder's disk becomes full", "it ends with a sentence; the bag can be read", NO_NODE)
def recorder_full(bench: Bench) -> str:
    with mounted(bench, "size=3m") as folder:
        bag = folder / "bag"
        recorder = bench.ros.start("recorder", "-p", f"output:={bag}", "-p", f"topics:=[{TOPIC}]")
        bench.ros.wait_for(lambda: bench.ros.node.count_subscribers(TOPIC) > 0, "the recorder subscribes")
        noise = cv2.resize(RGB, (320, 240))
        bench.ros.repeat_until(
            lambda: [bench.send(noise) for _ in range(5)], lambda: not recorder.is_running, "its end"
        )
        log = recorder.log
        assert "Traceback" not in log, log[-2000:]
        copy = bench.folder / "recorded"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bag, copy)
    assert recorder.wait() != 0
    result = command("run", copy, "-o", bench.folder / "from_bag", "--model", bench.model("plain"))
    assert result.returncode in (0, 1), f"the bag cannot be read: {result.stderr[-1500:]}"
    return log.strip().splitlines()[-1]


def _tests(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=590)
    assert result.returncode == 0, result.stdout[-2000:]
    return result.stdout.strip().splitlines()[-1]


@row(
    "training: checkpoint damaged, flipped bits, processes killed, a full disk",
    "goes on from the last whole",
    NO_NODE,
)
def training(bench: Bench) -> str:
    words = "damaged or flipped or disk or processes_that"
    return _tests("test/training/test_training_failures.py", "-k", words)


@row("model folders: merge bombs, nesting, pipes, devices, NaN, unlisted weights", "refused in a sentence", NO_NODE)
def model_folders(bench: Bench) -> str:
    return _tests("test/inference/test_untrusted_files.py")
