"""A recording as a whole: its files, what is in them, and their messages in the order of time."""

from __future__ import annotations

import heapq
import os
import shutil
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.mcap_storage import McapStorage
from diffusion_perception_ros.recordings.message_types import Converter, MessageTypes
from diffusion_perception_ros.recordings.metadata import (
    COMPRESSED_SUFFIX,
    METADATA,
    Metadata,
    is_storage,
    read_metadata,
    storage_files,
)
from diffusion_perception_ros.recordings.ros1_storage import Ros1Storage
from diffusion_perception_ros.recordings.sqlite_storage import SqliteStorage
from diffusion_perception_ros.recordings.storage import LARGEST_CHUNK, Channel, Entry, Storage


OPEN_FILES = 8
"""Files of a split recording that are kept open, besides those being listed; of compressed ones, which are unpacked on
the disk, only one."""


class Message(NamedTuple):
    """One recorded message."""

    topic: str
    time: int
    """Nanoseconds, when it was recorded."""
    type: str
    """ROS 2 name, such as `sensor_msgs/msg/Image`."""
    content: Any
    """Fields by attribute; arrays are NumPy arrays."""


class RecordingItem(NamedTuple):
    """Where a message is, before it is read."""

    topic: str
    time: int
    type: str
    channel: Channel
    part: int
    place: Any


def is_recording(path: Path) -> bool:
    """Whether a path is a rosbag2 folder or storage file, or a ROS 1 bag."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(storage_files(path))
    return is_storage(path) or _is_ros1(path)


def _is_ros1(path: Path) -> bool:
    return path.name.endswith((".bag", ".bag.active")) and path.is_file()


class Recording:
    """An opened recording; close it, or use it as a context.

    Args:
        path: What `is_recording` accepts.

    Raises:
        InputError: nothing of it can be read; the message says why.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"there is no bag {path}")
        self.path = path
        metadata = _metadata_of(path)
        self.notes, self.damage = list(metadata.notes), list(metadata.damage)
        """What a reader should know although nothing is lost; a sentence for everything that is lost."""
        self._compressed_messages = metadata.compressed_messages
        self._files = metadata.files
        self._opened: OrderedDict[int, Storage] = OrderedDict()
        self._listing: Counter[int] = Counter()
        """Listings under way per part: closing its file would end them."""
        self._temporary: dict[int, tempfile.TemporaryDirectory[str]] = {}
        self._lock = threading.RLock()
        self._types = MessageTypes()
        self._converters: dict[Channel, Converter] = {}
        self._channels: dict[int, dict[int, Channel]] = {}
        self._spans: dict[int, tuple[int, int]] = {}
        self._lost: Counter[tuple[str, str]] = Counter()
        counts = self._survey()
        self.topics: dict[str, str] = {}
        """Readable topics and their types."""
        self.left_out: dict[str, str] = {}
        """Topics of which nothing can be made, and why."""
        self.latched: set[str] = set()
        for channel in (channel for channels in self._channels.values() for channel in channels.values()):
            self._sort_in(channel)
        if not self._channels or not (self.topics or self.left_out):
            reason = "; ".join(self.damage) or f"{path} holds no topics"
            self.close()
            raise InputError(reason)
        self._compare_counts(metadata.counts, counts)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and removes what was decompressed."""
        for number in list(self._opened):
            self._close_part(number)

    @property
    def left_out_notes(self) -> list[str]:
        """A sentence per topic of `left_out`."""
        return [f"{name} is left out: it {reason}" for name, reason in self.left_out.items()]

    def items(
        self, topics: Collection[str] | None = None, types: Collection[str] | None = None
    ) -> Iterator[RecordingItem]:
        """Places of messages in the order of the times at which they were recorded.

        Args:
            topics: Only these; None = all.
            types: Only messages of these types; None = all.
        """
        wanted = {
            part: {
                number: channel
                for number, channel in channels.items()
                if channel.topic not in self.left_out
                and (topics is None or channel.topic in topics)
                and (types is None or channel.type in types)
            }
            for part, channels in self._channels.items()
        }
        parts = [part for part, channels in wanted.items() if channels]
        if all(part in self._spans and not self._is_packed(part) for part in parts):
            yield from self._merged(parts, wanted)
        else:  # without times, and where every file has to be decompressed, the order of the names
            for part in parts:
                yield from self._entries(part, wanted[part])

    def data(self, item: RecordingItem) -> bytes:
        """CDR of a message with its encapsulation header, as DDS carries it.

        Raises:
            InputError: it cannot be read or converted.
        """
        with self._lock:  # files have one place that is read next
            data = self._part(item.part).read(item.place)
        if self._compressed_messages:
            data = _decompressed(data, item.topic)
        if item.channel not in self._converters:
            self._converters[item.channel] = self._types.to_cdr(item.channel)
        try:
            return self._converters[item.channel](data)
        except Exception as error:  # bytes that are no such message raise anything
            raise InputError(f"it is no message of {item.type} ({type(error).__name__}: {error})") from error

    def message(self, item: RecordingItem) -> Message:
        """A message with its fields.

        Raises:
            InputError: it cannot be read.
        """
        data = self.data(item)
        try:
            content = self._types.deserialise(item.channel, data)
        except InputError:
            raise
        except Exception as error:  # bytes that are no such message raise anything
            raise InputError(f"it is no message of {item.type} ({type(error).__name__}: {error})") from error
        return Message(item.topic, item.time, item.type, content)

    def messages(
        self, topics: Collection[str] | None = None, types: Collection[str] | None = None
    ) -> Iterator[Message]:
        """Messages in the order of time; those that cannot be read are left out and counted in `damage`."""
        for item in self.items(topics, types):
            try:
                message = self.message(item)
            except InputError as error:
                self.lose(item, str(error))
                continue
            yield message
        self.settle()

    def lose(self, item: RecordingItem, reason: str) -> None:
        """Counts a message that cannot be read; `settle` says it."""
        self._lost[item.topic, reason] += 1

    def settle(self) -> None:
        """Says in `damage` what was lost since the last time, one sentence per topic and reason."""
        for (topic, reason), count in self._lost.items():
            self._say_lost(f"{count} message(s) of {topic} in {self.path} cannot be read: {reason}")
        self._lost.clear()
        for part in list(self._opened):
            self._collect(self._opened[part])

    def _say_lost(self, sentence: str) -> None:
        if sentence not in self.damage:
            self.damage.append(sentence)

    def _survey(self) -> Counter[str]:
        """Opens every file once; messages per topic as the files have them."""
        counts: Counter[str] = Counter()
        for part in range(len(self._files)):
            try:
                storage = self._part(part)
            except InputError as error:
                self._say_lost(str(error))
                continue
            self._channels[part] = dict(storage.channels)
            if storage.span is not None:
                self._spans[part] = storage.span
            for number, count in storage.counts.items():
                if number in storage.channels:
                    counts[storage.channels[number].topic] += count
            if self._is_packed(part):
                self._close_part(part)
        return counts

    def _sort_in(self, channel: Channel) -> None:
        problem = self._types.problem(channel)
        if problem:
            if channel.topic not in self.topics:
                self.left_out.setdefault(channel.topic, problem)
        else:
            self.topics.setdefault(channel.topic, channel.type)
            self.left_out.pop(channel.topic, None)
            if channel.is_latched:
                self.latched.add(channel.topic)

    def _compare_counts(self, announced: dict[str, int], held: Counter[str]) -> None:
        for topic, count in announced.items():
            missing = count - held[topic]
            if missing > 0 and held:
                self._say_lost(
                    f"{missing} of the {count} messages of {topic} that {self.path / METADATA} counts are not in "
                    "the files"
                )

    def _merged(self, parts: list[int], wanted: dict[int, dict[int, Channel]]) -> Iterator[RecordingItem]:
        """Messages of several parts in the order of time; a part is opened when its first message is due."""
        heap: list[tuple[int, int, RecordingItem | None, Iterator[RecordingItem]]] = [
            (self._spans[part][0], part, None, self._entries(part, wanted[part])) for part in parts
        ]
        heapq.heapify(heap)
        while heap:
            _, part, item, rest = heapq.heappop(heap)
            if item is not None:
                yield item
            following = next(rest, None)
            if following is not None:
                heapq.heappush(heap, (following.time, part, following, rest))

    def _entries(self, part: int, channels: dict[int, Channel]) -> Iterator[RecordingItem]:
        for time, number, place in self._listed(part, channels):
            channel = channels[number]
            yield RecordingItem(channel.topic, time, channel.type, channel, part, place)
        if part in self._opened:
            self._collect(self._opened[part])

    def _listed(self, part: int, channels: dict[int, Channel]) -> Iterator[Entry]:
        self._listing[part] += 1
        try:
            yield from self._part(part).entries(channels)
        except InputError as error:
            self._say_lost(str(error))
        except Exception as error:  # damaged bytes make the libraries below raise anything
            self._say_lost(f"{self._files[part]} cannot be read further ({type(error).__name__}: {error})")
        finally:
            self._listing[part] -= 1

    def _is_packed(self, part: int) -> bool:
        return self._files[part].name.endswith(COMPRESSED_SUFFIX)

    def _part(self, number: int) -> Storage:
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        storage = self._open_packed(number) if self._is_packed(number) else _open_storage(self._files[number])
        self._opened[number] = storage
        self._collect(storage)
        for opened, most in ((self._temporary, 1), (self._opened, OPEN_FILES)):
            idle = [part for part in opened if part != number and not self._listing[part]]
            for part in idle[: max(0, len(opened) - most)]:
                self._close_part(part)
        return storage

    def _open_packed(self, number: int) -> Storage:
        file = self._files[number]
        folder = tempfile.TemporaryDirectory(prefix="recording-")
        target = Path(folder.name) / file.name.removesuffix(COMPRESSED_SUFFIX)
        try:
            _unpack(file, target)
            storage = _open_storage(target)
        except InputError as error:
            folder.cleanup()
            raise InputError(str(error).replace(str(target), str(file))) from error
        self._temporary[number] = folder
        return storage

    def _close_part(self, number: int) -> None:
        storage = self._opened.pop(number, None)
        if storage is not None:
            self._collect(storage)
            storage.close()
        if number in self._temporary:
            self._temporary.pop(number).cleanup()

    def _collect(self, storage: Storage) -> None:
        """Takes over what a file has to say, under the name that the user knows."""
        names = {str(Path(folder.name)): str(self.path) for folder in self._temporary.values()}
        for sentences, target in ((storage.notes, self.notes), (storage.damage, self.damage)):
            for sentence in sentences:
                for inner, outer in names.items():
                    sentence = sentence.replace(inner, outer)
                if sentence not in target:
                    target.append(sentence)


def _metadata_of(path: Path) -> Metadata:
    if path.is_dir():
        metadata = read_metadata(path)
        if not metadata.files:
            raise InputError("; ".join(metadata.damage) or f"{path} holds no storage file of a bag (.mcap or .db3)")
        return metadata
    if is_storage(path) and (path.parent / METADATA).is_file():
        whole = read_metadata(path.parent)
        return Metadata([path], compressed_messages=whole.compressed_messages and path in whole.files)
    return Metadata([path])


def _open_storage(path: Path) -> Storage:
    """Raises InputError where nothing can be read, also for what the libraries below raise on damaged bytes."""
    kind: Callable[[Path], Storage] = {".mcap": McapStorage, ".db3": SqliteStorage}.get(path.suffix, Ros1Storage)
    try:
        return kind(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _unpack(file: Path, target: Path) -> None:
    """Raises InputError if the file is damaged or the disk has no room for what is in it."""
    try:
        with file.open("rb") as packed, target.open("wb") as unpacked:
            size = zstandard.frame_content_size(packed.read(18))
            packed.seek(0)
            free = shutil.disk_usage(target.parent).free
            if size > free:
                raise InputError(f"{target.parent} has no room for the {size} bytes of {file}: set TMPDIR")
            with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
                while block := reader.read(1 << 20):
                    unpacked.write(block)
    except (OSError, zstandard.ZstdError) as error:
        if not target.exists() or not os.path.getsize(target):
            raise InputError(f"{file} cannot be decompressed: {error}") from error


def _decompressed(data: bytes, topic: str) -> bytes:
    try:
        size = zstandard.frame_content_size(data)
        if size > LARGEST_CHUNK:
            raise InputError(f"a message of {topic} says that it has {size} bytes, at most {LARGEST_CHUNK} are read")
        reader = zstandard.ZstdDecompressor().stream_reader(data)
        plain = reader.read(LARGEST_CHUNK if size < 0 else size + 1)
    except zstandard.ZstdError as error:
        raise InputError(f"its compressed data are damaged: {error}") from error
    return plain


def read_messages(
    path: Path, topics: Collection[str] | None, types: Collection[str], damage: list[str]
) -> Iterator[Message]:
    """Messages of a recording in the order of time; `damage` gets a sentence for everything that is lost.

    Raises:
        InputError: nothing of it can be read.
    """
    with Recording(path) as recording:
        yield from recording.messages(topics, types)
        damage += [sentence for sentence in recording.damage if sentence not in damage]
