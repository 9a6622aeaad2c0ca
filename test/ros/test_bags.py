"""Bags in every format, played over DDS and recorded again; stamps and bytes survive, damage is reported."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from harness import LATCHED as LATCHED_READER
from harness import RELIABLE, Process, Ros, rgb_image, seconds
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image


FRAMES = 12
START = 1_700_000_000
IMAGE, INFO = "/camera/image_raw", "/camera/camera_info"
FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    False,
)


def stamp_of(index: int) -> int:
    """Nanoseconds; 16 Hz."""
    return START * 1_000_000_000 + index * 62_500_000


def expected_stamps(first: int = 0) -> list[float]:
    return [START + index / 16 for index in range(first, FRAMES)]


def picture_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8)


def messages(types, ros1: bool = False):
    """(topic, type, nanoseconds, message) of a short recording, with a latched camera_info once at the start."""
    store = types.types
    for index in range(FRAMES):
        stamp = stamp_of(index)
        time = store["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
        sequence = (index,) if ros1 else ()
        header = store["std_msgs/msg/Header"](*sequence, stamp=time, frame_id="camera")
        if index == 0:
            region = store["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            k, p = np.eye(3).ravel() * 100, np.eye(3, 4).ravel() * 100
            fields = (header, 120, 160, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, region)
            yield INFO, "sensor_msgs/msg/CameraInfo", stamp, store["sensor_msgs/msg/CameraInfo"](*fields)
        fields = (header, 120, 160, "rgb8", 0, 480, picture_of(index).ravel())
        yield IMAGE, "sensor_msgs/msg/Image", stamp, store["sensor_msgs/msg/Image"](*fields)


def write_bag(path: Path, storage: StoragePlugin, mode: CompressionMode = CompressionMode.NONE) -> Path:
    types = get_typestore(Stores.LATEST)
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {
            IMAGE: writer.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=types),
            INFO: writer.add_connection(
                INFO, "sensor_msgs/msg/CameraInfo", typestore=types, offered_qos_profiles=[LATCHED]
            ),
        }
        for topic, kind, stamp, message in messages(types):
            writer.write(connections[topic], stamp, bytes(types.serialize_cdr(message, kind)))
    return path


def write_ros1_bag(path: Path) -> Path:
    types = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(path) as writer:
        connections = {}
        for topic, kind, stamp, message in messages(types, ros1=True):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types, latching=int(topic == INFO))
            writer.write(connections[topic], stamp, bytes(types.serialize_ros1(message, kind)))
    return path


def storage_file(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


def play(ros: Ros, bag: Path, *arguments: str, topic: str = IMAGE) -> tuple[Process, list]:
    """Plays a bag fast to a subscriber that it waits for."""
    received = ros.collect(Image, topic)
    player = ros.start(
        "bag_player", *("-p", f"bag:={bag}", "-p", "rate:=4", "-p", f"wait_for:=['{topic}']"), *_flat(arguments)
    )
    ros.wait_for(lambda: not player.is_running, "the player ends")
    ros.pause(0.2)
    received.close()
    return player, received.messages


def _flat(parameters: Sequence[str]) -> list[str]:
    return [word for parameter in parameters for word in ("-p", parameter)]


def stamps(received: list) -> list[float]:
    return [seconds(message.header) for message in received]


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        (StoragePlugin.MCAP, CompressionMode.NONE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
    ],
)
def test_rosbag2(ros: Ros, tmp_path: Path, storage: StoragePlugin, mode: CompressionMode) -> None:
    player, received = play(ros, write_bag(tmp_path / "bag", storage, mode))
    assert stamps(received) == expected_stamps()
    assert np.array_equal(np.frombuffer(received[3].data, np.uint8).reshape(120, 160, 3), picture_of(3))
    assert player.wait() == 0
    summary = player.summary()
    assert summary["published"] == {IMAGE: FRAMES, INFO: 1}
    assert summary["damage"] == []


def test_ros1_bag(ros: Ros, tmp_path: Path) -> None:
    infos = ros.collect(CameraInfo, INFO, LATCHED_READER)  # it was latched, and gets through to those who ask for it
    player, received = play(ros, write_ros1_bag(tmp_path / "old.bag"))
    assert player.wait() == 0
    assert stamps(received) == expected_stamps()
    assert received[0].header.frame_id == "camera"
    assert np.array_equal(np.frombuffer(received[5].data, np.uint8).reshape(120, 160, 3), picture_of(5))
    assert [info.k[0] for info in infos.messages] == [100.0]
    infos.close()


def test_folder_of_pictures(ros: Ros, tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture_of(index)[..., ::-1])
    (tmp_path / "3.jpg").write_bytes(b"no picture")
    player, received = play(ros, tmp_path, "picture_rate:=20", "picture_frame_id:=left", topic="/image_raw")
    assert player.wait() == 1
    assert "3.jpg is not an image that can be decoded" in player.log
    for index, message in enumerate(received):
        assert np.array_equal(np.frombuffer(message.data, np.uint8), picture_of(index).ravel())
    assert [message.header.frame_id for message in received] == ["left"] * 3
    assert np.allclose(np.diff(stamps(received)), 0.05, atol=1e-6)


def test_offset_loop_clock_and_remap(ros: Ros, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", StoragePlugin.MCAP)
    received, clocks, infos = (
        ros.collect(Image, "/other"),
        ros.collect(Clock, "/clock"),
        ros.collect(CameraInfo, INFO),
    )
    player = ros.start(
        "bag_player",
        *("-r", f"{IMAGE}:=/other"),
        *_flat([f"bag:={bag}", "rate:=8", "loop:=true", "start_offset:=0.25", f"wait_for:=['{IMAGE}']"]),
    )
    one_round = expected_stamps(first=4)
    ros.wait_for(lambda: len(received.messages) > 2.5 * len(one_round), "two rounds")
    assert player.stop() == 0
    assert stamps(received.messages)[: 2 * len(one_round)] == 2 * one_round
    assert player.summary()["loops"] >= 2
    times = [message.clock.sec + message.clock.nanosec * 1e-9 for message in clocks.messages]
    assert min(times) == pytest.approx(one_round[0], abs=0.1)
    assert max(times) <= one_round[-1] + 1e-6
    # Latched in the recording and before the offset: it is played nevertheless.
    assert len(infos.messages) >= 2
    for collected in (received, clocks, infos):
        collected.close()


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_truncated_bag_is_played_as_far_as_it_goes(ros: Ros, tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_bag(tmp_path / "bag", storage)
    if storage == StoragePlugin.MCAP:  # chunks of 1 MB: make it several
        bag = _enlarged(tmp_path / "large")
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])
    player, received = play(ros, bag)
    assert player.wait() == 1
    assert f"{file} {'is cut off' if storage == StoragePlugin.SQLITE3 else 'was not finished'}" in player.log
    assert 0 < len(received) < FRAMES
    assert stamps(received) == expected_stamps()[: len(received)]
    assert player.summary()["published"][IMAGE] == len(received)


def _enlarged(path: Path) -> Path:
    types = get_typestore(Stores.LATEST)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=types)
        for topic, kind, stamp, message in messages(types):
            if topic == IMAGE:
                message.data = np.zeros(400_000, np.uint8)
                writer.write(connection, stamp, bytes(types.serialize_cdr(message, kind)))
    return path


def test_what_cannot_be_played(ros: Ros, tmp_path: Path) -> None:
    (tmp_path / "broken.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "empty").mkdir()
    bag = write_bag(tmp_path / "bag", StoragePlugin.MCAP)
    cases = (
        ([], "parameter bag is empty"),
        ([f"bag:={tmp_path / 'none'}"], "there is no bag or folder"),
        ([f"bag:={tmp_path / 'broken.bag'}"], "broken.bag was not finished"),
        ([f"bag:={tmp_path / 'empty'}"], "neither a bag nor a folder with pictures"),
        ([f"bag:={bag}", "topics:=['/nothing']"], "no topic /nothing"),
        ([f"bag:={bag}", f"wait_for:=['{IMAGE}']", "wait_timeout:=0.2"], "after 0.2 s"),
        ([f"bag:={bag}", "rate:=0.0"], "rate"),
        ([f"bag:={bag}", "loop:=true", "start_offset:=9.0", f"topics:=['{IMAGE}']"], "nothing to play after 9 s"),
    )
    players = [(ros.start("bag_player", *_flat(parameters)), words) for parameters, words in cases]
    for player, words in players:
        assert player.wait() == 2, words
        assert words in player.log
        assert "Traceback" not in player.log


def test_recorder_round_trip(ros: Ros, tmp_path: Path) -> None:
    bag, copy = write_bag(tmp_path / "bag", StoragePlugin.SQLITE3), tmp_path / "copy"
    recorder = ros.start(
        "recorder", *_flat([f"output:={copy}", f"topics:=['{INFO}', '{IMAGE}']", "compression:=zstd"])
    )
    player = ros.start("bag_player", *_flat([f"bag:={bag}", "rate:=4", f"wait_for:=['{INFO}', '{IMAGE}']"]))
    ros.wait_for(lambda: not player.is_running, "the player ends")
    assert recorder.stop() == 0
    assert recorder.summary() == {"bag": str(copy), "recorded": {INFO: 1, IMAGE: FRAMES}, "missing": []}
    assert _contents(copy) == _contents(bag)
    # The copy is a bag like any other, and its latched topic is still latched.
    assert "transient_local" in (copy / "metadata.yaml").read_text()
    player, received = play(ros, copy)
    assert stamps(received) == expected_stamps()


def _contents(bag: Path) -> list[tuple[str, str, bytes]]:
    """Messages, serialised anew: DDS pads its CDR in its own way."""
    with AnyReader([bag]) as reader:
        decoded = [(item, reader.deserialize(data, item.msgtype)) for item, _, data in reader.messages()]
        store = reader.typestore
        return sorted((item.topic, item.msgtype, bytes(store.serialize_cdr(m, item.msgtype))) for item, m in decoded)


def test_recorder_ends_its_bag_when_the_disk_is_full(ros: Ros, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; then a disk that has less room than is to be left."""
    publisher = ros.node.create_publisher(Image, "/full", RELIABLE)
    node = ros.start("recorder", "-p", f"output:={tmp_path / 'full'}", "-p", "topics:=['/full']")
    ros.wait_for(publisher.get_subscription_count, "the recorder subscribes")
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    message = rgb_image(np.zeros((480, 640, 3), np.uint8), 1.0)
    ros.repeat_until(lambda: publisher.publish(message), lambda: _publish_until_ended(publisher, message, node), "end")
    assert node.wait() == 1
    assert "ends here" in node.log
    assert "Traceback" not in node.log
    node = ros.start(
        "recorder",
        *("-p", f"output:={tmp_path / 'small'}", "-p", "topics:=['/full']", "-p", f"min_free_bytes:={1 << 50}"),
    )
    assert node.wait() == 1
    assert "min_free_bytes" in node.log
    with Reader(tmp_path / "small"):
        pass


def _publish_until_ended(publisher: Any, message: Image, node: Process) -> bool:
    publisher.publish(message)
    return not node.is_running


def test_recorder_refuses_what_it_cannot_do(ros: Ros, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    cases = (
        ([], 2, "output and topics are needed"),
        ([f"output:={tmp_path / 'there'}", "topics:=['/a']"], 2, "exists already"),
        ([f"output:={tmp_path / 'file' / 'bag'}", "topics:=['/a']"], 2, "cannot be written"),
        ([f"output:={tmp_path / 'new'}", "topics:=['/nobody']", "wait_timeout:=1"], 1, "nobody published /nobody"),
    )
    recorders = [(ros.start("recorder", *_flat(parameters)), code, words) for parameters, code, words in cases]
    for recorder, code, words in recorders:
        assert recorder.wait() == code, words
        assert words in recorder.log
