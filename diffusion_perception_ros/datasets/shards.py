"""Rendered samples on disk: folders of memory-mapped arrays that any number of training workers can share.

A shard is a folder with one `.npy` per modality, all with the sample as first axis, and `shard.json`, which is
written last: a folder without it is unfinished and is passed over. `shard.json` holds the count of samples (the arrays
may have room for more), the picture's size, the seeds, and the config that made them.

| file | dtype | shape | meaning |
|---|---|---|---|
| rgb.npy | uint8 | (N, H, W, 3) | sRGB |
| depth.npy | float16 | (N, H, W) | metres, +Inf sky, NaN unknown |
| normals.npy | int8 | (N, H, W, 3) | round(127 n), all zero where unknown |
| semantic.npy | uint8 | (N, H, W) | class ids, 255 unlabelled |
| instances.npy | uint16 | (N, H, W) | 0 = none |
| intrinsics.npy | float32 | (N, 4) | fx fy cx cy, all NaN where unknown |

Shards of a world that was asked for more `targets` name them in `shard.json` and have the files for them:

| target | file | dtype | shape | meaning |
|---|---|---|---|---|
| flow | previous.npy | uint8 | (N, H, W, 3) | the picture before, sRGB |
| flow | flow.npy | float16 | (N, H, W, 2) | pixels to the place in that picture, NaN unknown |
| alpha | alpha.npy | uint8 | (N, H, W) | round(255 opacity) |
| amodal | amodal.npy | uint16 | (N, H, W) | id of one object with its hidden part, else 0 |
| keypoints | keypoints.npy | float32 | (N, `MOST_PEOPLE`, 17, 3) | u v visibility, NaN where there is nobody |
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

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import JOINTS, UNLABELLED, Intrinsics, Sample


FORMAT_VERSION = 1
MANIFEST = "shard.json"
NORMAL_SCALE = 127
MOST_PEOPLE = 16
"""Of one sample; the joints of more are left out."""
LARGEST_DEPTH = float(np.finfo(np.float16).max)

_logger = logging.getLogger(__name__)


def array_specs(
    count: int, height: int, width: int, targets: Sequence[str] = ()
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name of every array of a shard → (shape, dtype)."""
    extra = {
        "flow": {
            "previous": ((count, height, width, 3), np.dtype(np.uint8)),
            "flow": ((count, height, width, 2), np.dtype(np.float16)),
        },
        "alpha": {"alpha": ((count, height, width), np.dtype(np.uint8))},
        "amodal": {"amodal": ((count, height, width), np.dtype(np.uint16))},
        "keypoints": {"keypoints": ((count, MOST_PEOPLE, len(JOINTS), 3), np.dtype(np.float32))},
    }
    wanted = {name: spec for target in targets for name, spec in extra[target].items()}
    return wanted | {
        "rgb": ((count, height, width, 3), np.dtype(np.uint8)),
        "depth": ((count, height, width), np.dtype(np.float16)),
        "normals": ((count, height, width, 3), np.dtype(np.int8)),
        "semantic": ((count, height, width), np.dtype(np.uint8)),
        "instances": ((count, height, width), np.dtype(np.uint16)),
        "intrinsics": ((count, 4), np.dtype(np.float32)),
    }


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
            raise ValueError(f"{self.folder} holds pictures of {self._size}, got one of {sample.rgb.shape}")
        for name, row in (_encode(sample) | _encode_targets(sample, self._targets)).items():
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
        partial = self.folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(manifest), encoding="utf-8")
        os.replace(partial, self.folder / MANIFEST)
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
        return _decode({name: array[index] for name, array in self._open().items()}, self._name(index))

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


def _encode(sample: Sample) -> dict[str, npt.NDArray[Any]]:
    """The rows that stand for a sample, in the shard's dtypes."""
    height, width = sample.rgb.shape[:2]
    rows: dict[str, npt.NDArray[Any]] = {
        "rgb": sample.rgb,
        "depth": np.full((height, width), np.nan, np.float16),
        "normals": np.zeros((height, width, 3), np.int8),
        "semantic": np.full((height, width), UNLABELLED, np.uint8),
        "instances": np.zeros((height, width), np.uint16),
        "intrinsics": np.full(4, np.nan, np.float32),
    }
    if sample.depth is not None:
        # A far but finite surface must not turn into sky by overflowing float16.
        near = np.where(np.isfinite(sample.depth), np.minimum(sample.depth, LARGEST_DEPTH), sample.depth)
        rows["depth"] = near.astype(np.float16)
    if sample.normals is not None:
        rows["normals"] = np.nan_to_num(np.round(sample.normals * NORMAL_SCALE)).astype(np.int8)
    if sample.semantic is not None:
        rows["semantic"] = sample.semantic
    if sample.instances is not None:
        rows["instances"] = sample.instances
    if sample.intrinsics is not None:
        camera = sample.intrinsics
        rows["intrinsics"] = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
    return rows


def _encode_targets(sample: Sample, targets: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The rows of what only some shards have."""
    rows: dict[str, npt.NDArray[Any]] = {}
    for target in targets:
        if getattr(sample, target) is None:
            raise ValueError(f"{sample.name} lacks {target}, which its shard holds")
    if "flow" in targets and sample.flow is not None:
        if sample.previous is None:
            raise ValueError(f"{sample.name} has flow, but not the picture before")
        rows |= {"previous": sample.previous, "flow": sample.flow.astype(np.float16)}
    if "alpha" in targets and sample.alpha is not None:
        rows["alpha"] = np.round(sample.alpha * 255).astype(np.uint8)
    if "amodal" in targets and sample.amodal is not None:
        rows["amodal"] = sample.amodal
    if "keypoints" in targets and sample.keypoints is not None:
        rows["keypoints"] = np.full((MOST_PEOPLE, len(JOINTS), 3), np.nan, np.float32)
        rows["keypoints"][: len(sample.keypoints)] = sample.keypoints[:MOST_PEOPLE]
    return rows


def _decode_targets(sample: Sample, rows: dict[str, npt.NDArray[Any]]) -> Sample:
    if "flow" in rows:
        sample.previous, sample.flow = np.array(rows["previous"]), rows["flow"].astype(np.float32)
    if "alpha" in rows:
        sample.alpha = rows["alpha"] * np.float32(1 / 255)
    if "amodal" in rows:
        sample.amodal = np.array(rows["amodal"])
    if "keypoints" in rows:
        sample.keypoints = np.array(rows["keypoints"][np.isfinite(rows["keypoints"][:, 0, 0])])
    return sample


def _decode(rows: dict[str, npt.NDArray[Any]], name: str) -> Sample:
    """The sample behind the rows of `_encode`."""
    height, width = rows["depth"].shape
    normals = rows["normals"].astype(np.float32)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that marks an unknown normal
        normals /= length
    camera = rows["intrinsics"]
    known = bool(np.isfinite(camera).all())
    sample = Sample(
        rgb=np.array(rows["rgb"]),
        depth=rows["depth"].astype(np.float32),
        normals=normals,
        semantic=np.array(rows["semantic"]),
        instances=np.array(rows["instances"]),
        intrinsics=Intrinsics(width, height, *map(float, camera)) if known else None,
        name=name,
    )
    return _decode_targets(sample, rows)
