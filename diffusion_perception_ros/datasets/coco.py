"""Annotation files of the COCO format, as CVAT, Label Studio, COCO Annotator, Roboflow and others export it."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets.annotation_colors import read_color
from diffusion_perception_ros.datasets.drawings import Drawing, DrawnDataset, ObjectShape, find_image
from diffusion_perception_ros.datasets.drawn_shapes import Mask, polygon_mask, rle_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture, read_values


def open_coco(path: Path, background: str | None = None) -> DrawnDataset:
    """The annotated images of a COCO file: polygons, run lengths or panoptic PNGs.

    Larger objects lie below smaller ones, as the file gives no order.

    Args:
        path: the JSON file; images are looked for beside it and in `images` or `rgb` beside or above it.
        background: class of the pixels outside of all objects; without it they count as unlabelled.

    Raises:
        InputError: not such a file, or nothing annotated in it.
    """
    content = read_json(path)
    problem = _problem(content)
    if problem:
        raise InputError(f"{path} is not an annotation file in the COCO format: {problem}")
    return _CocoFile(path, content).dataset(background)


def read_json(path: Path) -> Any:
    """Raises InputError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _problem(content: Any) -> str:
    if not isinstance(content, dict):
        return "it is no object"
    return next(
        (f"{name} is no list" for name in ("images", "annotations") if not isinstance(content.get(name), list)), ""
    )


class _CocoFile:
    """A file being read; entries that make no sense are collected, not raised."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.problems: list[str] = []
        self.names: dict[Any, str] = {}
        self.colors: dict[str, tuple[int, int, int]] = {}
        self.stuff: set[str] = set()
        for entry in _entries(content.get("categories")):
            name = str(entry.get("name", entry.get("id")))
            self.names[_key(entry.get("id"))] = name
            color = read_color(entry.get("color"))
            if color is not None:
                self.colors[name] = color
            if entry.get("isthing") in (0, False):
                self.stuff.add(name)
        self.images = {_key(entry.get("id")): entry for entry in _entries(content["images"])}
        self.shapes: dict[Any, list[ObjectShape]] = defaultdict(list)
        for number, entry in enumerate(content["annotations"]):
            self._add(entry, number)

    def dataset(self, background: str | None) -> DrawnDataset:
        drawings = [
            Drawing(
                f"{self.path.stem}/{image.get('file_name')}",
                functools.partial(self._picture, str(image.get("file_name"))),
                self.shapes[key],
                _size(image),
            )
            for key, image in self.images.items()
            if key in self.shapes
        ]
        if not drawings:
            raise InputError("; ".join([f"{self.path} has no annotated picture", *self.problems[:2]]))
        classes = tuple(dict.fromkeys(self.names.values()))
        dataset = DrawnDataset(self.path, drawings, classes, background, largest_first=True)
        dataset.colors = self.colors
        dataset.things = frozenset(self.names.values()) - self.stuff
        for problem in self.problems:
            dataset.leave_out(problem)
        return dataset

    def _picture(self, name: str) -> Any:
        return read_picture(find_image(self.path, name))

    def _add(self, entry: Any, number: int) -> None:
        name = f"annotation {entry.get('id', number) if isinstance(entry, dict) else number} of {self.path}"
        if not isinstance(entry, dict):
            self.problems.append(f"{name} is no object")
            return
        image = _key(entry.get("image_id"))
        if image not in self.images:
            self.problems.append(f"{name} belongs to the picture {entry.get('image_id')!r}, which is not listed")
        elif "segments_info" in entry:
            self._add_panoptic(entry, image, name)
        elif _key(entry.get("category_id")) not in self.names:
            self.problems.append(f"{name} has the category {entry.get('category_id')!r}, which is not named")
        else:
            label = self.names[_key(entry["category_id"])]
            draw = functools.partial(_mask, entry.get("segmentation"), bool(entry.get("bbox")), name)
            crowd = entry.get("iscrowd") in (1, True, "1")
            self.shapes[image].append(ObjectShape(label, draw, None if crowd else number))

    def _add_panoptic(self, entry: Mapping[str, Any], image: Any, name: str) -> None:
        """One PNG per image, whose colours are the ids of its segments."""
        file = str(entry.get("file_name"))
        for place, segment in enumerate(_entries(entry["segments_info"])):
            part = f"segment {segment.get('id', place)} of {name}"
            if _key(segment.get("category_id")) not in self.names:
                self.problems.append(f"{part} has the category {segment.get('category_id')!r}, which is not named")
                continue
            label = self.names[_key(segment["category_id"])]
            crowd = bool(segment.get("iscrowd")) or label in self.stuff
            draw = functools.partial(self._segment, file, segment.get("id"), part)
            self.shapes[image].append(ObjectShape(label, draw, None if crowd else (image, place)))

    def _segment(self, file: str, number: Any, name: str, size: tuple[int, int]) -> Mask:
        if not isinstance(number, int):
            raise InputError(f"{name} has no number")
        ids = _panoptic_ids(self._panoptic_file(file))
        if ids.shape != size:
            raise InputError(f"{name} is for {ids.shape[1]}x{ids.shape[0]} pixels, its picture is {size[1]}x{size[0]}")
        return np.asarray(ids == number, np.bool_)

    def _panoptic_file(self, file: str) -> Path:
        for folder in (self.path.with_suffix(""), self.path.parent, self.path.parent / "masks"):
            if (folder / file).is_file():
                return folder / file
        return find_image(self.path, file)


@functools.lru_cache(maxsize=2)
def _panoptic_ids(path: Path) -> Any:
    values = read_values(path)
    if values.ndim != 3:
        raise InputError(f"{path} is no panoptic mask: it has one channel")
    blue, green, red = (values[..., place].astype(np.int64) for place in range(3))
    return red + 256 * green + 65536 * blue


def _mask(segmentation: Any, has_box: bool, name: str, size: tuple[int, int]) -> Mask:
    """Mask of polygons, of which degenerate ones are passed over, or of run lengths."""
    if isinstance(segmentation, dict):
        counts, stored = segmentation.get("counts"), segmentation.get("size")
        if not (isinstance(counts, (str, list)) and isinstance(stored, (list, tuple)) and len(stored) == 2):
            raise InputError(f"{name} has run lengths without 'counts' and 'size'")
        return rle_mask((int(stored[0]), int(stored[1])), counts, (*size, 3), name)
    parts = segmentation if isinstance(segmentation, list) else []
    if parts and not isinstance(parts[0], (list, tuple)):
        parts = [parts]  # one polygon without the list around it
    polygons = [part for part in parts if _is_polygon(part)]
    if not polygons and has_box and not parts:
        raise InputError(f"{name} has no polygon of at least three points, only a box")
    return polygon_mask(polygons, size[1], size[0], name)


def _is_polygon(part: Any) -> bool:
    numbers = isinstance(part, (list, tuple)) and all(
        isinstance(value, (int, float)) and np.isfinite(value) for value in part
    )
    return numbers and len(part) >= 6 and len(part) % 2 == 0


def _entries(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _key(value: Any) -> Any:
    """Tools write ids as numbers or as words."""
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, (int, float)) and isinstance(height, (int, float)) and width > 0 and height > 0:
        return int(width), int(height)
    return None
