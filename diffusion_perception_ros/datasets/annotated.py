"""Finds out in which common format a folder's masks were drawn, and opens it."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion_perception_ros.datasets.coco import open_coco, read_json
from diffusion_perception_ros.datasets.cvat import open_cvat
from diffusion_perception_ros.datasets.drawn_shapes import AnnotatedDataset
from diffusion_perception_ros.datasets.label_studio import is_label_studio, open_label_studio
from diffusion_perception_ros.datasets.labelme import open_labelme
from diffusion_perception_ros.datasets.mask_pictures import CLASSES, MASKS, MaskPictureDataset
from diffusion_perception_ros.datasets.yolo import open_yolo, yolo_file
from diffusion_perception_ros.errors import InputError


TASKS = "tasks of Label Studio"


def open_annotated(path: Path, background: str | None = None) -> AnnotatedDataset:
    """Pictures with drawn masks: a COCO file or the folder around it, LabelMe's files, or PNG masks.

    Args:
        background: class of the pixels outside of all drawn objects; without it they count as unlabelled.

    Raises:
        InputError: none of them; says what is looked for.
    """
    if path.is_file():
        return _open_file(path, background)
    if not path.is_dir():
        raise InputError(f"there is no folder or annotation file {path}")
    if (path / MASKS).is_dir():
        if background is not None:
            raise InputError(
                f"the masks of {path} say themselves what every pixel is: name '{background}' in {CLASSES}"
            )
        return MaskPictureDataset(path)
    if (names := yolo_file(path)) is not None:
        return open_yolo(names, background)
    files = [file for file in sorted(path.rglob("*.json")) if not file.name.startswith(".")]
    kinds = {file: _keys(file) for file in files}
    whole = [file for file, keys in kinds.items() if {"images", "annotations"} <= keys or TASKS in keys]
    whole += sorted(path.glob("*.xml")) or sorted(path.glob("annotations/*.xml"))
    if len(whole) == 1:
        return _open_file(whole[0], background)
    if whole:
        names_found = ", ".join(file.name for file in whole[:3])
        kind = "COCO files" if all(file.suffix == ".json" for file in whole) else "annotation files"
        raise InputError(f"{path} has {len(whole)} {kind} ({names_found}): give one of them")
    labelme = [file for file, keys in kinds.items() if "shapes" in keys]
    if labelme:
        return open_labelme(path, labelme, background)
    raise InputError(
        f"{path} has no masks: it needs a COCO file, LabelMe's or X-AnyLabeling's JSON files beside the images, a "
        "file of CVAT (XML) or Label Studio (JSON), YOLO's data.yaml with labels/, or the folders images/ and "
        f"{MASKS}/ with {CLASSES}"
    )


def _open_file(path: Path, background: str | None) -> AnnotatedDataset:
    if path.suffix.lower() == ".xml":
        return open_cvat(path, background)
    if path.suffix.lower() in (".yaml", ".yml"):
        return open_yolo(path, background)
    content = read_json(path)
    if is_label_studio(content):
        return open_label_studio(path, content, background)
    if isinstance(content, dict) and "shapes" in content:
        return open_labelme(path.parent, [path], background)
    return open_coco(path, background)


def _keys(file: Path) -> frozenset[str]:
    """The top-level keys of a JSON file, none if it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    if is_label_studio(content):
        return frozenset({TASKS})
    return frozenset(content) if isinstance(content, dict) else frozenset()
