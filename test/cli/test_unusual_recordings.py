"""`evaluate`, `run` and the reading of `adapt` on recordings out of the ordinary: exit codes and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from model_factory import write_model
from recording_factory import (
    COLOR_TOPIC,
    DEPTH_TOPIC,
    START,
    Recorded,
    camera,
    compressed,
    depth_of,
    image,
    jpeg,
    kill_recorder,
    png,
    rgb_of,
    write_mcap,
    write_ros1,
    write_rosbag2,
)

from diffusion_perception_ros.cli import adaptation_data
from diffusion_perception_ros.cli.main import main


FRAMES, PERIOD = 4, 100_000_000


def unsorted(path: Path) -> Path:
    return write_mcap(path / "a.mcap", sorted(camera(FRAMES), key=lambda e: e.topic), None, indexed=False)


def with_others(path: Path) -> Path:
    others = [("/log", "", "", b"", "json"), ("/p", "Pose", "protobuf", b"\1", "protobuf")]
    return write_mcap(path / "a.mcap", camera(FRAMES), others=others)


def depth_as_png(path: Path) -> Path:
    entries: list[Recorded] = []
    for index in range(FRAMES):
        time = START + index * PERIOD
        entries.append(compressed(DEPTH_TOPIC + "/compressed", time, png(depth_of(index)), "16UC1; png compressed"))
        padded = jpeg(rgb_of(index)) + b"\r\n" + b"\xff" * 900
        entries.append(compressed(COLOR_TOPIC + "/compressed", time + 1, padded, "rgb8; jpeg compressed bgr8"))
    return write_rosbag2(path / "bag", entries)


def shared_depth(path: Path) -> Path:
    times = [START + index * PERIOD // 6 for index in range(FRAMES)]
    entries = [image(COLOR_TOPIC, time, rgb_of(index), "rgb8") for index, time in enumerate(times)]
    entries += [image(DEPTH_TOPIC, time + 5, depth_of(index), "16UC1") for index, time in enumerate(times[::2])]
    return write_rosbag2(path / "bag", sorted(entries, key=lambda entry: entry.time))


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unsorted": (unsorted, ""),
    "other channels": (with_others, "/log is left out: it has no schema"),
    "ROS 1 without definition": (
        lambda path: write_ros1(path / "a.bag", camera(FRAMES), custom=[("/lidar", "lidar_msgs/msg/Packet", "")]),
        "/lidar is left out: it has no definition",
    ),
    "without stamps": (lambda path: write_rosbag2(path / "bag", camera(FRAMES, stamped=False)), "recorded are used"),
    "killed": (lambda path: kill_recorder(path / "bag", camera(FRAMES), 5), "last messages are read from"),
    "depth as PNG, padded JPEG": (depth_as_png, ""),
    "shared depth": (shared_depth, ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_read(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, words = KINDS[kind]
    bag = write(tmp_path)
    model = write_model(tmp_path / "rows", ["depth"])
    assert main(["evaluate", "--data", str(bag), "--model", str(model), "--json", str(tmp_path / "scores.json")]) == 0
    assert words in capsys.readouterr().err
    assert len(json.loads((tmp_path / "scores.json").read_text())["images"]) == FRAMES
    assert main(["run", str(bag), "--model", str(model), "-o", str(tmp_path / "out"), "--save", "npz"]) == 0
    assert words in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.npz"))) == FRAMES
    dataset = adaptation_data.open_images(bag, ["depth"], None, None, None)
    read = adaptation_data.read_images(
        dataset, range(len(dataset)), 50, ["depth"], lambda width, height: (width, height)
    )
    assert len(read) == FRAMES


def test_a_loss_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = kill_recorder(tmp_path / "bag", camera(FRAMES), 6)
    next(bag.glob("*-wal")).unlink()
    model = write_model(tmp_path / "rows", ["depth"])
    assert main(["evaluate", "--data", str(bag), "--model", str(model)]) == 1
    assert f"2 of the 4 messages of {COLOR_TOPIC}" in capsys.readouterr().err
    assert main(["run", str(bag), "--model", str(model), "-o", str(tmp_path / "out")]) == 1
    assert f"2 of the 4 messages of {COLOR_TOPIC}" in capsys.readouterr().err
