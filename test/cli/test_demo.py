"""The demo end to end: bag player, perception node and recorder as real processes over DDS."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from bag_factory import BagSpec, write_bag
from model_factory import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "models" / "toy")


def start(arguments: Sequence[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "diffusion_perception_ros.cli.main", "demo", *(str(word) for word in arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def demo(*arguments: object) -> tuple[int, str, str]:
    process = start(arguments)
    output, error = process.communicate(timeout=180)
    return process.returncode, output, error


def processes_that_name(path: Path) -> list[str]:
    """Command lines of running processes in which a path occurs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in command and file.parent.name != str(os.getpid()):
            found.append(command)
    return found


@pytest.mark.parametrize(("storage", "compressed"), [("mcap", False), ("sqlite3", True)])
def test_bag_to_report(tmp_path: Path, model: Path, storage: str, compressed: bool) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=12, storage=storage, compressed=compressed))
    out = tmp_path / "out"
    code, output, error = demo("--bag", bag, "--model", model, "--output", out)
    assert code == 0, error
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["frames_published"] == 12
    assert metrics["frames_received"] == 12
    assert 0 < metrics["frames_predicted"] == 12 - metrics["frames_dropped"]
    assert metrics["header_mismatches"] == 0
    assert 0 < metrics["latency_ms"]["p50"] <= metrics["latency_ms"]["p95"] <= metrics["latency_ms"]["p99"]
    assert metrics["inference_ms"]["p50"] > 0
    assert metrics["throughput_hz"] > 0
    # Every frame's depth is constant but for two rows without data, so the constant baseline is exact.
    assert metrics["accuracy"]["depth"]["all"]["constant"]["absrel"] < 1e-6
    assert metrics["accuracy"]["depth"]["all"]["model_affine"]["images"] == metrics["frames_recorded"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Input", "Depth, ground truth", "Segmentation", "From image to last output"):
        assert title in page
    assert "images published" in output
    assert "AbsRel" in output
    assert sorted(path.name for path in (out / "logs").iterdir()) == [
        "bag_player.log",
        "perception_node.log",
        "recorder.log",
    ]
    assert processes_that_name(tmp_path) == []


def test_relative_model_answers_in_metres_where_the_bag_has_depth(tmp_path: Path) -> None:
    model = write_model(tmp_path / "models" / "toy", ["depth"], depth="brightness")
    bag = write_bag(tmp_path, BagSpec(frames=10, ramp=True))
    out = tmp_path / "out"
    code, output, error = demo("--bag", bag, "--model", model, "--output", out)
    assert code == 0, error
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["sparse_depth_share"] == 0.01
    assert metrics["scale"]["frames"]["sparse_depth"] > metrics["frames_recorded"] / 2
    assert metrics["scale"]["inliers"] > 0.9
    assert metrics["scale"]["age"] < 0.2
    scores = metrics["accuracy"]["depth"]["all"]
    assert scores["model_metric"]["absrel"] < 0.1
    assert scores["model_affine"]["images"] == metrics["frames_recorded"]
    # 0.1 % of so small an image are fewer points than a scale needs
    assert {entry["share"] for entry in metrics["completion"]} == {0.01, 0.05}
    for entry in metrics["completion"]:
        assert list(entry["methods"]) == ["model", "nearest", "joint_bilateral"]
        assert entry["methods"]["model"]["absrel"] < entry["methods"]["nearest"]["absrel"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Inliers of the scale", "Residual of the scale", "Age of the scale", "1% of the pixels given"):
        assert title in page
    assert "joint bilateral" in output


def test_bag_without_depth_has_a_report_without_accuracy(tmp_path: Path, model: Path) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=5, depth=False))
    out = tmp_path / "out"
    code, _, error = demo("--bag", bag, "--model", model, "--output", out)
    assert code == 0, error
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] == {}
    assert metrics["frames_recorded"] > 0
    assert "the depth is relative" in (out / "report.html").read_text(encoding="utf-8")


def test_child_that_dies_is_shown_and_nothing_stays_behind(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=5))
    monkeypatch.setenv("ROS_DOMAIN_ID", "9999")  # there are 233
    code, _, error = demo("--bag", bag, "--model", model, "--output", tmp_path / "out")
    assert code == 2
    assert re.search(r"(recorder|perception_node) ended with exit code \d", error)
    assert "domainId is over 232" in error
    assert (tmp_path / "out" / "logs" / "recorder.log").stat().st_size > 0
    assert processes_that_name(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing_running(tmp_path: Path, model: Path, number: signal.Signals) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=20))
    process = start(["--bag", bag, "--model", model, "--rate", "0.01", "--output", tmp_path / "out"])
    deadline = time.monotonic() + 60
    while len(processes_that_name(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = processes_that_name(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert len(started) == 4
    assert process.returncode == 130
    assert processes_that_name(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bag", "no-such-bag"], "no-such-bag is not a bag"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--image-topic", "/nope"], "no image topic /nope"),
    ],
)
def test_wrong_arguments_are_named_before_anything_starts(
    tmp_path: Path, model: Path, arguments: list[str], message: str
) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=2))
    code, _, error = demo("--bag", bag, "--model", model, "--output", tmp_path / "out", *arguments)
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()
