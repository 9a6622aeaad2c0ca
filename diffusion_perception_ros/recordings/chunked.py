"""Files whose messages lie in compressed chunks, in any order of time: mcap and ROS 1 bags."""

from __future__ import annotations

import bz2
import heapq
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame
import zstandard

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.storage import LARGEST_CHUNK, Entry, Storage


KEPT_BYTES = 1 << 26
"""Decompressed chunks that are kept, so that messages of several topics can be read in the order of time."""


class Chunk(NamedTuple):
    """A chunk of a file."""

    start: int
    """Nanoseconds, of its first message."""
    end: int
    offset: int
    """Of its record in the file."""


class Located(NamedTuple):
    """A message inside of decompressed chunk data, or of the file itself."""

    time: int
    channel: int
    begin: int
    end: int


class ChunkedStorage(Storage):
    """Messages are sorted by merging the chunks whose times overlap: only places are kept in memory for that."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self._size = path.stat().st_size
        self.chunks: list[Chunk] = []
        self.loose: list[Located] = []
        """Messages outside of chunks, in the file."""
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    @abstractmethod
    def load(self, offset: int) -> bytes:
        """Data of the chunk whose record is at `offset`, decompressed; of a chunk that is cut off, its beginning.

        Raises:
            InputError: it is damaged.
        """

    @abstractmethod
    def walk(self, data: bytes) -> Iterator[Located]:
        """Messages of a chunk's data in the order of the file; ends where they are cut off."""

    def scan_chunk(self, position: int, counts: Counter[int]) -> None:
        """Takes up a chunk of a file without an index, and counts its messages by channel; a damaged one is lost."""
        try:
            data = self.load(position)
        except InputError as error:
            self.lost(str(error))
            return
        times = []
        for message in self.walk(data):
            counts[message.channel] += 1
            times.append(message.time)
        if times:
            self.chunks.append(Chunk(min(times), max(times), position))

    def unfinished(self, position: int, counts: Counter[int]) -> None:
        """Says that the file ends at `position` before its end was written."""
        self.lost(
            f"{self.path} was not finished: its recorder was killed or it was cut off; its {counts.total()} messages "
            f"up to byte {min(position, self._size)} of {self._size} are read"
        )

    def entries(self, channels: Collection[int]) -> Iterator[Entry]:
        heap: list[tuple[int, int, int, Any]] = [
            (message.time, 0, message.begin, (None, message)) for message in self.loose if message.channel in channels
        ]
        heapq.heapify(heap)
        for number, chunk in enumerate(sorted(self.chunks), start=1):
            while heap and heap[0][0] < chunk.start:
                yield _entry(*heapq.heappop(heap))
            try:
                data = self._data(chunk.offset)
            except InputError as error:
                self.lost(str(error))
                continue
            for message in self.walk(data):
                if message.channel in channels:
                    place = chunk.offset, message
                    heapq.heappush(heap, (message.time, number, message.begin, place))
        while heap:
            yield _entry(*heapq.heappop(heap))

    def read(self, place: Any) -> bytes:
        offset, message = place
        if offset is None:
            self._stream.seek(message.begin)
            return self._stream.read(message.end - message.begin)
        return self._data(offset)[message.begin : message.end]

    def close(self) -> None:
        self._stream.close()
        self._kept.clear()

    def _data(self, offset: int) -> bytes:
        if offset in self._kept:
            self._kept.move_to_end(offset)
            return self._kept[offset]
        data = self.load(offset)
        self._kept[offset] = data
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return data


def _entry(time: int, _: int, __: int, place: Any) -> Entry:
    return Entry(time, place[1].channel, place)


def decompress(data: bytes, compression: str, size: int, name: str) -> bytes:
    """Data of a chunk; of data that are cut off, as much as they give.

    Args:
        data: as stored.
        compression: `zstd`, `lz4`, `bz2`, `none` or empty.
        size: bytes that they should give.
        name: of the chunk, for the error.

    Raises:
        InputError: another compression, damaged data, or more bytes than a chunk may have.
    """
    if size > LARGEST_CHUNK:
        raise InputError(f"{name} says that it has {size} bytes, at most {LARGEST_CHUNK} are read")
    try:
        if compression == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(data).read(size)
        if compression == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size)) if size else b""
        if compression == "bz2":
            return bz2.BZ2Decompressor().decompress(data, max_length=size) if size else b""
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{name} is damaged: {error}") from error
    if compression in ("", "none"):
        return data
    raise InputError(f"{name} is compressed with '{compression}', which is not read (zstd, lz4 and bz2 are)")
