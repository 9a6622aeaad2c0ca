"""People's keypoints from annotation files of COCO (cocodataset.org, data format, keypoint detection)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import JOINTS, FloatImage


Number = Annotated[float, Field(allow_inf_nan=False)]
"""JSON as Python reads it knows NaN and infinity."""


class CocoImage(BaseModel):
    """A picture, as every annotation file of COCO lists it."""

    id: int
    file_name: str
    width: int
    height: int


class _Category(BaseModel):
    id: int
    keypoints: list[str] = []


class _Person(BaseModel):
    id: int = 0
    image_id: int
    category_id: int
    keypoints: list[Number] = []


class _File(BaseModel):
    images: list[CocoImage]
    categories: list[_Category]
    annotations: list[_Person]


@dataclass(frozen=True)
class _People:
    """What a file of COCO says."""

    images: list[CocoImage]
    people: dict[int, list[FloatImage]]
    """Id of the picture to the (17, 3) joints of everybody who has one."""


def read_people(path: Path, name: str, image_id: int | None = None) -> tuple[FloatImage, tuple[int, int]]:
    """The people of one picture of a file of annotations.

    Args:
        name: File name of the picture, without folders.
        image_id: Tells pictures of one name apart.

    Returns:
        people: (people, 17, 3), see `Sample.keypoints`; those without a single joint are left out.
        size: Width and height of the picture, as the file says.

    Raises:
        InputError: the file cannot be used, or it does not have exactly one such picture.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    file = _read_file(path, changed)
    if image_id is None:
        found = [image for image in file.images if PurePosixPath(image.file_name).name == name]
    else:
        found = [image for image in file.images if image.id == image_id]
    if len(found) != 1:
        which = f"of the name {name}" if image_id is None else f"with the id {image_id}"
        raise InputError(
            f"{path} has {len(found) or 'no'} picture(s) {which}: give the item the 'image_id' of its picture"
        )
    (image,) = found
    people = file.people.get(image.id, [])
    joints = np.stack(people) if people else np.zeros((0, len(JOINTS), 3), np.float32)
    return joints, (image.width, image.height)


@lru_cache(maxsize=4)
def _read_file(path: Path, changed: int) -> _People:
    """Reads a file once; `changed`, its time of modification, makes it be read again after a change."""
    try:
        content = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path} is not a file of COCO keypoints: {field}: {problem['msg']}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a file of COCO keypoints: {error}") from error
    joints = {category.id: _joints_of(category, path) for category in content.categories if category.keypoints}
    people: dict[int, list[FloatImage]] = defaultdict(list)
    for annotation in content.annotations:
        if not annotation.keypoints:
            continue
        if annotation.category_id not in joints:
            raise InputError(f"{path} does not name the keypoints of the category {annotation.category_id}")
        person = _person(annotation, *joints[annotation.category_id], path)
        if (person[:, 2] > 0).any():
            people[annotation.image_id].append(person)
    return _People(content.images, dict(people))


def _joints_of(category: _Category, path: Path) -> tuple[list[int], int]:
    """Place of each of `JOINTS` in the category's list, -1 if it lacks it, and the length of that list."""
    places = [category.keypoints.index(name) if name in category.keypoints else -1 for name in JOINTS]
    if max(places) < 0:
        raise InputError(
            f"{path} has keypoints of other names ({', '.join(category.keypoints[:3])}, ...): those of COCO's people "
            f"are needed ({', '.join(JOINTS[:3])}, ...)"
        )
    return places, len(category.keypoints)


def _person(annotation: _Person, places: list[int], count: int, path: Path) -> FloatImage:
    """(17, 3) u, v, visibility."""
    if len(annotation.keypoints) != 3 * count:
        raise InputError(
            f"annotation {annotation.id} of {path} has {len(annotation.keypoints)} numbers for {count} keypoints: "
            "each has x, y and visibility"
        )
    rows = np.array(annotation.keypoints, np.float32).reshape(-1, 3)
    if not np.isin(rows[:, 2], (0, 1, 2)).all():
        raise InputError(f"annotation {annotation.id} of {path} has a visibility that is none of 0, 1 and 2")
    return np.stack([rows[place] if place >= 0 else np.zeros(3, np.float32) for place in places])
