"""sqlite3 files of rosbag2, also of recorders that were killed (`-wal`, `-journal` beside them), and cut off ones.

Nothing is written beside the recording: a write-ahead log is read through a connection that neither locks nor indexes
it on disk, everything else that needs a change is done on a copy in the temporary folder.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.storage import Channel, Entry, Storage, qos_is_latched


MAGIC = b"SQLite format 3\0"
_ROWS_AT_ONCE = 256


class SqliteStorage(Storage):
    """A .db3 file.

    Raises:
        InputError: nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._is_padded = False
        try:
            self._database = self._open()
            self._read_topics()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise InputError(f"{path} cannot be read as a sqlite3 bag: {error}") from error

    def _open(self) -> sqlite3.Connection:
        with self.path.open("rb") as stream:
            header = stream.read(100)
        if not header.startswith(MAGIC):
            raise InputError(
                f"{self.path} is no sqlite3 bag: " + ("it is empty" if not header else "it is another file")
            )
        log = self.path.with_name(self.path.name + "-wal")
        if log.is_file() and log.stat().st_size:
            self.notes.append(f"{self.path} was not closed: its last messages are read from {log.name}")
            database = _connect(self.path, "mode=ro&vfs=unix-none")
            database.execute("PRAGMA locking_mode=EXCLUSIVE")  # the index of the log stays in memory
            return database
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.is_file() and journal.stat().st_size:
            self.lost(f"{self.path} was not closed: what {journal.name} has not finished is left out")
            return _connect(self._copy(journal), "mode=rw")
        page_size = int.from_bytes(header[16:18], "big")
        expected = (65536 if page_size == 1 else page_size) * int.from_bytes(header[28:32], "big")
        size = self.path.stat().st_size
        if size < expected:
            self._is_padded = True
            self.lost(f"{self.path} is cut off: {size} of its {expected} bytes are there")
            copy = self._copy()
            os.truncate(copy, expected)
            return _connect(copy, "mode=ro")
        return _connect(self.path, "immutable=1")

    def _copy(self, *beside: Path) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="recording-")
        folder = Path(self._folder.name)
        needed = sum(file.stat().st_size for file in (self.path, *beside))
        if shutil.disk_usage(folder).free < needed:
            raise InputError(f"{folder} has no room for the {needed} bytes of a copy of {self.path}: set TMPDIR")
        for file in beside:
            shutil.copyfile(file, folder / file.name)
        return Path(shutil.copyfile(self.path, folder / self.path.name))

    def _read_topics(self) -> None:
        columns = {row[1] for row in self._database.execute("PRAGMA table_info(topics)")}
        if not columns:
            raise InputError(f"{self.path} is no bag: the database has no table of topics")
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        definitions = self._definitions()
        rows = self._database.execute(f"SELECT id, name, type, serialization_format, {qos} FROM topics")
        for number, name, kind, encoding, profiles in rows.fetchall():
            is_idl, text = definitions.get(kind, (False, ""))
            self.channels[number] = Channel(name, kind, encoding, text, is_idl, qos_is_latched(profiles))
        if not self._is_padded:
            counted = self._database.execute(
                "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
            ).fetchall()
            self.counts = {row[0]: row[1] for row in counted}
            self.span = (min(row[2] for row in counted), max(row[3] for row in counted)) if counted else None

    def _definitions(self) -> dict[str, tuple[bool, str]]:
        """Since Iron a bag may hold them."""
        try:
            rows = self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ).fetchall()
        except sqlite3.Error:
            return {}
        return {kind: (encoding == "ros2idl", text) for kind, encoding, text in rows}

    def entries(self, channels: Collection[int]) -> Iterator[Entry]:
        if not channels:
            return
        if self._is_padded:
            yield from sorted(self._salvaged(set(channels)))
            return
        marks = ",".join("?" * len(channels))
        query = f"SELECT timestamp, topic_id, id FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp, id"
        try:
            cursor = self._database.execute(query, tuple(channels))
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield from (Entry(*row) for row in rows)
        except sqlite3.Error as error:
            self.lost(f"{self.path} is damaged: its messages cannot be listed further ({error})")

    def _salvaged(self, channels: set[int]) -> list[Entry]:
        """Rows in the order of the file, as the index by time may lie in the part that is missing."""
        found = []
        try:
            query = "SELECT timestamp, topic_id, id FROM messages NOT INDEXED ORDER BY id"
            for row in self._database.execute(query):
                if row[1] in channels:
                    self.read(row[2])
                    found.append(Entry(*row))
        except (sqlite3.Error, InputError):
            pass  # the missing part begins here, which was said
        return found

    def read(self, place: Any) -> bytes:
        try:
            row = self._database.execute("SELECT data FROM messages WHERE id = ?", (place,)).fetchone()
        except sqlite3.Error as error:
            raise InputError(f"message {place} of {self.path} cannot be read: {error}") from error
        if row is None or not isinstance(row[0], bytes):
            raise InputError(f"message {place} of {self.path} has no data")
        return row[0]

    def close(self) -> None:
        if hasattr(self, "_database"):
            self._database.close()
        if self._folder is not None:
            self._folder.cleanup()


def _connect(path: Path, options: str) -> sqlite3.Connection:
    address = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)
