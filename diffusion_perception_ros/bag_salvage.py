"""Reads the beginning of rosbag2 files that were cut off: a recorder was killed, a disk was full, a copy broke."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Channel, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader

from diffusion_perception_ros.errors import InputError


Record = tuple[str, str, int, bytes]
"""Topic, type, nanoseconds, CDR."""


def salvage(path: Path) -> Iterator[Record]:
    """Messages of a damaged storage file (.mcap or .db3) in the order in which they were written.

    Raises:
        InputError: where the readable part ends; the message names the file.
    """
    try:
        yield from (_salvage_mcap(path) if path.suffix == ".mcap" else _salvage_sqlite(path))
    except (McapError, sqlite3.Error, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged: it cannot be read further ({str(error) or type(error).__name__})"
        ) from error


def _salvage_mcap(path: Path) -> Iterator[Record]:
    """Without the index, which is at the end of the file."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with path.open("rb") as stream:
        for record in StreamReader(stream).records:
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, McapMessage):
                channel = channels[record.channel_id]
                yield channel.topic, schemas[channel.schema_id].name, record.log_time, record.data


def _salvage_sqlite(path: Path) -> Iterator[Record]:
    """SQLite refuses a file that is shorter than its header says, so a copy is filled up with empty pages."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copyfile(path, Path(folder) / path.name))
        with copy.open("rb") as stream:
            header = stream.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        page_size = 65536 if page_size == 1 else page_size
        os.truncate(copy, max(copy.stat().st_size, page_size * int.from_bytes(header[28:32], "big")))
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as database:
            topics = {row[0]: row[1:] for row in database.execute("SELECT id, name, type FROM topics")}
            # In the order of the rows: the index by time may lie in the missing part.
            for topic, stamp, data in database.execute(
                "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
            ):
                yield (*topics[topic], stamp, data)
