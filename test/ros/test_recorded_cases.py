"""What `bag_player` makes of recordings that are out of the ordinary: all that can be played is, the rest is named."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from harness import Ros
from recording_factory import (
    COLOR_TOPIC,
    DEPTH_TOPIC,
    INFO_TOPIC,
    START,
    camera,
    kill_recorder,
    text,
    write_mcap,
    write_ros1,
    write_rosbag2,
)
from sensor_msgs.msg import Image

from diffusion_perception_ros.ros.bag_source import BagMessage, BagSource, open_source


FRAMES = 4


def played(path: Path) -> tuple[list[BagMessage], BagSource]:
    with open_source(path, 10.0, "camera") as source:
        messages = list(source.messages())
    assert [message.stamp for message in messages] == sorted(message.stamp for message in messages)
    return messages, source


def test_stamps_that_are_zero_become_the_time_of_recording(tmp_path: Path) -> None:
    entries = [*camera(FRAMES, stamped=False), text("/words", START)]
    messages, source = played(write_rosbag2(tmp_path / "bag", entries))
    for message in messages:
        if message.topic != "/words":
            seconds, nanoseconds = struct.unpack_from("<iI", message.data, 4)
            assert seconds * 10**9 + nanoseconds == message.stamp
    assert len(source.notes) == 2  # camera_info has stamps
    assert all(note.startswith("header stamps of /cam/") for note in source.notes)
    stamped = write_rosbag2(tmp_path / "stamped", camera(FRAMES))
    assert played(stamped)[1].notes == []


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    others = [("/log", "", "", b"", "json"), ("/pose", "Pose", "jsonschema", b"{}", "json")]
    entries = sorted(camera(FRAMES), key=lambda entry: entry.topic)
    for indexed in (True, False):
        messages, source = played(write_mcap(tmp_path / f"{indexed}.mcap", entries, others=others, indexed=indexed))
        assert len(messages) == 3 * FRAMES
        assert set(source.left_out) == {"/log", "/pose"}
        assert source.damage == []
    bag = write_ros1(tmp_path / "a.bag", camera(FRAMES), custom=[("/lidar", "lidar_msgs/msg/Packet", "")])
    messages, source = played(bag)
    assert len(messages) == 3 * FRAMES
    assert set(source.left_out) == {"/lidar"}


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_recorder_that_was_killed(tmp_path: Path, with_metadata: bool) -> None:
    bag = kill_recorder(tmp_path / "bag", camera(FRAMES), 5)
    if not with_metadata:
        (bag / "metadata.yaml").unlink()
    messages, source = played(bag)
    assert len(messages) == 3 * FRAMES
    assert source.damage == []
    next(bag.glob("*-wal")).unlink()
    messages, source = played(bag)
    assert len(messages) == 5
    assert bool(source.damage) == with_metadata  # only the metadata knows that there were more


def test_the_player_says_what_it_leaves_out(ros: Ros, tmp_path: Path) -> None:
    bag = write_mcap(
        tmp_path / "a b?.mcap",
        sorted(camera(FRAMES), key=lambda entry: entry.topic),
        chunk_size=None,
        indexed=False,
        others=[("/log", "", "", b"", "json")],
    )
    received = ros.collect(Image, COLOR_TOPIC)
    player = ros.start("bag_player", "-p", f"bag:={bag}", "-p", "rate:=4.0", "-p", f"wait_for:=['{COLOR_TOPIC}']")
    ros.wait_for(lambda: not player.is_running, "the player ends")
    assert player.wait() == 0
    ros.wait_for(lambda: len(received.messages) == FRAMES, "all images")
    summary = player.summary()
    assert summary["published"] == {COLOR_TOPIC: FRAMES, DEPTH_TOPIC: FRAMES, INFO_TOPIC: FRAMES}
    assert list(summary["skipped"]) == ["/log"]
    assert "/log is not played: it has no schema" in player.log
