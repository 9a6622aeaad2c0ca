"""Rendered samples on disk: folders of memory-mapped arrays that any number of training workers can share.

A shard is a folder with one `.npy` per modality, all with the sample as first axis, and `shard.json`, which is
written last: a folder without it is unfinished and is passed over. `shard.json` holds the count of samples (the arrays
may have room for more), the image's size, the seeds, and the config that made them.

`shard_rows` says which arrays.
"""

from __future__ import annotations

import bisect
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets.shard_rows import array_specs, decode, encode, encode_targets
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.sample import Sample


FORMAT_VERSION = 1
MANIFEST = "shard.json"

_logger = logging.getLogger(__name__)


def read_manifest(folder: Path) -> dict[str, Any]:
    """`shard.json` of a finished shard: version, count, width, height, seeds, tags, config, and perhaps targets.

    Raises:
        InputError: it cannot be read, lacks a field, or is of another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        missing = {"version", "count", "width", "height", "seeds", "tags", "config"} - set(manifest)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} cannot be read ({error}): render this shard again.") from error
    if missing:
        raise InputError(f"{folder / MANIFEST} lacks {', '.join(sorted(missing))}: render this shard again.")
    if manifest["version"] != FORMAT_VERSION:
        raise InputError(
            f"{folder / MANIFEST} has version {manifest['version']}, this program reads {FORMAT_VERSION}."
        )
    return dict(manifest)


class ShardWriter:
    """Fills one shard sample by sample; it counts only after `finish()`.

    Whatever an earlier, unfinished attempt left in the folder is overwritten.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        count: int,
        height: int,
        width: int,
        targets: Sequence[str] = (),
    ) -> None:
        """Reserves room for `count` samples, which must have the `targets` (`WorldConfig.targets`).

        Raises:
            InputError: the folder already holds a finished shard, cannot be written, or the disk is too small.
        """
        self.folder = Path(folder)
        self._capacity, self._size, self._targets = count, (height, width), list(targets)
        self._seeds: list[int | None] = []
        self._tags: list[list[str]] = []
        if (self.folder / MANIFEST).exists():
            raise InputError(f"{self.folder} already holds a finished shard: choose another folder or delete it.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._arrays = {
                name: _reserve(self.folder / f"{name}.npy", shape, dtype)
                for name, (shape, dtype) in array_specs(count, height, width, targets).items()
            }
        except OSError as error:
            raise InputError(f"Cannot write the shard {self.folder}: {error.strerror or error}.") from error

    def __len__(self) -> int:
        return len(self._seeds)

    def append(self, sample: Sample, seed: int | None = None, tags: Sequence[str] = ()) -> None:
        """Adds a sample; modalities it lacks are stored as unknown.

        Raises:
            ValueError: the shard is full, or the sample has another size or lacks one of the shard's targets.
        """
        index = len(self)
        if index >= self._capacity:
            raise ValueError(f"{self.folder} has room for {self._capacity} samples")
        if sample.rgb.shape != (*self._size, 3):
            raise ValueError(f"{self.folder} holds images of {self._size}, got one of {sample.rgb.shape}")
        for name, row in (encode(sample) | encode_targets(sample, self._targets)).items():
            self._arrays[name][index] = row
        self._seeds.append(seed)
        self._tags.append(list(tags))

    def finish(self, config: dict[str, Any] | None = None) -> None:
        """Makes the shard count: flushes the arrays and only then writes `shard.json`, in one step."""
        for array in self._arrays.values():
            array.flush()
        height, width = self._size
        manifest = {
            "version": FORMAT_VERSION,
            "count": len(self),
            "width": width,
            "height": height,
            "seeds": self._seeds,
            "tags": self._tags,
            "config": config or {},
        } | ({"targets": self._targets} if self._targets else {})
        with whole_file(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest), encoding="utf-8")
        self._arrays = {}


class ShardDataset(Sequence[Sample]):
    """Every finished shard below a folder as one sequence of samples, in the order of the shards' paths.

    Arrays stay on disk until they are asked for. The dataset may be pickled and sent to worker processes.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Finds the shards; `rejected` names the damaged ones, which are left out with a warning.

        Raises:
            InputError: there is no usable shard.
        """
        self.root = Path(root)
        self.rejected: dict[Path, str] = {}
        self._shards: list[_Shard] = []
        for manifest in sorted(self.root.rglob(MANIFEST)):
            try:
                self._shards.append(_Shard(manifest.parent))
            except (OSError, ValueError, TypeError) as error:  # InputError is a ValueError
                self.rejected[manifest.parent] = str(error)
                _logger.warning("Left out the damaged shard %s: %s", manifest.parent, error)
        if not self._shards:
            damaged = "".join(f" {folder}: {reason}." for folder, reason in self.rejected.items())
            raise InputError(
                f"No finished shard below {self.root}: render some with `diffusion-perception world`.{damaged}"
            )
        self._ends = list(itertools.accumulate(shard.count for shard in self._shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.root} has {len(self)} samples, asked for number {index}")
        number = bisect.bisect_right(self._ends, index)
        shard = self._shards[number]
        return shard.read(index - self._ends[number] + shard.count)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def folders(self) -> list[Path]:
        """The finished shards."""
        return [shard.folder for shard in self._shards]


class _Shard:
    """One finished shard, its files checked when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        self.count, self.height, self.width = (int(manifest[key]) for key in ("count", "height", "width"))
        self.seeds: list[int | None] = manifest["seeds"]
        self.tags: list[list[str]] = manifest["tags"]
        self._targets: list[str] = manifest.get("targets", [])
        if len(self.seeds) != self.count:
            raise ValueError(f"{len(self.seeds)} seeds for {self.count} samples")
        self._arrays: dict[str, npt.NDArray[Any]] | None = None
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled by value: the receiving process opens the files again.
        return {**self.__dict__, "_arrays": None}

    def _open(self) -> dict[str, npt.NDArray[Any]]:
        if self._arrays is None:
            arrays = {}
            for name, (shape, dtype) in array_specs(self.count, self.height, self.width, self._targets).items():
                array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                if array.dtype != dtype or array.shape[1:] != shape[1:] or len(array) < self.count:
                    raise ValueError(f"{name}.npy is {array.dtype} {array.shape}, expected {dtype} {shape}")
                arrays[name] = array
            self._arrays = arrays
        return self._arrays

    def read(self, index: int) -> Sample:
        return decode({name: array[index] for name, array in self._open().items()}, self._name(index))

    def _name(self, index: int) -> str:
        seed = self.seeds[index]
        return f"{self.folder.name}/{index}" if seed is None else f"seed {seed}"


def _reserve(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, np.dtype[Any]]:
    """A writable memory map with its disk space set aside: a disk that fills up later would kill the process."""
    array: np.memmap[Any, np.dtype[Any]]
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
