"""Folders of pictures with ground truth: a `manifest.json` that lists them, or plain `rgb/` and `depth/` side by side.

A manifest's `items` name, relative to it, `rgb` and any of `depth` (16-bit PNG times `depth_scale_m` = metres, 0 = no
data; beyond `max_depth_m` = no data), `mask`, `instance_mask`, `intrinsics`, and what `object_truth` reads: `flow`,
`alpha`, `keypoints` and `prompt_answer`. A plain folder pairs files by stem;
depth is 16-bit PNG or TIFF in millimetres, or float TIFF or NumPy in metres (or times `depth_scale_m` of an optional
`intrinsics.json`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.datasets.label_files import LABEL_READERS
from diffusion_perception_ros.datasets.object_truth import TRUTH_FILES, TRUTH_READERS
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture, read_values
from diffusion_perception_ros.sample import FloatImage, Intrinsics, UInt8Image


MANIFEST = "manifest.json"
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
DEPTHS = (".png", ".tif", ".tiff", ".npy")
FLOAT_DEPTH_SCALE = 1.0
INTEGER_DEPTH_SCALE = 0.001
LABEL_FILES = ("mask", "instance_mask")
LABEL_TASKS = {"semantic_segmentation", "instance_segmentation", "panoptic_segmentation"}


@dataclass(frozen=True)
class _Item:
    name: str
    group: str
    rgb: Path
    depth: Path | None = None
    depth_scale: float | None = None
    max_depth: float = np.inf
    """Metres; measurements beyond do not count."""
    depth_kind: str = "dense_sensor"
    intrinsics: dict[str, Any] | None = None
    labels: str | None = None
    """Which of `LABEL_READERS` reads the ground truth of segmentation."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the manifest, for the readers; files as paths."""


class FolderDataset(EvaluationDataset):
    """The pictures of a folder that have ground truth.

    Args:
        root: a folder with a manifest, a folder below one (then only its items), or a plain folder.
        groups: only these groups.

    Raises:
        InputError: no such folder, nothing to score in it, an unreadable manifest, an unknown group.
    """

    def __init__(self, root: Path | str, groups: Sequence[str] | None = None) -> None:
        super().__init__(str(root))
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{root} is not a folder: give a folder of pictures with ground truth or a bag")
        manifest = _find_manifest(self.root)
        items = _manifest_items(manifest, self.root) if manifest else []
        if not items:
            items = list(_plain_items(self.root))
        if not items:
            raise InputError(
                f"{root} holds nothing to score: it needs a {MANIFEST} that lists it, or the folders rgb/ and depth/"
            )
        self.groups = tuple(dict.fromkeys(item.group for item in items))
        if unknown := sorted(set(groups or ()) - set(self.groups)):
            raise InputError(f"{root} has no group {', '.join(unknown)}: it has {', '.join(self.groups)}")
        self._items = [item for item in items if not groups or item.group in groups]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> EvaluationSample:
        item = self._items[index]
        rgb = read_picture(item.rgb)
        sample = EvaluationSample(
            rgb=rgb, name=item.name, group=item.group, depth_kind=item.depth_kind, intrinsics=_intrinsics(item, rgb)
        )
        if item.depth is not None:
            depth = read_depth(item.depth, item.depth_scale)
            with np.errstate(invalid="ignore"):
                depth[depth > item.max_depth] = np.nan
            sample.depth = check_depth(depth, rgb.shape, str(item.depth))
        if item.labels is not None:
            LABEL_READERS[item.labels](sample, item.fields)
        for field_name, read in TRUTH_READERS.items():
            if field_name in item.fields:
                read(sample, item.fields)
        return sample

    def name_of(self, index: int) -> str:
        return self._items[index].name

    def group_of(self, index: int) -> str:
        return self._items[index].group


def read_depth(path: Path, scale: float | None = None) -> FloatImage:
    """(H, W) depth in metres, `scale` times the stored value (default: millimetres for integers, metres for floats).

    Raises:
        InputError: missing, unreadable or not a single channel.
    """
    if path.suffix == ".npy":
        try:
            stored = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read as a NumPy array: {error}") from error
    else:
        stored = read_values(path)
    if stored.ndim != 2:
        raise InputError(f"{path} is not a depth map: it has shape {stored.shape}, one channel is needed")
    if stored.dtype == np.uint8:
        raise InputError(f"{path} is not a depth map: it has 8 bits per pixel, 16 bits or floats are needed")
    if scale is None:
        scale = FLOAT_DEPTH_SCALE if np.issubdtype(stored.dtype, np.floating) else INTEGER_DEPTH_SCALE
    return np.asarray(stored * np.float32(scale), np.float32)


def _find_manifest(root: Path) -> Path | None:
    """The manifest of the folder or of the nearest folder above it."""
    resolved = root.resolve()
    return next((folder / MANIFEST for folder in (resolved, *resolved.parents) if (folder / MANIFEST).is_file()), None)


def _manifest_items(manifest: Path, root: Path) -> list[_Item]:
    base = manifest.parent
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["items"]
        items = [_manifest_item(base, entry) for entry in entries]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{manifest} is not a manifest of pictures: {error!r}") from error
    scope = root.resolve()
    return [item for item in items if item is not None and item.rgb.is_relative_to(scope)]


def _manifest_item(base: Path, entry: dict[str, Any]) -> _Item | None:
    labels = _label_kind(entry)
    if "depth" not in entry and labels is None and not TRUTH_READERS.keys() & entry.keys():
        return None
    paths = {key: base / entry[key] for key in (*LABEL_FILES, *TRUTH_FILES) if key in entry}
    return _Item(
        name=str(entry.get("id", entry["rgb"])),
        group=str(entry.get("group") or Path(str(entry["id"])).parts[0]),
        rgb=base / entry["rgb"],
        depth=base / entry["depth"] if "depth" in entry else None,
        depth_scale=entry.get("depth_scale_m"),
        max_depth=float(entry.get("max_depth_m", np.inf)),
        depth_kind=str(entry.get("depth_kind", "dense_sensor")),
        intrinsics=entry.get("intrinsics"),
        labels=labels,
        fields=entry | paths,
    )


def _label_kind(entry: dict[str, Any]) -> str | None:
    """Which reader an item's masks need, None for items without."""
    if "mask" not in entry:
        return None
    if entry.get("task") not in LABEL_TASKS:
        return "objects"
    return Path(str(entry["id"])).parts[0]


def _plain_items(root: Path) -> Iterator[_Item]:
    depths = {path.stem: path for suffix in reversed(DEPTHS) for path in sorted((root / "depth").glob(f"*{suffix}"))}
    shared = _read_intrinsics_file(root / "intrinsics.json")
    for rgb in sorted((root / "rgb").glob("*")):
        if rgb.suffix.lower() in PICTURES and not rgb.name.startswith("."):
            yield _Item(
                name=f"{root.name}/{rgb.stem}",
                group=root.resolve().name,
                rgb=rgb,
                depth=depths.get(rgb.stem, root / "depth" / f"{rgb.stem}.png"),
                depth_scale=shared.get("depth_scale_m") if shared else None,
                intrinsics=shared,
            )


def _read_intrinsics_file(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path} must hold an object with width, height, fx, fy, cx, cy")
    return fields


def _intrinsics(item: _Item, rgb: UInt8Image) -> Intrinsics | None:
    if item.intrinsics is None:
        return None
    height, width = rgb.shape[:2]
    fields = item.intrinsics
    try:
        camera = Intrinsics(
            int(fields.get("width", width)),
            int(fields.get("height", height)),
            *(float(fields[key]) for key in ("fx", "fy", "cx", "cy")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the intrinsics of {item.rgb} cannot be used: {error!r}") from error
    return camera if (camera.width, camera.height) == (width, height) else camera.resized(width, height)
