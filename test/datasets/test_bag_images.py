"""What evaluate, adapt and run read of a recording: topics by content, pairs by time, one rule for camera_info."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from model_factory import write_model
from recording_factory import (
    COLOR_TOPIC,
    DEPTH_TOPIC,
    HEIGHT,
    INFO_TOPIC,
    START,
    WIDTH,
    Recorded,
    camera,
    camera_info,
    compressed,
    depth_of,
    image,
    jpeg,
    png,
    rgb_of,
    write_rosbag2,
)

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.frames import open_frames
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError


PERIOD = 100_000_000


def ramp(index: int) -> np.ndarray:
    rgb = rgb_of(index)
    rgb[:, :, 1] = np.arange(WIDTH)
    return rgb


COLORS: dict[str, Callable[[str, int, int], Recorded]] = {
    "raw": lambda topic, time, index: image(topic, time, rgb_of(index), "rgb8"),
    "jpeg": lambda topic, time, index: compressed(topic, time, jpeg(rgb_of(index)), "rgb8; jpeg compressed bgr8"),
    "padded jpeg": lambda topic, time, index: compressed(topic, time, jpeg(rgb_of(index)) + bytes(9000), "jpeg"),
    "png": lambda topic, time, index: compressed(
        topic, time, png(rgb_of(index)[..., ::-1]), "rgb8; png compressed bgr8"
    ),
}
DEPTHS: dict[str, Callable[[str, int, int], Recorded]] = {
    "16UC1": lambda topic, time, index: image(topic, time, depth_of(index), "16UC1"),
    "32FC1": lambda topic, time, index: image(topic, time, (depth_of(index) / 1000).astype("<f4"), "32FC1"),
    "png compressed": lambda topic, time, index: compressed(
        topic, time, png(depth_of(index)), "16UC1; png compressed"
    ),
    "compressedDepth": lambda topic, time, index: compressed(
        topic, time, struct.pack("<iff", 0, 0, 0) + png(depth_of(index)), "16UC1; compressedDepth png"
    ),
    "bare png": lambda topic, time, index: compressed(topic, time, png(depth_of(index)), "png"),
    "mono16 on a depth topic": lambda topic, time, index: image(topic, time, depth_of(index), "mono16"),
}


@pytest.mark.parametrize("first", ["color", "depth"])
@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_colour_and_depth_are_told_by_content(tmp_path: Path, color: str, depth: str, first: str) -> None:
    names = ["/cam/color/image_raw", "/cam/aligned_depth_to_color/image_raw"]
    if color != "raw":
        names[0] += "/compressed"
    if "png" in depth or depth == "compressedDepth":
        names[1] += "/compressed"
    entries = []
    for index in range(2):
        time = START + index * PERIOD
        both = [COLORS[color](names[0], time, index), DEPTHS[depth](names[1], time + 1000, index)]
        entries += both if first == "color" else both[::-1]
    bag = write_rosbag2(tmp_path / "bag", entries)
    dataset = open_dataset(bag)
    assert isinstance(dataset, BagDataset)
    assert (dataset.image_topic, dataset.depth_topic) == (names[0], names[1])
    for index, sample in enumerate(dataset):
        assert np.abs(sample.rgb.astype(int) - rgb_of(index)).max() < 6
        assert sample.depth is not None
        np.testing.assert_allclose(sample.depth[2:], depth_of(index)[2:] / 1000, atol=1e-5)
    frames = [frame.rgb for frame in open_frames(bag)]
    assert len(frames) == 2
    assert all(frame is not None and abs(int(frame[0, 0, 1]) - 60) < 6 for frame in frames)


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    entries = [
        image("/a/labels", START, np.zeros((4, 4), np.int32), "32SC1"),
        image(DEPTH_TOPIC, START, depth_of(0), "16UC1"),
    ]
    bag = write_rosbag2(tmp_path / "bag", entries)
    with pytest.raises(InputError, match="it has no colour; its image topics are /cam/depth/image_raw"):
        BagDataset(bag)
    with pytest.raises(InputError, match=r"/a/labels .* cannot be used: its encoding '32SC1'"):
        BagDataset(bag, "/a/labels")
    with pytest.raises(InputError, match=r"holds depth .*, color is needed"):
        BagDataset(bag, DEPTH_TOPIC)
    (problem,) = open_frames(bag)
    assert "has no colour images" in str(problem.problem)
    assert "it holds depth (16UC1)" in str(problem.problem)


def pair(period: int, depth_period: int, count: int, missing: tuple[int, ...] = (), delay: int = 0) -> list[Recorded]:
    """Colour and depth at rates of their own, in the order of time."""
    entries = [image(COLOR_TOPIC, START + index * period, rgb_of(index % 10), "rgb8") for index in range(count)]
    depths = range(count * period // depth_period)
    entries += [
        image(DEPTH_TOPIC, START + delay + index * depth_period, depth_of(index), "16UC1")
        for index in depths
        if index not in missing
    ]
    return sorted(entries, key=lambda entry: entry.time)


def test_two_colour_images_share_a_depth_image(tmp_path: Path) -> None:
    dataset = BagDataset(write_rosbag2(tmp_path / "bag", pair(16_666_667, 33_333_334, 12)))
    medians = [float(np.nanmin(sample.depth)) for sample in dataset]  # type: ignore[arg-type]
    assert dataset.skipped == []
    assert medians == pytest.approx([1.002 + 0.1 * (index // 2) for index in range(12)], abs=1e-4)


@pytest.mark.parametrize("order", [(11, 0, 5, 5, 4, 11), (0, 1, 2, 3), (3, 2, 1, 0)])
def test_pairs_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    dataset = BagDataset(write_rosbag2(tmp_path / "bag", pair(16_666_667, 33_333_334, 12)))
    for index in order:
        assert float(np.nanmin(dataset[index].depth)) == pytest.approx(1.002 + 0.1 * (index // 2), abs=1e-4)  # type: ignore[arg-type]


def test_four_colours_and_a_gap_of_depth(tmp_path: Path) -> None:
    entries = pair(25_000_000, 50_000_000, 16, missing=(3, 4))
    dataset = BagDataset(write_rosbag2(tmp_path / "bag", entries))
    samples = list(dataset)
    assert 0 < len(samples) < 16
    (left_out,) = dataset.skipped
    assert f"{16 - len(samples)} of the 16 images of {COLOR_TOPIC} have no depth" in left_out.reason


def test_one_depth_image_that_is_missing(tmp_path: Path) -> None:
    dataset = BagDataset(write_rosbag2(tmp_path / "bag", pair(33_333_333, 33_333_333, 8, missing=(3,))))
    assert len(list(dataset)) == 7
    assert "1 of the 8 images" in dataset.skipped[0].reason
    assert "0.033 s away" in dataset.skipped[0].reason


def restamped(entries: list[Recorded], stamp: Callable[[int, Recorded], int]) -> list[Recorded]:
    found = []
    for index, entry in enumerate(entries):
        sec, nanosec = divmod(stamp(index, entry), 10**9)
        fields = entry.fields | {"header": entry.fields["header"] | {"stamp": {"sec": sec, "nanosec": nanosec}}}
        found.append(entry._replace(fields=fields))
    return found


STAMPS: dict[str, tuple[Callable[[int, Recorded], int], str]] = {
    "zero": (lambda index, entry: 0, "0 are all header stamps of"),
    "always the same": (lambda index, entry: START, "always the same are the header stamps of"),
    "zero at the start": (lambda index, entry: entry.time if index > 5 else 0, "0 are 2 of the 6 header stamps of"),
    "depth of another clock": (
        lambda index, entry: entry.time - START + 10**9 if entry.topic == DEPTH_TOPIC else entry.time,
        "come from clocks that differ by",
    ),
    "zero for depth only": (
        lambda index, entry: 0 if entry.topic == DEPTH_TOPIC else entry.time,
        "0 are all header stamps of",
    ),
}


@pytest.mark.parametrize("name", STAMPS)
def test_stamps_that_are_missing_are_taken_from_the_recording(tmp_path: Path, name: str) -> None:
    stamp, words = STAMPS[name]
    dataset = BagDataset(write_rosbag2(tmp_path / "bag", restamped(camera(6), stamp)))
    samples = list(dataset)
    assert len(samples) == 6
    assert dataset.skipped == []
    assert sum(words in note for note in dataset.notes) == 1
    for index, sample in enumerate(samples):
        assert np.nanmin(sample.depth) == pytest.approx(1.002 + 0.1 * index, abs=1e-4)  # type: ignore[arg-type]
    times = [sample.stamp for sample in samples]
    assert np.diff(times) == pytest.approx([0.1] * 5, abs=1e-5)  # type: ignore[arg-type]


CAMERAS: dict[str, dict[str, Any]] = {
    "its own": {"width": WIDTH, "height": HEIGHT},
    "region": {
        "width": WIDTH + 30,
        "height": HEIGHT + 20,
        "roi": {"x_offset": 10, "y_offset": 8, "width": WIDTH, "height": HEIGHT},
    },
    "binned": {"width": 2 * WIDTH, "height": 2 * HEIGHT, "binning_x": 2, "binning_y": 2},
    "resized": {"width": 3 * WIDTH, "height": 3 * HEIGHT},
    "region and binned": {
        "width": 2 * WIDTH + 40,
        "height": 2 * HEIGHT + 30,
        "binning_x": 2,
        "binning_y": 2,
        "roi": {"x_offset": 20, "y_offset": 14, "width": 2 * WIDTH, "height": 2 * HEIGHT},
    },
}


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize(
    "lens", [("plumb_bob", [-0.2, 0.05, 0.001, 0.0, 0.0, 0.0, 0.0, 0.0]), ("equidistant", [0.1, 0.0, 0.0, 0.0, 0.0])]
)
def test_one_rule_for_camera_info(tmp_path: Path, name: str, lens: tuple[str, list[float]]) -> None:
    settings = CAMERAS[name]
    region = settings.get("roi", {"x_offset": 0, "y_offset": 0})
    factor = settings.get("binning_x", 3 if name == "resized" else 1)
    cx, cy = 20.0, 15.0  # of the image
    k = [40.0 * factor, 0, factor * (cx + 0.5) - 0.5 + region["x_offset"], 0, 42.0 * factor]
    k += [factor * (cy + 0.5) - 0.5 + region["y_offset"], 0, 0, 1]
    info = camera_info(INFO_TOPIC, START, **settings, k=k, distortion_model=lens[0], d=lens[1])
    entries = [
        info,
        image(COLOR_TOPIC, START + 1, ramp(0), "rgb8"),
        image(DEPTH_TOPIC, START + 2, depth_of(0), "16UC1"),
    ]
    bag = write_rosbag2(tmp_path / "bag", entries)
    (frame,) = open_frames(bag)
    for camera_found in (open_dataset(bag)[0].intrinsics, frame.intrinsics):
        assert camera_found is not None
        found = (camera_found.fx, camera_found.fy, camera_found.cx, camera_found.cy)
        assert found == pytest.approx((40, 42, cx, cy))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d": [0.1] * 6, "distortion_model": "double_sphere"}, "double_sphere"),
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"k": [float("nan")] * 9}, "not finite"),
        ({"width": 100}, "cannot come from"),
    ],
)
def test_a_camera_that_cannot_be_used_is_said_once(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    settings = {"width": WIDTH, "height": HEIGHT} | changes
    entries = [
        camera_info(INFO_TOPIC, START, **settings),
        *(entry for entry in camera(3) if entry.topic != INFO_TOPIC),
    ]
    bag = write_rosbag2(tmp_path / "bag", entries)
    dataset = BagDataset(bag)
    assert [sample.intrinsics for sample in dataset] == [None] * 3
    assert sum(words in note for note in dataset.notes) == 1
    assert [frame.intrinsics for frame in open_frames(bag)] == [None] * 3


def test_depth_in_other_units(tmp_path: Path) -> None:
    entries = [
        entry
        for index in range(2)
        for entry in (
            image(COLOR_TOPIC, START + index * PERIOD, rgb_of(index), "rgb8"),
            image(DEPTH_TOPIC, START + index * PERIOD, 5 * depth_of(index), "16UC1"),
        )
    ]
    sample = open_dataset(write_rosbag2(tmp_path / "bag", entries), depth_scale=1 / 5000)[1]
    assert np.nanmin(sample.depth) == pytest.approx(1.102, abs=1e-4)  # type: ignore[arg-type]


def test_a_damaged_image_costs_itself(tmp_path: Path) -> None:
    good = jpeg(cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (WIDTH, HEIGHT)))
    entries = []
    for index in range(4):
        data = good[: len(good) // 2] + bytes(5000) if index == 1 else good
        entries.append(compressed(COLOR_TOPIC, START + index * PERIOD, data, "jpeg"))
        entries.append(image(DEPTH_TOPIC, START + index * PERIOD, depth_of(index), "16UC1"))
    bag = write_rosbag2(tmp_path / "bag", entries)
    dataset = BagDataset(bag)
    assert len(list(dataset)) == 3
    assert "truncated JPEG" in dataset.skipped[0].reason
    problems = [frame.problem for frame in open_frames(bag) if frame.rgb is None]
    assert len(problems) == 1
    assert "truncated JPEG" in str(problems[0])


@pytest.mark.parametrize(("factor", "words"), [(1, ""), (5, "--depth-scale 0.0002"), (10, "--depth-scale 0.0001")])
def test_another_unit_is_asked_about(
    tmp_path: Path, factor: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model sees brightness times 3 as metres; the depth says 1.2 m where it sees 1.2."""
    metric = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 10.0], "focal_scale": 0.1}
    model = write_model(tmp_path / "metric", ["depth"], depth="brightness", depth_card=metric)
    entries = []
    for index in range(3):
        time = START + index * PERIOD
        entries.append(camera_info(INFO_TOPIC, time, WIDTH, HEIGHT, focal=15.0))  # 40 pixels of the graph's input
        entries.append(image(COLOR_TOPIC, time + 1, np.full((HEIGHT, WIDTH, 3), 76, np.uint8), "rgb8"))
        entries.append(image(DEPTH_TOPIC, time + 2, np.full((HEIGHT, WIDTH), 1200 * factor, np.uint16), "16UC1"))
    bag = write_rosbag2(tmp_path / "bag", entries)
    assert main(["evaluate", "--data", str(bag), "--model", str(model)]) == 0
    said = capsys.readouterr().err
    assert words in said if words else "is its unit" not in said
    assert main(["evaluate", "--data", str(bag), "--model", str(model), "--depth-scale", str(0.001 / factor)]) == 0
    assert "is its unit" not in capsys.readouterr().err
