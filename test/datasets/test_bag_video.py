"""Video in recordings, as three packages publish it: all is decoded, in any order; what is missing is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recording_factory import (
    COLOR_TOPIC,
    DEPTH_TOPIC,
    HEIGHT,
    START,
    WIDTH,
    Recorded,
    compressed,
    depth_of,
    encode_video,
    header,
    image,
    rgb_of,
    write_mcap,
    write_rosbag2,
)

from diffusion_perception_ros.datasets.frames import open_frames
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.inference import video
from diffusion_perception_ros.recordings.message_types import FFMPEG_PACKET, FOXGLOVE_IMAGE, FOXGLOVE_VIDEO


pytest.importorskip("av")
FRAMES, PERIOD = 10, 100_000_000


def packets(codec: str = "libx264", **settings: int) -> list[bytes]:
    return encode_video([rgb_of(index) for index in range(FRAMES)], codec, **settings)


def ffmpeg(topic: str, time: int, data: bytes, encoding: str) -> Recorded:
    fields = {"header": header(time), "width": WIDTH, "height": HEIGHT, "encoding": encoding, "pts": time}
    fields |= {"flags": 0, "is_bigendian": False, "data": np.frombuffer(data, np.uint8)}
    return Recorded(topic, FFMPEG_PACKET, time, fields)


def foxglove(topic: str, time: int, data: bytes, format: str, kind: str = FOXGLOVE_VIDEO) -> Recorded:
    stamp = header(time)["stamp"]
    return Recorded(
        topic,
        kind,
        time,
        {"timestamp": stamp, "frame_id": "camera", "data": np.frombuffer(data, np.uint8), "format": format},
    )


def recording(path: Path, messages: list[Recorded], mcap: bool = True) -> Path:
    entries = []
    for index, message in enumerate(messages):
        entries += [message, image(DEPTH_TOPIC, message.time + 10, depth_of(index), "16UC1")]
    return write_mcap(path / "a.mcap", entries) if mcap else write_rosbag2(path / "bag", entries)


Wrap = Callable[[str, int, bytes], Recorded]
KINDS: dict[str, tuple[str, Wrap, str]] = {
    "h264": ("libx264", lambda topic, time, data: compressed(topic, time, data, "h264"), "/compressed"),
    "h264 of cv": ("libx264", lambda topic, time, data: compressed(topic, time, data, "H.264; bgr8"), "/h264"),
    "h265": ("libx265", lambda topic, time, data: compressed(topic, time, data, "h265"), "/compressed"),
    "ffmpeg": ("libx264", lambda topic, time, data: ffmpeg(topic, time, data, "libx264"), "/ffmpeg"),
    "ffmpeg's new names": (
        "libx265",
        lambda topic, time, data: ffmpeg(topic, time, data, "hevc;yuv420p;bgr8;rgb8"),
        "/ffmpeg",
    ),
    "ffmpeg's hardware": ("libx264", lambda topic, time, data: ffmpeg(topic, time, data, "h264_nvenc"), "/ffmpeg"),
    "foxglove": ("libx264", lambda topic, time, data: foxglove(topic, time, data, "h264"), "/foxglove"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mcap", [True, False])
def test_every_kind_of_video(tmp_path: Path, name: str, mcap: bool) -> None:
    codec, wrap, suffix = KINDS[name]
    topic = COLOR_TOPIC + suffix
    messages = [wrap(topic, START + index * PERIOD, data) for index, data in enumerate(packets(codec))]
    bag = recording(tmp_path, messages, mcap)
    dataset = BagDataset(bag)
    assert dataset.image_topic == topic
    for index in (*range(FRAMES), 7, 2, 2, 9, 0):
        sample = dataset[index]
        assert np.abs(sample.rgb.astype(int) - rgb_of(index)).mean() < 6
        assert np.nanmin(sample.depth) == pytest.approx(1.002 + 0.1 * index, abs=1e-4)  # type: ignore[arg-type]
    frames = list(open_frames(bag))
    assert [frame.problem for frame in frames] == [None] * FRAMES
    for index, frame in enumerate(frames):
        assert frame.rgb is not None
        assert abs(float(frame.rgb[..., 0].mean()) - rgb_of(index)[0, 0, 0]) < 6
        assert frame.stamp == pytest.approx((START + index * PERIOD) * 1e-9)


def test_a_recording_that_begins_between_key_frames(tmp_path: Path) -> None:
    messages = [compressed(COLOR_TOPIC, START + i * PERIOD, data, "h264") for i, data in enumerate(packets())][2:]
    bag = recording(tmp_path, messages)
    dataset = BagDataset(bag)
    assert len(list(dataset)) == 8 - 2
    assert "before the first key frame of the video: the first is image 2" in dataset.skipped[0].reason
    frames = list(open_frames(bag))
    assert sum(frame.rgb is not None for frame in frames) == 6
    assert "before the first key frame" in str(frames[0].problem)


def test_frames_that_come_later_than_their_packets(tmp_path: Path) -> None:
    messages = [
        compressed(COLOR_TOPIC, START + i * PERIOD, d, "h264") for i, d in enumerate(packets(gop=10, b_frames=2))
    ]
    frames = list(open_frames(recording(tmp_path, messages)))
    assert len(frames) == FRAMES
    assert all(frame.rgb is not None for frame in frames)


def test_a_damaged_packet_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    data = packets(gop=3)
    data[4] = b"\0\0\0\1\x65" + bytes(20)
    messages = [compressed(COLOR_TOPIC, START + index * PERIOD, one, "h264") for index, one in enumerate(data)]
    bag = recording(tmp_path, messages)
    dataset = BagDataset(bag)
    good = [int(sample.name[-4:]) for sample in dataset]
    assert {0, 1, 2, 6, 7, 8, 9} <= set(good)
    assert len(good) + len(dataset.skipped) == FRAMES
    assert sum(frame.rgb is not None for frame in open_frames(bag)) >= 7


def test_images_of_foxglove(tmp_path: Path) -> None:
    from recording_factory import jpeg

    messages = [foxglove(COLOR_TOPIC, START + i * PERIOD, jpeg(rgb_of(i)), "jpeg", FOXGLOVE_IMAGE) for i in range(3)]
    assert len(list(BagDataset(recording(tmp_path, messages)))) == 3


def test_without_pyav_the_topic_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [compressed(COLOR_TOPIC, START + i * PERIOD, data, "h264") for i, data in enumerate(packets())]
    bag = recording(tmp_path, messages)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert not video.is_available()
    (problem,) = open_frames(bag)
    assert f"{COLOR_TOPIC} is not used: it is h264 video, which needs PyAV: pip install av" in str(problem.problem)
