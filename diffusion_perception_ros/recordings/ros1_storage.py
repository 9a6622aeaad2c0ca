"""ROS 1 bags (format 2.0), with or without index: also `.bag.active` files of recorders that were killed."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.chunked import Chunk, ChunkedStorage, Located, decompress
from diffusion_perception_ros.recordings.storage import ROS1, Channel
from diffusion_perception_ros.recordings.type_names import ros2_name


MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _HEADER, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 5, 6, 7
_LENGTH = struct.Struct("<I")


class _Record(NamedTuple):
    """A record; its data lie between `begin` and `end`."""

    fields: dict[str, bytes]
    begin: int
    end: int

    @property
    def kind(self) -> int:
        """Its operation code, 0 if it has none."""
        return int.from_bytes(self.fields.get("op", b""), "little")

    def number(self, name: str) -> int:
        """An unsigned field."""
        return int.from_bytes(self.fields[name], "little")

    def time(self, name: str) -> int:
        """Nanoseconds of a time field."""
        seconds, nanoseconds = struct.unpack("<II", self.fields[name])
        return int(seconds * 1_000_000_000 + nanoseconds)


class Ros1Storage(ChunkedStorage):
    """A ROS 1 bag.

    Raises:
        InputError: it is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if self._stream.read(len(MAGIC)) != MAGIC:
            self.close()
            raise InputError(f"{path} is no ROS 1 bag of format 2.0: it does not begin as one")
        if not self._read_index():
            self._scan()
        times = [time for chunk in self.chunks for time in chunk[:2]]
        self.span = (min(times), max(times)) if times else None

    def _read_index(self) -> bool:
        """Takes chunks and connections from the end of the file; False if they are not there."""
        try:
            header = self._record_at(len(MAGIC))
            position, counts = header.number("index_pos"), Counter[int]()
            if not position or position >= self._size:
                return False
            while position < self._size:
                record = self._record_at(position)
                if record.kind == _CONNECTION:
                    self._stream.seek(record.begin)
                    self._take(record, self._stream.read(record.end - record.begin))
                elif record.kind == _CHUNK_INFO:
                    times = record.time("start_time"), record.time("end_time")
                    self.chunks.append(Chunk(*times, record.number("chunk_pos")))
                    self._stream.seek(record.begin)
                    pairs = self._stream.read(record.end - record.begin)
                    for connection, count in struct.iter_unpack("<II", pairs[: 8 * record.number("count")]):
                        counts[connection] += count
                position = record.end
        except (KeyError, ValueError, struct.error):
            return False
        if len(self.chunks) != header.number("chunk_count") or counts.keys() - self.channels.keys():
            return False
        self.counts = dict(counts)
        return True

    def _scan(self) -> None:
        self.chunks, self.channels, counts = [], {}, Counter[int]()
        position = len(MAGIC)
        while position < self._size:
            try:
                record = self._record_at(position)
            except (KeyError, ValueError, struct.error):
                break
            if record.kind == _CHUNK:
                self.scan_chunk(position, counts)
            position = record.end
        self.unfinished(position, counts)
        self.counts = dict(counts)

    def load(self, offset: int) -> bytes:
        name = f"the chunk at byte {offset} of {self.path}"
        try:
            record = self._record_at(offset)
            size = record.number("size")
            compression = record.fields["compression"].decode(errors="replace")
        except (KeyError, ValueError, struct.error) as error:
            raise InputError(f"{name} is damaged: {error!r}") from error
        self._stream.seek(record.begin)
        data = decompress(self._stream.read(record.end - record.begin), compression, size, name)
        if len(data) < size:
            self.lost(f"{name} is cut off: {len(data)} of its {size} bytes are there")
        return data

    def walk(self, data: bytes) -> Iterator[Located]:
        position = 0
        while position < len(data):
            try:
                record = _parse(data, position)
                if record.end > len(data):
                    return
                if record.kind == _MESSAGE:
                    yield Located(record.time("time"), record.number("conn"), record.begin, record.end)
                elif record.kind == _CONNECTION:
                    self._take(record, data[record.begin : record.end])
            except (KeyError, ValueError, struct.error):
                return
            position = record.end

    def _take(self, record: _Record, content: bytes) -> None:
        fields = _fields(content)
        kind = fields["type"].decode(errors="replace")
        self.channels[record.number("conn")] = Channel(
            record.fields["topic"].decode(errors="replace"),
            ros2_name(kind) if kind else "",
            ROS1,
            fields.get("message_definition", b"").decode(errors="replace"),
            is_latched=fields.get("latching") == b"1",
        )

    def _record_at(self, position: int) -> _Record:
        """Raises ValueError or struct.error where there is none; its data may go beyond the end of the file."""
        self._stream.seek(position)
        length = _LENGTH.unpack(self._stream.read(4))[0]
        if length > self._size - position:
            raise ValueError("a record does not end within the file")
        header = self._stream.read(length)
        begin = position + 8 + length
        return _Record(_fields(header), begin, begin + _LENGTH.unpack(self._stream.read(4))[0])


def _parse(data: bytes, position: int) -> _Record:
    length = _LENGTH.unpack_from(data, position)[0]
    begin = position + 8 + length
    if begin > len(data):
        raise ValueError("a record is cut off")
    fields = _fields(data[position + 4 : position + 4 + length])
    return _Record(fields, begin, begin + _LENGTH.unpack_from(data, begin - 4)[0])


def _fields(header: bytes) -> dict[str, bytes]:
    """`name=value` pairs, each with its length before it."""
    fields, position = {}, 0
    while position + 4 <= len(header):
        length = _LENGTH.unpack_from(header, position)[0]
        name, separator, value = header[position + 4 : position + 4 + length].partition(b"=")
        if not separator:
            raise ValueError("a field has no value")
        fields[name.decode(errors="replace")] = value
        position += 4 + length
    return fields
