"""Images with objects that people drew on them, whatever tool wrote the file: a bad object costs only that object."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from diffusion_perception_ros.datasets import EvaluationSample, Skipped
from diffusion_perception_ros.datasets.drawn_shapes import (
    AnnotatedDataset,
    DrawnShape,
    Mask,
    check_classes,
    check_size,
    paint,
)
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UInt8Image


NAMED_OBJECTS = 3
"""Objects that are named when some are left out; the others are counted."""
_FOLDERS = ("", "images", "rgb", "..", "../images", "../rgb", "../..", "JPEGImages", "data")
"""Where images are looked for, seen from the annotation file."""


@dataclass(frozen=True)
class ObjectShape:
    """One drawn object, or a part of one."""

    label: str
    draw: Callable[[tuple[int, int]], Mask]
    """(H, W) of the image → where the object is. Raises InputError, which names the object."""
    instance: Hashable = None
    """Shapes with the same key are one object; None: a crowd, whose objects cannot be told apart."""


@dataclass(frozen=True)
class Drawing:
    """One image and what was drawn on it, the lowest first."""

    name: str
    picture: Callable[[], UInt8Image]
    """Reads the image. Raises InputError."""
    shapes: Sequence[ObjectShape]
    size: tuple[int, int] | None = None
    """(width, height) that the annotation says."""


class DrawnDataset(AnnotatedDataset):
    """The images of an annotation file or folder.

    Args:
        path: the file or folder.
        drawings: what it holds.
        classes: their names in order; by default all labels, sorted.
        background: class of the pixels outside of all objects; without it they count as unlabelled.
        largest_first: the file gives no order: larger objects lie below smaller ones.

    Raises:
        InputError: nothing is annotated, or there are too many classes.
    """

    def __init__(
        self,
        path: Path,
        drawings: Sequence[Drawing],
        classes: Sequence[str] | None = None,
        background: str | None = None,
        largest_first: bool = False,
    ) -> None:
        super().__init__(path)
        self._drawings = sorted(drawings, key=lambda drawing: drawing.name)
        self._background, self._largest_first = background, largest_first
        labels = {shape.label for drawing in drawings for shape in drawing.shapes}
        self.classes = check_classes(path, sorted(labels) if classes is None else classes, background)
        self.colors = {}
        self.things = frozenset(labels)
        self._left_out: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._drawings)

    def name_of(self, index: int) -> str:
        return self._drawings[index].name

    def leave_out(self, sentence: str) -> None:
        """An object cannot be used: it is counted, and named among the first."""
        self._left_out[sentence] = None
        words = "; ".join(list(self._left_out)[:NAMED_OBJECTS])
        more = f" (and {len(self._left_out) - NAMED_OBJECTS} more)" if len(self._left_out) > NAMED_OBJECTS else ""
        self.notes[:] = [f"{len(self._left_out)} object(s) of {self.path} are left out: {words}{more}"]

    def __getitem__(self, index: int) -> EvaluationSample:
        drawing = self._drawings[index]
        rgb = drawing.picture()
        if drawing.size is not None:
            check_size(f"{drawing.name} of {self.path}", drawing.size, rgb.shape)
        shapes = self._drawn(drawing, (rgb.shape[0], rgb.shape[1]))
        if self._largest_first:
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

    def _drawn(self, drawing: Drawing, size: tuple[int, int]) -> list[DrawnShape]:
        """Raises InputError if there are objects and none of them can be used."""
        keys = (shape.instance for shape in drawing.shapes if shape.instance is not None)
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
        shapes, problems = [], []
        for shape in drawing.shapes:
            try:
                mask = np.asarray(shape.draw(size), np.bool_)
            except InputError as error:
                problems.append(str(error))
                self.leave_out(str(error))
            else:
                number = None if shape.instance is None else numbers[shape.instance]
                shapes.append(DrawnShape(shape.label, mask, number))
        if problems and not shapes:
            raise InputError(f"{drawing.name} has no object that can be used: {problems[0]}")
        return shapes

    def lose(self, name: str, reason: str) -> None:
        """A file of the set cannot be used."""
        self.damage.append(Skipped(name, reason))


def find_image(annotation: Path, named: str) -> Path:
    """The image that an annotation file names: with either slash, as a path, an address or an upload of a tool.

    Raises:
        InputError: it is not beside the annotation file nor in its folders of images.
    """
    address = urlsplit(named)
    query = parse_qs(address.query).get("d", [""])[0]
    path = unquote(query or (address.path if address.scheme or named.startswith("/data/") else named))
    relative = PureWindowsPath(path).as_posix().lstrip("/")
    base = annotation.parent if annotation.is_file() else annotation
    plain = Path(relative).name
    upload = re.sub(r"^[0-9a-f]{8}-", "", plain)  # Label Studio puts eight digits before a file's name
    for candidate in dict.fromkeys((relative, plain, upload)):
        for folder in _FOLDERS:
            if (base / folder / candidate).is_file():
                return base / folder / candidate
    if Path(path).is_file():
        return Path(path)
    raise InputError(f"the picture {plain} of {annotation} is missing: put it beside the file or into images/")
