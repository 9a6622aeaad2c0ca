"""Objects that people drew on pictures, and the maps of classes and instances that they make."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_masks

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED, UInt8Image, UInt16Image


Mask = npt.NDArray[np.bool_]


class AnnotatedDataset(EvaluationDataset):
    """Pictures with drawn classes; samples are in the order of the pictures' names."""

    classes: tuple[str, ...]
    """Names of the ids in the samples' `semantic`."""
    colors: dict[str, tuple[int, int, int]]
    """RGB of the classes for which the annotations give one."""
    things: frozenset[str]
    """Classes whose objects are drawn one by one."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    @abstractmethod
    def __getitem__(self, index: int) -> EvaluationSample:
        """One sample with `semantic`, `classes` and, where objects are drawn one by one, `instances`."""

    def group_of(self, index: int) -> str:
        return self.path.stem


@dataclass(frozen=True)
class DrawnShape:
    """One object, or a part of one."""

    label: str
    mask: Mask
    """(H, W)"""
    instance: int | None
    """Shapes with the same number are one object; None: a crowd, whose objects cannot be told apart."""


class Painting(NamedTuple):
    """(H, W) maps."""

    semantic: UInt8Image
    """Index of the class, `UNLABELLED` where nothing is drawn."""
    instances: UInt16Image


def paint(
    shapes: Sequence[DrawnShape], shape: tuple[int, ...], classes: Sequence[str], background: str | None
) -> Painting:
    """Paints shapes over each other, the first lowest. Labels that are not among `classes` stay unlabelled.

    Args:
        shape: (H, W) or (H, W, 3) of the picture.
        background: class of the pixels outside of all shapes.
    """
    ids = {name: number for number, name in enumerate(classes)}
    rest = UNLABELLED if background is None else ids[background]
    semantic = np.full(shape[:2], rest, np.uint8)
    instances = np.full(shape[:2], UNKNOWN_INSTANCE if background is None else 0, np.uint16)
    for drawn in shapes:
        semantic[drawn.mask] = ids.get(drawn.label, UNLABELLED)
        instances[drawn.mask] = UNKNOWN_INSTANCE if drawn.instance is None else drawn.instance
    instances[semantic == UNLABELLED] = UNKNOWN_INSTANCE
    return Painting(semantic, instances)


def polygon_mask(polygons: Sequence[Sequence[float]], width: int, height: int, name: str) -> Mask:
    """(H, W) union of polygons, each [x0, y0, x1, y1, …] in pixels, as the COCO tools rasterise them.

    Raises:
        InputError: a polygon with fewer than three points.
    """
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise InputError(f"{name} has no polygon of at least three points: an area is needed")
    pieces = coco_masks.frPyObjects([list(polygon) for polygon in polygons], height, width)
    return np.asarray(coco_masks.decode(coco_masks.merge(pieces)), np.bool_)


def rectangle_mask(
    box: Sequence[float],
    size: tuple[int, int],
    name: str,
    degrees: float = 0.0,
    about: tuple[float, float] | None = None,
) -> Mask:
    """Mask of a rectangle, clockwise turned in the image.

    Args:
        box: left, top, width and height in pixels before it is turned.
        size: (H, W) of the image.
        name: of the object, for errors.
        degrees: by which it is turned.
        about: x and y of the place about which it is turned; by default its centre.
    """
    left, top, width, height = box
    x, y = (left + width / 2, top + height / 2) if about is None else about
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    turned = [
        value
        for u, v in corners
        for value in (x + (u - x) * cosine - (v - y) * sine, y + (u - x) * sine + (v - y) * cosine)
    ]
    return polygon_mask([turned], size[1], size[0], name)


def ellipse_mask(
    centre: tuple[float, float], radii: tuple[float, float], size: tuple[int, int], degrees: float = 0.0
) -> Mask:
    """Mask of size (H, W) of an ellipse, clockwise turned in the image about its centre (x, y)."""
    axes = 2 * radii[0], 2 * radii[1]
    return np.asarray(cv2.ellipse(np.zeros(size, np.uint8), (centre, axes, degrees), 1, cv2.FILLED), np.bool_)


def rle_mask(size: tuple[int, int], counts: str | list[int], shape: tuple[int, ...], name: str) -> Mask:
    """(H, W) mask of COCO's run lengths, plain or compressed.

    Args:
        size: (height, width) that the annotation says.
        shape: (H, W, 3) of the picture.

    Raises:
        InputError: another size than the picture, or damaged counts.
    """
    height, width = size
    check_size(name, (width, height), shape)
    if isinstance(counts, list) and (sum(counts) != height * width or min(counts, default=0) < 0):
        raise InputError(f"the run lengths of {name} do not add up to its {width}x{height} pixels")
    try:
        plain: dict[str, Any] = {"size": [height, width], "counts": counts}
        coded = coco_masks.frPyObjects(plain, height, width) if isinstance(counts, list) else plain
        return np.asarray(coco_masks.decode(coded), np.bool_)
    except (ValueError, TypeError) as error:
        raise InputError(f"the run lengths of {name} cannot be decoded: {error}") from error


def check_size(name: str, size: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Compares (width, height) of an annotation with the (H, W, 3) of its picture.

    Raises:
        InputError: they differ.
    """
    if size != (shape[1], shape[0]):
        raise InputError(
            f"{name} is for {size[0]}x{size[1]} pixels but its picture is {shape[1]}x{shape[0]}: "
            "annotate the picture itself, not a resized copy"
        )


def check_classes(path: Path, classes: Sequence[str], background: str | None) -> tuple[str, ...]:
    """The classes with the background's.

    Raises:
        InputError: more classes than one byte can number.
    """
    named = tuple(classes) + ((background,) if background is not None and background not in classes else ())
    if len(named) > UNLABELLED:
        raise InputError(f"{path} has {len(named)} classes, at most {UNLABELLED} are possible")
    return named
