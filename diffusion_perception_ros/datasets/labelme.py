"""Annotations of LabelMe: one JSON file per picture, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from diffusion_perception_ros.datasets.drawings import Drawing, DrawnDataset, ObjectShape, find_image
from diffusion_perception_ros.datasets.drawn_shapes import Mask, polygon_mask, rectangle_mask
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
    shapes: list[Any]
    image_path: str = Field(alias="imagePath")
    image_data: str | None = Field(default=None, alias="imageData")
    width: int | None = Field(default=None, alias="imageWidth")
    height: int | None = Field(default=None, alias="imageHeight")


def open_labelme(root: Path, files: Sequence[Path], background: str | None = None) -> DrawnDataset:
    """Images annotated with LabelMe or X-AnyLabeling; shapes lie over each other in the order of the file.

    Args:
        root: the folder.
        files: its JSON files; those that cannot be read cost their image.
        background: class of the pixels outside of all shapes; without it they count as unlabelled.

    Raises:
        InputError: not one file can be read.
    """
    drawings, broken, problems = [], [], list[str]()
    for path in sorted(files):
        try:
            drawings.append(_drawing(root, path, _read(path), problems))
        except InputError as error:
            broken.append((f"{root.name}/{path.stem}", str(error)))
    if not drawings:
        raise InputError(broken[0][1] if broken else f"{root} has no annotation")
    labels = {shape.label for drawing in drawings for shape in drawing.shapes} - {IGNORE}
    dataset = DrawnDataset(root, drawings, sorted(labels), background)
    dataset.things = frozenset(labels)
    for name, reason in broken:
        dataset.lose(name, reason)
    for problem in problems:
        dataset.leave_out(problem)
    return dataset


def _drawing(root: Path, path: Path, content: _File, problems: list[str]) -> Drawing:
    shapes = []
    for place, fields in enumerate(content.shapes):
        try:
            shape = _Shape.model_validate(fields)
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            problems.append(f"shape {place} of {path} cannot be read: {field}: {error.errors()[0]['msg']}")
            continue
        name = f"a shape '{shape.label}' of {path}"
        draw = functools.partial(_mask, shape, name)
        shapes.append(ObjectShape(shape.label, draw, _object_of(shape, place)))
    if content.shapes and not shapes:
        raise InputError(f"{path} has no object that can be used: {problems[-1]}")
    size = (content.width, content.height) if content.width and content.height else None
    return Drawing(f"{root.name}/{path.stem}", functools.partial(_picture, path, content), shapes, size)


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
    try:
        return read_picture(find_image(path, content.image_path))
    except InputError:
        if not content.image_data:
            raise
    try:
        return decode_compressed(base64.b64decode(content.image_data, validate=True), "jpeg")
    except (binascii.Error, InputError) as error:
        raise InputError(f"the picture inside {path} cannot be decoded: {error}") from error


def _mask(shape: _Shape, name: str, size: tuple[int, int]) -> Mask:
    height, width = size
    points = shape.points
    if shape.shape_type in ("polygon", "rotation", "quadrilateral"):
        return polygon_mask([[value for point in points for value in point]], width, height, name)
    if shape.shape_type == "rectangle" and len(points) >= 2:
        xs, ys = zip(*points, strict=True)
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        return rectangle_mask((left, top, right - left, bottom - top), (height, width), name)
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
