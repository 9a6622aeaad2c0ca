"""Annotations of LabelMe: one JSON file per picture, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.datasets.drawn_shapes import (
    AnnotatedDataset,
    DrawnShape,
    Mask,
    check_classes,
    check_size,
    paint,
    polygon_mask,
)
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import decode_compressed
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.sample import UInt8Image


IGNORE = "__ignore__"
"""LabelMe's word for pixels that count as unlabelled."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Shape(BaseModel):
    label: str
    points: list[tuple[_Number, _Number]] = Field(min_length=1)
    shape_type: str = "polygon"
    group_id: int | None = None
    mask: str | None = None


class _File(BaseModel):
    shapes: list[_Shape]
    image_path: str = Field(alias="imagePath")
    image_data: str | None = Field(default=None, alias="imageData")
    width: int | None = Field(default=None, alias="imageWidth")
    height: int | None = Field(default=None, alias="imageHeight")


class LabelMeDataset(AnnotatedDataset):
    """Pictures annotated with LabelMe. Shapes lie over each other in the order in which they were drawn.

    Args:
        root: the folder.
        files: its JSON files.
        background: class of the pixels outside of all shapes; without it they count as unlabelled.

    Raises:
        InputError: a file that is not LabelMe's.
    """

    def __init__(self, root: Path, files: Sequence[Path], background: str | None = None) -> None:
        super().__init__(root)
        self._files, self._background = sorted(files), background
        labels = {shape.label for path in self._files for shape in _read(path).shapes} - {IGNORE}
        self.classes = check_classes(root, sorted(labels), background)
        self.colors, self.things = {}, frozenset(labels)

    def __len__(self) -> int:
        return len(self._files)

    def name_of(self, index: int) -> str:
        return f"{self.path.name}/{self._files[index].stem}"

    def __getitem__(self, index: int) -> EvaluationSample:
        path = self._files[index]
        content = _read(path)
        rgb = _picture(path, content)
        if content.width is not None and content.height is not None:
            check_size(str(path), (content.width, content.height), rgb.shape)
        objects = [_object_of(shape, place) for place, shape in enumerate(content.shapes)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(objects), start=1)}
        shapes = [
            DrawnShape(shape.label, _mask(shape, rgb.shape, f"a shape '{shape.label}' of {path}"), numbers[key])
            for shape, key in zip(content.shapes, objects, strict=True)
        ]
        semantic, instances = paint(shapes, rgb.shape, self.classes, self._background)
        return EvaluationSample(
            rgb=rgb,
            semantic=semantic,
            instances=instances,
            classes=self.classes,
            name=self.name_of(index),
            group=self.group_of(index),
        )


def _object_of(shape: _Shape, place: int) -> tuple[str, int | None, int]:
    """Shapes of one label and group are one object."""
    return (shape.label, shape.group_id, -1) if shape.group_id is not None else (shape.label, None, place)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path} is not an annotation file of LabelMe: {field}: {problem['msg']}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _picture(path: Path, content: _File) -> UInt8Image:
    """The picture file, else the copy inside the annotation."""
    named = path.parent / PureWindowsPath(content.image_path).as_posix()  # either kind of slash
    if named.is_file() or not content.image_data:
        return read_picture(named)
    try:
        return decode_compressed(base64.b64decode(content.image_data, validate=True), "jpeg")
    except (binascii.Error, InputError) as error:
        raise InputError(f"the picture inside {path} cannot be decoded: {error}") from error


def _mask(shape: _Shape, size: tuple[int, ...], name: str) -> Mask:
    height, width = size[:2]
    points = shape.points
    if shape.shape_type == "polygon":
        return polygon_mask([[value for point in points for value in point]], width, height, name)
    if shape.shape_type == "rectangle" and len(points) >= 2:
        xs, ys = zip(*points, strict=True)
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        return polygon_mask([[left, top, right, top, right, bottom, left, bottom]], width, height, name)
    if shape.shape_type == "circle" and len(points) == 2:
        (x, y), edge = points
        u, v = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
        return np.asarray(np.hypot(u - x, v - y) <= np.hypot(edge[0] - x, edge[1] - y), np.bool_)
    if shape.shape_type == "mask" and shape.mask is not None:
        return _stored_mask(shape, shape.mask, (height, width), name)
    raise InputError(f"{name} is a '{shape.shape_type}': only polygon, rectangle, circle and mask have an area")


def _stored_mask(shape: _Shape, coded: str, size: tuple[int, int], name: str) -> Mask:
    """A picture of the mask, whose upper left corner lies at the shape's first point."""
    try:
        data = np.frombuffer(base64.b64decode(coded, validate=True), np.uint8)
        patch = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except (binascii.Error, cv2.error) as error:
        raise InputError(f"the mask of {name} cannot be decoded: {error}") from error
    left, top = (round(value) for value in shape.points[0])
    if patch is None or left < 0 or top < 0 or left + patch.shape[1] > size[1] or top + patch.shape[0] > size[0]:
        raise InputError(f"the mask of {name} does not lie inside the picture of {size[1]}x{size[0]} pixels")
    mask = np.zeros(size, np.bool_)
    mask[top : top + patch.shape[0], left : left + patch.shape[1]] = patch > 0
    return mask
