"""Engines built for one GPU, kept on disk: found again only where everything that they depend on is the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.safe_files import LARGEST_FILE, parse_json, read_bytes


_log = logging.getLogger(__name__)
_BUILDER = 2
"""Raised whenever engines are built in another way, so that older ones are not used any more."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on. An engine of any other key is stale and is never loaded."""

    gpu: str
    """Name of the GPU."""
    compute_capability: str
    driver: str
    tensorrt: str
    """Versions of the driver and of TensorRT, in full."""
    graph: str
    """sha256 of the ONNX file and its external data."""
    precision: str
    shapes: Mapping[str, Any]
    """Range of every input's shape."""
    builder: int = _BUILDER

    @property
    def digest(self) -> str:
        """Short name for files."""
        return _digest(asdict(self))


STATE_VARIABLE = "XDG_STATE_HOME"


class EngineCache:
    """A folder of engines of one model. Every engine has a JSON file with its key and its hash.

    Loading an engine runs what is in it, and a model folder may come from anywhere. So the hashes of the engines that
    were built here are kept elsewhere, in this user's state; an engine without one is built again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, model: Path) -> EngineCache:
        """`engines` in the model folder; where that may not be written, a folder in the user's cache."""
        folder = model / "engines"
        if os.access(folder if folder.is_dir() else model, os.W_OK):
            return cls(folder)
        return cls(user_cache(model))

    def path(self, graph: str, key: EngineKey) -> Path:
        """File of an engine; `graph` is the stem of the ONNX file's name."""
        return self.folder / f"{graph}-{key.precision}-{key.digest}.engine"

    def load(self, graph: str, key: EngineKey) -> bytes | None:
        """The engine of exactly this key, None if there is none, it was cut off or altered, or not built here."""
        path = self.path(graph, key)
        try:
            built = read_bytes(_witness(path), 100).decode()
            notes = parse_json(read_bytes(path.with_suffix(".json"), 1 << 20), str(path))
            engine = read_bytes(path, LARGEST_FILE)
        except (OSError, ValueError):
            return None
        is_whole = isinstance(notes, dict) and notes.get("sha256") == built == hashlib.sha256(engine).hexdigest()
        return engine if is_whole and notes.get("key") == _plain(asdict(key)) else None

    def store(self, graph: str, key: EngineKey, engine: bytes) -> Path:
        """Writes an engine, and removes those that the same GPU cannot use any more.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path(graph, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale(graph, key)
        _write(path, engine)
        digest = hashlib.sha256(engine).hexdigest()
        _write(path.with_suffix(".json"), json.dumps({"sha256": digest, "key": asdict(key)}, indent=2).encode())
        try:
            _witness(path).parent.mkdir(parents=True, exist_ok=True)
            _write(_witness(path), digest.encode())
        except OSError as error:
            _log.warning(
                "the hash of %s cannot be kept in %s (%s), so the engine is built again at the next start: make that "
                "folder writable or set %s",
                path,
                _witness(path).parent,
                error.strerror or error,
                STATE_VARIABLE,
            )
        return path

    def reject(self, graph: str, key: EngineKey, reason: str) -> None:
        """Remembers that an engine of this key cannot be built or is wrong, so that it is not built again.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path(graph, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _write(path.with_suffix(".json"), json.dumps({"rejected": reason, "key": asdict(key)}, indent=2).encode())

    def rejection(self, graph: str, key: EngineKey) -> str | None:
        """Why an engine of this key was rejected, None if it was not."""
        try:
            notes = parse_json(read_bytes(self.path(graph, key).with_suffix(".json"), 1 << 20), "notes of an engine")
        except (OSError, ValueError):
            return None
        if not isinstance(notes, dict) or notes.get("key") != _plain(asdict(key)):
            return None
        reason = notes.get("rejected")
        return reason if isinstance(reason, str) else None

    def load_reference(self, name: str) -> dict[str, FloatTensor] | None:
        """Outputs of a graph on the CPU that `store_reference` kept."""
        try:
            with np.load(self.folder / f"reference-{name}.npz", allow_pickle=False) as stored:
                return {key: stored[key].astype(np.float32) for key in stored.files}
        except (OSError, ValueError, EOFError):
            return None

    def store_reference(self, name: str, outputs: Mapping[str, FloatTensor]) -> None:
        """Keeps a graph's outputs on the CPU, which take long to compute on a small machine.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"reference-{name}.npz"
        temporary = _temporary(path)
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **dict(outputs))  # type: ignore[arg-type]
        os.replace(temporary, path)

    def _remove_stale(self, graph: str, key: EngineKey) -> None:
        """Engines of the same graph file and GPU with another driver, TensorRT or graph: they only take up space."""
        for path in self.folder.glob(f"{graph}-*.json"):
            try:
                old = json.loads(path.read_text(encoding="utf-8")).get("key", {})
            except (OSError, ValueError, AttributeError):
                old = {}
            same_gpu = (old.get("gpu"), old.get("compute_capability")) == (key.gpu, key.compute_capability)
            outlived = any(old.get(name) != getattr(key, name) for name in ("driver", "tensorrt", "graph", "builder"))
            if same_gpu and outlived:
                path.unlink(missing_ok=True)
                path.with_suffix(".engine").unlink(missing_ok=True)


def user_cache(model: Path) -> Path:
    """Where this user keeps what was built of a model outside its folder."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = f"{model.name}-{hashlib.sha256(os.fsencode(model.resolve())).hexdigest()[:8]}"
    return Path(cache_home) / "diffusion_perception_ros" / "engines" / name


def _witness(engine: Path) -> Path:
    """The file outside the model folder that holds the hash of an engine which was built here."""
    state = os.environ.get(STATE_VARIABLE) or Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(engine.resolve())).hexdigest()[:32]
    return Path(state) / "diffusion_perception_ros" / "engines" / f"{name}.sha256"


def graph_hash(path: Path, hashes: Mapping[str, str]) -> str:
    """One hash of a graph file and of every file of its card that may hold its weights.

    Args:
        path: The ONNX file.
        hashes: The card's `files`: names → sha256. Other graphs (`.onnx`) are left out.
    """
    relevant = {name: value for name, value in hashes.items() if name == path.name or not name.endswith(".onnx")}
    return _digest({"file": path.name, "files": relevant}, length=64)


def _digest(fields: Mapping[str, Any], length: int = 16) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:length]


def _plain(fields: Mapping[str, Any]) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(fields))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write(path: Path, content: bytes) -> None:
    temporary = _temporary(path)
    temporary.write_bytes(content)
    os.replace(temporary, path)
