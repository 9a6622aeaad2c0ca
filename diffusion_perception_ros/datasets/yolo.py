"""Segmentation labels of YOLO: `images/` and `labels/` side by side, polygons in shares of the image, data.yaml."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from diffusion_perception_ros.datasets.drawings import Drawing, DrawnDataset, ObjectShape
from diffusion_perception_ros.datasets.drawn_shapes import Mask, polygon_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture


NAMES = ("data.yaml", "dataset.yaml", "data.yml")


def yolo_file(root: Path) -> Path | None:
    """The file with the names of the classes, if a folder has this layout."""
    found = next((root / name for name in NAMES if (root / name).is_file()), None)
    return found if found is not None and any(root.rglob("labels")) else None


def open_yolo(path: Path, background: str | None = None) -> DrawnDataset:
    """The images that have labels; later lines lie on earlier ones.

    Args:
        path: data.yaml.
        background: class of the pixels outside of all objects; without it they count as unlabelled.

    Raises:
        InputError: no names, or no image with labels.
    """
    root = path.parent
    classes = _names(path)
    drawings, problems = [], list[str]()
    for labels in sorted(folder for folder in root.rglob("labels") if folder.is_dir()):
        for file in sorted(labels.rglob("*.txt")):
            image = _image(labels, file)
            if image is None:
                problems.append(f"{file} has no image of its name in {labels.with_name('images')}")
                continue
            shapes = _shapes(file, classes, problems)
            name = f"{root.resolve().name}/{image.relative_to(root).with_suffix('').as_posix()}"
            drawings.append(Drawing(name, functools.partial(read_picture, image), shapes))
    if not drawings:
        raise InputError("; ".join([f"{root} has no image in images/ with a file of labels/", *problems[:2]]))
    dataset = DrawnDataset(root, drawings, classes, background)
    for problem in problems:
        dataset.leave_out(problem)
    return dataset


def _names(path: Path) -> list[str]:
    try:
        names: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        if isinstance(names, dict):
            numbered = {int(number): str(name) for number, name in names.items()}
            return [numbered[number] for number in range(len(names))]
        return [str(name) for name in names]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} must name the classes, numbered from 0 on (names: [a, b] or {{0: a, 1: b}}): {error!r}"
        ) from error


def _image(labels: Path, file: Path) -> Path | None:
    folder = labels.with_name("images") / file.parent.relative_to(labels)
    return next((path for path in sorted(folder.glob("*")) if path.stem == file.stem and _is_image(path)), None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _shapes(file: Path, classes: list[str], problems: list[str]) -> list[ObjectShape]:
    shapes = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            label, *points = int(words[0]), *(float(word) for word in words[1:])
            if not 0 <= label < len(classes):
                raise ValueError(f"there is no class {label}")
            if len(points) == 4:
                raise ValueError("it is a box, which has no outline")
        except ValueError as error:
            problems.append(f"{file}:{number} cannot be used: {error}")
            continue
        draw = functools.partial(_mask, tuple(points), f"{file}:{number}")
        shapes.append(ObjectShape(classes[label], draw, number))
    return shapes


def _mask(points: tuple[float, ...], name: str, size: tuple[int, int]) -> Mask:
    scaled = [value * size[1 - place % 2] for place, value in enumerate(points)]
    return polygon_mask([scaled], size[1], size[0], name)
