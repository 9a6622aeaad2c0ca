"""JSON of Label Studio: polygons, boxes, ellipses and brush strokes, in per cent of the image."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets.drawings import Drawing, DrawnDataset, ObjectShape, find_image
from diffusion_perception_ros.datasets.drawn_shapes import Mask, ellipse_mask, polygon_mask, rectangle_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture


AREAS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels")


def is_label_studio(content: Any) -> bool:
    """Whether a JSON file's content is a list of Label Studio's tasks."""
    return isinstance(content, list) and any(isinstance(task, dict) and "data" in task for task in content)


def open_label_studio(path: Path, tasks: Sequence[Any], background: str | None = None) -> DrawnDataset:
    """The annotated images of an export; of several annotations of one image the first that was not cancelled.

    Raises:
        InputError: nothing is annotated.
    """
    drawings, problems = [], list[str]()
    for number, task in enumerate(task for task in tasks if isinstance(task, dict)):
        drawing = _drawing(path, task, number, problems)
        if drawing is not None:
            drawings.append(drawing)
    if not drawings:
        raise InputError("; ".join([f"{path} has no annotated picture", *problems[:2]]))
    dataset = DrawnDataset(path, drawings, background=background)
    for problem in problems:
        dataset.leave_out(problem)
    return dataset


def _drawing(path: Path, task: Mapping[str, Any], number: int, problems: list[str]) -> Drawing | None:
    data = task.get("data")
    names = [value for value in (data.values() if isinstance(data, dict) else ()) if isinstance(value, str)]
    annotations = task.get("annotations") or task.get("completions") or []
    chosen = next((entry for entry in annotations if isinstance(entry, dict) and not entry.get("was_cancelled")), None)
    if not names or chosen is None:
        return None
    image = str(data["image"]) if isinstance(data, dict) and isinstance(data.get("image"), str) else names[0]
    shapes = []
    for place, result in enumerate(chosen.get("result") or []):
        what = f"result {place} of task {task.get('id', number)} of {path}"
        value = result.get("value") if isinstance(result, dict) else None
        kind = next((kind for kind in AREAS if isinstance(value, dict) and value.get(kind)), None)
        if kind is None or not isinstance(value, dict):
            if isinstance(result, dict) and result.get("type") not in ("choices", "textarea", "labels", "rating"):
                problems.append(f"{what} has no area with a label")
            continue
        draw = functools.partial(_mask, kind, value, what)
        shapes.append(ObjectShape(str(value[kind][0]), draw, (result.get("id"), place)))
    if not shapes:
        return None
    name = f"{path.stem}/{Path(image.replace(chr(92), '/')).name}"
    return Drawing(name, lambda: read_picture(find_image(path, image)), shapes)


def _mask(kind: str, value: Mapping[str, Any], name: str, size: tuple[int, int]) -> Mask:
    height, width = size
    try:
        if kind == "brushlabels":
            return _brush(value["rle"], size, name)
        if kind == "polygonlabels":
            points = [part for x, y in value["points"] for part in (x * width / 100, y * height / 100)]
            return polygon_mask([points], width, height, name)
        turn = float(value.get("rotation") or 0)
        x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        if kind == "ellipselabels":
            return ellipse_mask((x, y), (value["radiusX"] * width / 100, value["radiusY"] * height / 100), size, turn)
        box = x, y, value["width"] * width / 100, value["height"] * height / 100
        return rectangle_mask(box, size, name, turn, about=(x, y))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be read: {error!r}") from error


def _brush(coded: Sequence[int], size: tuple[int, int], name: str) -> Mask:
    """RGBA in a bit stream of runs and literals; where alpha is not 0 something was drawn."""
    bits = np.unpackbits(np.asarray(coded, np.uint8))
    place = 0

    def number(length: int) -> int:
        nonlocal place
        if place + length > len(bits):
            raise InputError(f"the brush stroke of {name} is cut off")
        value = int("".join(map(str, bits[place : place + length].tolist())) or "0", 2)
        place += length
        return value

    count = number(32)
    if count != 4 * size[0] * size[1]:
        raise InputError(f"{name} is for {count // 4} pixels, its picture has {size[1]}x{size[0]}")
    word, lengths = number(5) + 1, [number(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        repeated = number(1)
        end = min(count, done + 1 + number(lengths[number(2)]))
        if repeated:
            values[done:end] = number(word)
        else:
            for index in range(done, end):
                values[index] = number(word)
        done = end
    return np.asarray(values.reshape(*size, 4)[..., 3] > 0, np.bool_)
