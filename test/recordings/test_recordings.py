"""Recordings as recorders, converters and crashes leave them: all that is there is read, in the order of time."""

from __future__ import annotations

import bz2
import shutil
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType
from recording_factory import (
    COLOR_TOPIC,
    DEPTH_TOPIC,
    INFO_TOPIC,
    START,
    Recorded,
    camera,
    kill_recorder,
    noise,
    rgb_of,
    text,
    write_mcap,
    write_ros1,
    write_rosbag2,
)
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings import chunked
from diffusion_perception_ros.recordings.recording import OPEN_FILES, Recording, is_recording


FRAMES = 6
ALL = {INFO_TOPIC: FRAMES, COLOR_TOPIC: FRAMES, DEPTH_TOPIC: FRAMES}


def read(path: Path) -> tuple[dict[str, int], Recording]:
    """Messages per topic, which must come in the order of time."""
    assert is_recording(path)
    with Recording(path) as recording:
        messages = list(recording.messages())
    times = [message.time for message in messages]
    assert times == sorted(times)
    return dict(Counter(message.topic for message in messages)), recording


def by_topic(entries: list[Recorded]) -> list[Recorded]:
    return sorted(entries, key=lambda entry: entry.topic)


def backwards(entries: list[Recorded]) -> list[Recorded]:
    return entries[::-1]


def late_depth(entries: list[Recorded]) -> list[Recorded]:
    """As of a recorder whose queue of one topic was stuck."""
    return [e for e in entries if e.topic != DEPTH_TOPIC] + [e for e in entries if e.topic == DEPTH_TOPIC]


@pytest.mark.parametrize("order", [by_topic, backwards, late_depth])
@pytest.mark.parametrize(
    "layout",
    [
        {"chunk_size": None, "indexed": False},
        {"chunk_size": None, "indexed": True},
        {"chunk_size": 6000, "indexed": False, "compression": CompressionType.LZ4},
        {"chunk_size": 6000, "indexed": True, "compression": CompressionType.ZSTD},
        {"chunk_size": 1 << 20, "indexed": True, "compression": CompressionType.NONE},
    ],
)
def test_mcap_in_any_order(
    tmp_path: Path, layout: dict[str, Any], order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "KEPT_BYTES", 10_000)  # fewer than the chunks that are needed at once
    counts, recording = read(write_mcap(tmp_path / "a.mcap", order(camera(FRAMES)), **layout))
    assert counts == ALL
    assert recording.damage == []


@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_damaged_chunk_costs_its_own_messages(tmp_path: Path, compression: CompressionType) -> None:
    path = write_mcap(tmp_path / "a.mcap", camera(FRAMES), chunk_size=6000, compression=compression)
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    chunk = summary.chunk_indexes[2]
    place = chunk.chunk_start_offset + chunk.chunk_length // 2
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    counts, recording = read(path)
    assert sum(ALL.values()) * 0.5 < sum(counts.values()) < sum(ALL.values())
    assert any(str(path) in sentence and "chunk at byte" in sentence for sentence in recording.damage)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
@pytest.mark.parametrize("compression", list(CompressionType))
def test_an_mcap_that_was_cut_off_gives_its_beginning(
    tmp_path: Path, compression: CompressionType, share: float
) -> None:
    entries = noise(8)
    path = write_mcap(tmp_path / "a.mcap", entries, chunk_size=1 << 20, compression=compression)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    counts, recording = read(path)
    assert int(share * 8) - 4 <= sum(counts.values()) <= share * 8
    assert counts
    assert "was not finished" in " ".join(recording.damage)


OTHERS = {
    "without schema": ("/other", "", "", b"", "json"),
    "json": ("/other", "Pose", "jsonschema", b"{}", "json"),
    "protobuf": ("/other", "foxglove.Log", "protobuf", b"\1\2", "protobuf"),
    "cdr without schema": ("/other", "", "", b"", "cdr"),
    "unknown encoding": ("/other", "a/msg/B", "ros2msg", b"int32 x", "cbor"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("indexed", [True, False])
def test_channels_that_cannot_be_read_are_named(tmp_path: Path, other: str, indexed: bool) -> None:
    counts, recording = read(write_mcap(tmp_path / "a.mcap", camera(FRAMES), others=[OTHERS[other]], indexed=indexed))
    assert counts == ALL
    assert list(recording.left_out) == ["/other"]
    assert recording.damage == []


def test_messages_of_an_unknown_type_cost_only_themselves(tmp_path: Path) -> None:
    others = [
        ("/empty", "my/msg/Empty", "ros2msg", b"", "cdr"),
        ("/bad", "my/msg/Bad", "ros2msg", b"no message", "cdr"),
    ]
    counts, recording = read(write_mcap(tmp_path / "a.mcap", camera(FRAMES), others=others))
    assert counts == ALL
    said = " ".join(recording.damage)
    for words in ("/empty", "no definition of its type my/msg/Empty", "/bad", "cannot be read"):
        assert words in said


def test_well_known_types_need_no_definition(tmp_path: Path) -> None:
    assert read(write_mcap(tmp_path / "a.mcap", camera(FRAMES), definitions=False))[0] == ALL


def test_an_mcap_that_was_converted_from_ros_1(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", camera(FRAMES), ros1=True)
    assert read(path)[0] == ALL
    with Recording(path) as recording:
        message = next(recording.messages({COLOR_TOPIC}))
    assert message.type == "sensor_msgs/msg/Image"
    assert (message.content.data == rgb_of(0).ravel()).all()


CUSTOM = {
    "empty definition": ("/lidar", "lidar_msgs/msg/Packet", ""),
    "blank definition": ("/lidar", "lidar_msgs/msg/Packet", " \n\n"),
    "damaged definition": ("/lidar", "lidar_msgs/msg/Packet", "uint8[ data\n==="),
    "unknown type": ("/lidar", "lidar_msgs/msg/Packet", "uint32 x\n"),
    "known type, empty definition": ("/lidar", "std_msgs/msg/String", ""),
}


@pytest.mark.parametrize("custom", CUSTOM)
@pytest.mark.parametrize("compression", [None, *Writer1.CompressionFormat])
def test_ros_1_connections_without_definition(tmp_path: Path, custom: str, compression: Any) -> None:
    counts, recording = read(write_ros1(tmp_path / "a.bag", camera(FRAMES), compression, [CUSTOM[custom]]))
    assert counts == ALL
    assert "type" in recording.left_out["/lidar"]
    assert recording.damage == []


@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("compression", [None, *Writer1.CompressionFormat])
def test_a_ros_1_recorder_that_was_killed(tmp_path: Path, compression: Any, share: float) -> None:
    data = bytearray(write_ros1(tmp_path / "a.bag", noise(FRAMES), compression).read_bytes())
    place = data.find(b"index_pos=") + len(b"index_pos=")
    end = struct.unpack_from("<Q", data, place)[0]
    data[place : place + 8] = bytes(8)  # it is filled in at the end
    path = tmp_path / "a.bag.active"
    path.write_bytes(data[: int(end * share)])
    counts, recording = read(path)
    assert counts[COLOR_TOPIC] == FRAMES if share == 1 else 3 <= counts[COLOR_TOPIC] < FRAMES
    assert "was not finished" in " ".join(recording.damage)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


@pytest.mark.parametrize("checkpointed", [0, 5, 17])
@pytest.mark.parametrize("shm", [True, False])
def test_a_write_ahead_log_is_read_and_not_touched(tmp_path: Path, checkpointed: int, shm: bool) -> None:
    bag = kill_recorder(tmp_path / "a", camera(FRAMES), checkpointed)
    assert list(bag.glob("*-wal"))
    if not shm:
        next(bag.glob("*-shm")).unlink()
    before = snapshot(bag)
    counts, recording = read(bag)
    assert counts == ALL
    assert recording.damage == []
    assert "-wal" in recording.notes[0]
    assert snapshot(bag) == before


def test_what_a_write_ahead_log_lacks_is_counted(tmp_path: Path) -> None:
    bag = kill_recorder(tmp_path / "a", camera(FRAMES), 3)
    log = next(bag.glob("*-wal"))
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    counts, recording = read(bag)
    assert 3 <= sum(counts.values()) < sum(ALL.values())
    lost = sum(ALL.values()) - sum(counts.values())
    assert sum(int(sentence.split()[0]) for sentence in recording.damage) == lost


def test_a_log_that_is_gone_is_a_loss(tmp_path: Path) -> None:
    bag = kill_recorder(tmp_path / "a", camera(FRAMES), 9)
    next(bag.glob("*-wal")).unlink()
    counts, recording = read(bag)
    assert sum(counts.values()) == 9
    assert sum(int(sentence.split()[0]) for sentence in recording.damage) == sum(ALL.values()) - 9


def test_an_unfinished_transaction_is_rolled_back_in_a_copy(tmp_path: Path) -> None:
    bag = kill_recorder(tmp_path / "a", camera(FRAMES), 9, mode="delete")
    assert list(bag.glob("*-journal"))
    before = snapshot(bag)
    counts, recording = read(bag)
    assert sum(counts.values()) == 9
    assert "-journal" in recording.damage[0]
    assert snapshot(bag) == before


def split(tmp_path: Path, name: str, mcap: bool = False, **settings: Any) -> Path:
    """Three files of a bag with two frames each, named 9, 10, 11."""
    bag = tmp_path / name
    bag.mkdir()
    entries = camera(FRAMES)
    names = []
    for number in range(3):
        part = write_rosbag2(tmp_path / f"part{number}", entries[6 * number : 6 * number + 6], mcap, **settings)
        (file,) = (file for file in part.iterdir() if file.suffix != ".yaml")
        suffix = "".join(file.suffixes)
        names.append(f"bag_{9 + number}{suffix}")
        shutil.move(file, bag / names[-1])
        metadata = yaml.safe_load((part / "metadata.yaml").read_text())
        shutil.rmtree(part)
    information = metadata["rosbag2_bagfile_information"]
    information["relative_file_paths"] = names
    for topic in information["topics_with_message_count"]:
        topic["message_count"] = FRAMES
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return bag


NAMES = ["plain", "with space", "question?mark#hash", "100%25 déjà", "quote'\"", "[brackets]*", "line\nbreak"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mcap", [True, False])
def test_split_bags_at_any_path(tmp_path: Path, name: str, mcap: bool) -> None:
    bag = split(tmp_path, name, mcap)
    counts, recording = read(bag)
    assert counts == ALL
    assert recording.damage == []
    (file, *_) = (file for file in bag.iterdir() if file.suffix != ".yaml")
    assert read(file)[0] == dict.fromkeys(ALL, 2)


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_split_bags(tmp_path: Path, mode: CompressionMode) -> None:
    counts, recording = read(split(tmp_path, "bag", compression=(mode, CompressionFormat.ZSTD)))
    assert counts == ALL
    assert recording.damage == []


def test_parts_of_a_bag_that_are_missing_or_not_named(tmp_path: Path) -> None:
    bag = split(tmp_path, "bag")
    (bag / "bag_10.db3").unlink()
    counts, recording = read(bag)
    assert counts == dict.fromkeys(ALL, 4)
    said = " ".join(recording.damage)
    assert "bag_10.db3 is missing" in said
    assert f"2 of the 6 messages of {COLOR_TOPIC}" in said
    (bag / "bag_9.db3").write_bytes(b"")
    counts, recording = read(bag)
    assert counts == dict.fromkeys(ALL, 2)
    assert "bag_9.db3 is no sqlite3 bag: it is empty" in " ".join(recording.damage)


@pytest.mark.parametrize("content", [b"", b"rosbag2_bagfile_information: [", b"\xff\xfe", b"a: 1", None])
def test_metadata_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    bag = split(tmp_path, "bag")
    (bag / "metadata.yaml").unlink()
    if content is not None:
        (bag / "metadata.yaml").write_bytes(content)
    counts, recording = read(bag)
    assert counts == ALL
    assert recording.damage == []
    assert bool(recording.notes) == (content is not None)


def test_files_whose_times_overlap_are_merged(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    entries = camera(FRAMES)
    write_mcap(bag / "a.mcap", entries[::2])
    write_mcap(bag / "b.mcap", entries[1::2])
    assert read(bag)[0] == ALL


def test_more_files_overlap_than_are_kept_open(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    entries = camera(FRAMES)
    parts = OPEN_FILES + 3
    for number in range(parts):  # every part spans the whole time, in several chunks
        write_mcap(bag / f"part_{number}.mcap", [*entries[number % 3 :: 3]], chunk_size=6000)
    counts, recording = read(bag)
    assert sum(counts.values()) == parts * FRAMES
    assert recording.damage == []


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "bz2": bz2.compress,
}


@pytest.mark.parametrize("compression", PACKERS)
def test_a_chunk_takes_no_more_memory_than_it_says(compression: str) -> None:
    packed = PACKERS[compression](bytes(50_000_000))
    tracemalloc.start()
    assert chunked.decompress(packed, compression, 10, "a chunk") == bytes(10)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000


def test_messages_that_are_none_are_counted(tmp_path: Path) -> None:
    entries = [*camera(FRAMES), *(text(COLOR_TOPIC, START + index) for index in range(2))]
    path = write_mcap(tmp_path / "a.mcap", entries)
    counts, recording = read(path)
    assert counts == ALL
    assert recording.damage[0].startswith(f"2 message(s) of {COLOR_TOPIC}")


def test_what_is_no_recording(tmp_path: Path) -> None:
    for name, content, words in (
        ("a.mcap", b"hello", "no mcap file"),
        ("a.db3", b"hello", "no sqlite3 bag"),
        ("a.bag", b"hello", "no ROS 1 bag"),
        ("b.db3.zstd", b"hello", "cannot be decompressed"),
        ("c.mcap", b"\x89MCAP0\r\n", "was not finished"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            Recording(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(InputError, match="there is no bag"):
        Recording(tmp_path / "nothing")
