"""mcap files: with or without index, in any order, cut off or damaged in places.

The record types and their fields come from the `mcap` library; what it lacks is to go on after damage, to sort without
an index within bounded memory, and to leave out single channels.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel as ChannelRecord
from mcap.records import Schema

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.chunked import Chunk, ChunkedStorage, Located, decompress
from diffusion_perception_ros.recordings.storage import ROS1, Channel, qos_is_latched
from diffusion_perception_ros.recordings.type_names import ros2_name


MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQII")
_SCHEMA_ENCODINGS = {"ros2msg": False, "ros1msg": False, "ros2idl": True}


class McapStorage(ChunkedStorage):
    """An mcap file.

    Raises:
        InputError: it is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._schemas: dict[int, Schema] = {}
        self._records: dict[int, ChannelRecord] = {}
        if self._stream.read(len(MAGIC)) != MAGIC:
            self.close()
            raise InputError(f"{path} is no mcap file: it does not begin as one")
        if not self._read_index():
            self._scan()
        self.channels = {number: self._channel(record) for number, record in self._records.items()}
        times = [time for chunk in self.chunks for time in chunk[:2]] + [message.time for message in self.loose]
        self.span = (min(times), max(times)) if times else None

    def _read_index(self) -> bool:
        """Takes chunks and channels from the summary; False if there is none that names all."""
        try:
            self._stream.seek(0)
            summary = make_reader(self._stream).get_summary()
        except Exception:  # damaged bytes make the library raise anything
            return False
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            return False
        counts = summary.statistics.channel_message_counts
        named = set(counts) | {channel for index in summary.chunk_indexes for channel in index.message_index_offsets}
        held = sum(counts.values())
        if named - summary.channels.keys() or held != summary.statistics.message_count:
            return False
        if len(summary.chunk_indexes) != summary.statistics.chunk_count:
            return False
        self._schemas, self._records, self.counts = summary.schemas, summary.channels, counts
        self.chunks = [
            Chunk(index.message_start_time, index.message_end_time, index.chunk_start_offset)
            for index in summary.chunk_indexes
            if index.message_start_time or index.message_end_time or index.message_index_offsets
        ]
        return True

    def _scan(self) -> None:
        """Reads from start to end: chunks for their times, messages outside of them for their places."""
        self.chunks, self.loose, counts = [], [], Counter[int]()
        position, finished = len(MAGIC), False
        while not finished:
            self._stream.seek(position)
            head = self._stream.read(_RECORD.size)
            if len(head) < _RECORD.size:
                break
            opcode, length = _RECORD.unpack(head)
            end = position + _RECORD.size + length
            if not Opcode.HEADER <= opcode <= 0x7F or (end > self._size and opcode != Opcode.CHUNK):
                break
            if opcode == Opcode.DATA_END:
                finished = True
            elif opcode == Opcode.CHUNK:
                self.scan_chunk(position, counts)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
                self._scan_loose(opcode, position + _RECORD.size, end, counts)
            position = end
        if not finished:
            self.unfinished(position, counts)
        self.counts = dict(counts)

    def _scan_loose(self, opcode: int, begin: int, end: int, counts: Counter[int]) -> None:
        if opcode != Opcode.MESSAGE:
            self._take(opcode, self._stream.read(end - begin))
            return
        channel, _, time, _ = _MESSAGE.unpack(self._stream.read(_MESSAGE.size))
        self.loose.append(Located(time, channel, begin + _MESSAGE.size, end))
        counts[channel] += 1

    def _take(self, opcode: int, content: bytes) -> None:
        """Notes a schema or a channel."""
        stream = ReadDataStream(BytesIO(content))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
        else:
            record = ChannelRecord.read(stream)
            self._records[record.id] = record

    def load(self, offset: int) -> bytes:
        self._stream.seek(offset)
        _, length = _RECORD.unpack(self._stream.read(_RECORD.size))
        content = self._stream.read(min(length, self._size - offset - _RECORD.size))
        name = f"the chunk at byte {offset} of {self.path}"
        if len(content) < _CHUNK.size + 8:
            raise InputError(f"{name} is cut off")
        _, _, size, checksum, letters = _CHUNK.unpack_from(content)
        compression = content[_CHUNK.size : _CHUNK.size + letters].decode(errors="replace")
        begin = _CHUNK.size + letters + 8
        data = decompress(content[begin:], compression, size, name)
        if len(data) == size and checksum and zlib.crc32(data) != checksum:
            raise InputError(f"{name} is damaged: its checksum is another one, so its messages are left out")
        if len(data) < size:
            self.lost(f"{name} is cut off: {len(data)} of its {size} bytes are there")
        return data

    def walk(self, data: bytes) -> Iterator[Located]:
        position = 0
        while position + _RECORD.size <= len(data):
            opcode, length = _RECORD.unpack_from(data, position)
            begin, end = position + _RECORD.size, position + _RECORD.size + length
            if end > len(data):
                return
            if opcode == Opcode.MESSAGE:
                channel, _, time, _ = _MESSAGE.unpack_from(data, begin)
                yield Located(time, channel, begin + _MESSAGE.size, end)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._take(opcode, data[begin:end])
            position = end

    def _channel(self, record: ChannelRecord) -> Channel:
        schema = self._schemas.get(record.schema_id)
        encoding = record.message_encoding
        if schema is None:
            return Channel(record.topic, "", encoding)
        readable = schema.encoding in _SCHEMA_ENCODINGS
        return Channel(
            record.topic,
            ros2_name(schema.name) if encoding == ROS1 else schema.name,
            encoding,
            schema.data.decode(errors="replace") if readable else "",
            _SCHEMA_ENCODINGS.get(schema.encoding, False),
            _is_latched(record.metadata),
        )


def _is_latched(metadata: dict[str, str]) -> bool:
    """As rosbag2 (QoS as YAML) and converted ROS 1 bags (`latching`) say it."""
    if metadata.get("latching") in ("1", "true"):
        return True
    return qos_is_latched(metadata.get("offered_qos_profiles", ""))
