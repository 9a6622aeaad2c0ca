"""Annotation files of the COCO format (as CVAT, Label Studio and others export it): polygons and run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ValidationError

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.datasets.coco_people import CocoImage, Number
from diffusion_perception_ros.datasets.drawn_shapes import (
    AnnotatedDataset,
    DrawnShape,
    Mask,
    check_classes,
    check_size,
    paint,
    polygon_mask,
    rle_mask,
)
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture


_FOLDERS = ("", "images", "rgb", "..", "../images", "../rgb")
"""Where pictures are looked for, seen from the annotation file."""


class _Category(BaseModel):
    id: int
    name: str
    color: tuple[int, int, int] | None = None


class _RunLengths(BaseModel):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(BaseModel):
    id: int = 0
    image_id: int
    category_id: int
    segmentation: _RunLengths | list[list[Number]] = []
    iscrowd: int = 0


class _File(BaseModel):
    images: list[CocoImage]
    categories: list[_Category]
    annotations: list[_Annotation]


class CocoDataset(AnnotatedDataset):
    """The annotated pictures of a COCO file. Larger objects lie below smaller ones, as the file gives no order.

    Args:
        path: the JSON file; pictures are looked for beside it and in `images` or `rgb` beside or above it.
        background: class of the pixels outside of all objects; without it they count as unlabelled.

    Raises:
        InputError: not such a file, or nothing annotated in it.
    """

    def __init__(self, path: Path, background: str | None = None) -> None:
        super().__init__(path)
        content = _read(path)
        names = {category.id: category.name for category in content.categories}
        unknown = {annotation.category_id for annotation in content.annotations} - names.keys()
        if unknown:
            raise InputError(f"{path} has annotations of the category {min(unknown)}, which it does not name")
        self._names, self._background = names, background
        self._annotations: dict[int, list[_Annotation]] = defaultdict(list)
        for annotation in content.annotations:
            self._annotations[annotation.image_id].append(annotation)
        self._images = sorted(
            (image for image in content.images if image.id in self._annotations), key=lambda image: image.file_name
        )
        if not self._images:
            raise InputError(f"{path} has no annotated picture")
        self.classes = check_classes(path, tuple(dict.fromkeys(names.values())), background)
        self.colors = {category.name: category.color for category in content.categories if category.color}
        self.things = frozenset(names.values())

    def __len__(self) -> int:
        return len(self._images)

    def name_of(self, index: int) -> str:
        return f"{self.path.stem}/{self._images[index].file_name}"

    def __getitem__(self, index: int) -> EvaluationSample:
        image = self._images[index]
        rgb = read_picture(_find_picture(self.path, image.file_name))
        check_size(f"{image.file_name} of {self.path}", (image.width, image.height), rgb.shape)
        shapes = [
            DrawnShape(
                self._names[annotation.category_id],
                self._mask(annotation, rgb.shape),
                None if annotation.iscrowd else number,
            )
            for number, annotation in enumerate(self._annotations[image.id], start=1)
        ]
        shapes.sort(key=lambda shape: -int(shape.mask.sum()))
        semantic, instances = paint(shapes, rgb.shape, self.classes, self._background)
        return EvaluationSample(
            rgb=rgb,
            semantic=semantic,
            instances=instances,
            classes=self.classes,
            name=self.name_of(index),
            group=self.group_of(index),
        )

    def _mask(self, annotation: _Annotation, shape: tuple[int, ...]) -> Mask:
        name = f"annotation {annotation.id} of {self.path}"
        if isinstance(annotation.segmentation, _RunLengths):
            return rle_mask(annotation.segmentation.size, annotation.segmentation.counts, shape, name)
        return polygon_mask(annotation.segmentation, shape[1], shape[0], name)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path} is not an annotation file in the COCO format: {field}: {problem['msg']}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _find_picture(path: Path, name: str) -> Path:
    found = next((path.parent / folder / name for folder in _FOLDERS if (path.parent / folder / name).is_file()), None)
    if found is None:
        raise InputError(f"the picture {name} of {path} is missing: put it beside the file or into images/")
    return found
