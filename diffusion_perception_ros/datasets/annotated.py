"""Finds out in which common format a folder's masks were drawn, and opens it."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion_perception_ros.datasets.coco import CocoDataset
from diffusion_perception_ros.datasets.drawn_shapes import AnnotatedDataset
from diffusion_perception_ros.datasets.labelme import LabelMeDataset
from diffusion_perception_ros.datasets.mask_pictures import CLASSES, MASKS, MaskPictureDataset
from diffusion_perception_ros.errors import InputError


def open_annotated(path: Path, background: str | None = None) -> AnnotatedDataset:
    """Pictures with drawn masks: a COCO file or the folder around it, LabelMe's files, or PNG masks.

    Args:
        background: class of the pixels outside of all drawn objects; without it they count as unlabelled.

    Raises:
        InputError: none of them; says what is looked for.
    """
    if path.is_file():
        return CocoDataset(path, background)
    if not path.is_dir():
        raise InputError(f"there is no folder or annotation file {path}")
    if (path / MASKS).is_dir():
        if background is not None:
            raise InputError(
                f"the masks of {path} say themselves what every pixel is: name '{background}' in {CLASSES}"
            )
        return MaskPictureDataset(path)
    files = [file for file in sorted(path.rglob("*.json")) if not file.name.startswith(".")]
    kinds = {file: _keys(file) for file in files}
    coco = [file for file, keys in kinds.items() if {"images", "annotations"} <= keys]
    if len(coco) == 1:
        return CocoDataset(coco[0], background)
    if coco:
        raise InputError(
            f"{path} has {len(coco)} COCO files ({', '.join(f.name for f in coco[:3])}): give one of them"
        )
    labelme = [file for file, keys in kinds.items() if "shapes" in keys]
    if labelme:
        return LabelMeDataset(path, labelme, background)
    raise InputError(
        f"{path} has no masks: it needs a COCO file, LabelMe's JSON files beside the pictures, or the folders images/ "
        f"and {MASKS}/ with {CLASSES}"
    )


def _keys(file: Path) -> frozenset[str]:
    """The top-level keys of a JSON file, none if it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(content) if isinstance(content, dict) else frozenset()
