"""Ground truth of segmentation in the formats of the published sets: class ids, VOC instances, COCO panoptic.

A reader fills `semantic`, `instances`, `label_set` and `classes` of a sample from the paths `mask` and
`instance_mask`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError  # OpenCV turns palette pictures (VOC) into their colours

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED


LabelReader = Callable[[EvaluationSample, dict[str, Any]], None]


def read_mask(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """(H, W) ids of the mask of a picture of `shape`. Palettes are read as ids, colours as R + 256 G + 65536 B.

    Raises:
        InputError: missing, unreadable, or another size than the picture.
    """
    try:
        with Image.open(path) as image:
            ids = np.asarray(image).astype(np.int64)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a mask: {error}") from error
    if ids.ndim == 3:
        ids = ids[:, :, 0] + 256 * ids[:, :, 1] + 65536 * ids[:, :, 2]
    if ids.shape != shape[:2]:
        raise InputError(f"{path} is {ids.shape[1]}x{ids.shape[0]} but its picture is {shape[1]}x{shape[0]}")
    return ids


def _read_classes(folder: Path) -> tuple[str, ...]:
    path = folder / "classes.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, which names the classes of the masks, cannot be read: {error}") from error
    return tuple(str(name) for name in names)


def _class_ids(sample: EvaluationSample, fields: dict[str, Any]) -> None:
    """One id per class, named by `classes.json` above the masks' folder."""
    ids = read_mask(fields["mask"], sample.rgb.shape)
    sample.classes = _read_classes(Path(fields["mask"]).parent.parent)
    sample.semantic = np.where(ids < len(sample.classes), ids, UNLABELLED).astype(np.uint8)


def _camvid(sample: EvaluationSample, fields: dict[str, Any]) -> None:
    _class_ids(sample, fields)
    sample.label_set = "camvid"


def _voc(sample: EvaluationSample, fields: dict[str, Any]) -> None:
    _class_ids(sample, fields)
    sample.label_set = "voc"
    if "instance_mask" in fields:
        ids = read_mask(fields["instance_mask"], sample.rgb.shape)
        ids[(ids == 255) | (sample.semantic == UNLABELLED)] = UNKNOWN_INSTANCE
        sample.instances = ids.astype(np.uint16)


def _coco_panoptic(sample: EvaluationSample, fields: dict[str, Any]) -> None:
    """Segment ids in a colour picture; the JSON file of the same stem gives each segment its category."""
    ids = read_mask(fields["mask"], sample.rgb.shape)
    path = Path(fields["mask"]).with_suffix(".json")
    try:
        segments = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted({str(segment["category"]) for segment in segments})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}, which names the segments of the mask, cannot be read: {error!r}") from error
    semantic = np.full(ids.shape, UNLABELLED, np.uint8)
    instances = np.zeros(ids.shape, np.uint16)
    for number, segment in enumerate(segments, start=1):
        mask = ids == segment["id"]
        semantic[mask] = categories.index(segment["category"])
        if segment.get("iscrowd"):
            instances[mask] = UNKNOWN_INSTANCE
        elif segment.get("isthing"):
            instances[mask] = number
    instances[semantic == UNLABELLED] = UNKNOWN_INSTANCE
    sample.semantic, sample.instances = semantic, instances
    sample.classes, sample.label_set = tuple(categories), "coco_panoptic"


def _objects(sample: EvaluationSample, fields: dict[str, Any]) -> None:
    """Objects without classes. `mask_kind` says whether ids start at 1, or 1 is the table and 0 means no data."""
    ids = read_mask(fields["mask"], sample.rgb.shape)
    if "1 table" in str(fields.get("mask_kind", "")):
        unknown = ids == 0
        ids = np.maximum(ids - 1, 0)
        ids[unknown] = UNKNOWN_INSTANCE
    sample.instances = ids.astype(np.uint16)


LABEL_READERS: dict[str, LabelReader] = {
    "camvid": _camvid,
    "voc": _voc,
    "coco_panoptic": _coco_panoptic,
    "objects": _objects,
}
