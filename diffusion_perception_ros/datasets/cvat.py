"""`CVAT for images` XML: polygons, boxes, ellipses and masks, with an order of depth."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from diffusion_perception_ros.datasets.annotation_colors import read_color
from diffusion_perception_ros.datasets.drawings import Drawing, DrawnDataset, ObjectShape, find_image
from diffusion_perception_ros.datasets.drawn_shapes import Mask, ellipse_mask, polygon_mask, rectangle_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture


def open_cvat(path: Path, background: str | None = None) -> DrawnDataset:
    """The annotated images of a CVAT file.

    Raises:
        InputError: not such a file, or nothing annotated in it.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path} cannot be read as XML: {error}") from error
    if root.tag != "annotations":
        raise InputError(f"{path} is not 'CVAT for images': its root is <{root.tag}>, <annotations> is needed")
    drawings = [_drawing(path, image) for image in root.iter("image") if len(image)]
    if not drawings:
        raise InputError(f"{path} has no annotated picture (video tracks are exported as 'CVAT for images', too)")
    dataset = DrawnDataset(path, drawings, background=background)
    for label in root.iter("label"):
        color = read_color(label.findtext("color"))
        if color is not None:
            dataset.colors[str(label.findtext("name"))] = color
    return dataset


def _drawing(path: Path, image: ElementTree.Element) -> Drawing:
    name = str(image.get("name"))
    shapes = sorted(image, key=lambda element: int(float(element.get("z_order") or 0)))
    drawn = []
    for place, element in enumerate(shapes):
        if element.tag == "tag":  # says something of the whole image
            continue
        group = element.get("group_id")
        key = (element.get("label"), group) if group not in (None, "", "0") else (place,)
        what = f"a {element.tag} '{element.get('label')}' on {name} of {path}"
        drawn.append(
            ObjectShape(str(element.get("label")), functools.partial(_mask, element.tag, element.attrib, what), key)
        )
    width, height = image.get("width"), image.get("height")
    size = (int(width), int(height)) if width and height else None
    return Drawing(f"{path.stem}/{name}", lambda: read_picture(find_image(path, name)), drawn, size)


def _mask(kind: str, fields: Mapping[str, str], name: str, size: tuple[int, int]) -> Mask:
    try:
        turn = float(fields.get("rotation") or 0)
        if kind == "polygon":
            points = [float(value) for pair in fields["points"].split(";") for value in pair.split(",")]
            return polygon_mask([points], size[1], size[0], name)
        if kind == "box":
            left, top, right, bottom = (float(fields[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
            return rectangle_mask((left, top, right - left, bottom - top), size, name, turn)
        if kind == "ellipse":
            x, y, a, b = (float(fields[key]) for key in ("cx", "cy", "rx", "ry"))
            return ellipse_mask((x, y), (a, b), size, turn)
        if kind == "mask":
            return _run_lengths(fields, size, name)
    except (KeyError, ValueError) as error:
        raise InputError(f"{name} cannot be read: {error!r}") from error
    raise InputError(f"{name} has no area: polygon, box, ellipse and mask have one")


def _run_lengths(fields: Mapping[str, str], size: tuple[int, int], name: str) -> Mask:
    """Row by row inside of a box, zeros first."""
    left, top, width, height = (int(float(fields[key])) for key in ("left", "top", "width", "height"))
    runs = [int(value) for value in fields["rle"].split(",")]
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        raise InputError(f"the run lengths of {name} do not add up to its {width}x{height} pixels")
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise InputError(f"the mask of {name} does not lie inside the picture of {size[1]}x{size[0]} pixels")
    mask = np.zeros(size, np.bool_)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = values.reshape(height, width)
    return mask
