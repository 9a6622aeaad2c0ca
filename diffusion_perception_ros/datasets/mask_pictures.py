"""Masks as pictures of the same name as theirs: `images/` (or `rgb/`), `masks/` and `classes.json` side by side.

`classes.json` is a list of names, the place in it being the id in the masks (grey or palette; other ids, such as 255,
are unlabelled), or an object of names with [r, g, b], the colours of the masks (other colours are unlabelled).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.datasets.drawn_shapes import AnnotatedDataset, check_classes
from diffusion_perception_ros.datasets.label_files import read_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.sample import UNLABELLED


PICTURES, MASKS, CLASSES = ("images", "rgb"), "masks", "classes.json"

_Color = tuple[int, int, int]
_ClassFile = TypeAdapter(list[str] | dict[str, _Color])


class MaskPictureDataset(AnnotatedDataset):
    """The pictures of a folder that have a mask. They say nothing of single objects.

    Raises:
        InputError: no picture with a mask, or no usable `classes.json`.
    """

    things: frozenset[str] = frozenset()

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        path = root / CLASSES
        try:
            named = _ClassFile.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f'{path} must name the classes of the masks, such as ["floor", "door"]: {error}'
            ) from error
        self.classes = check_classes(path, tuple(named), None)
        self.colors = named if isinstance(named, dict) else {}
        masks = {mask.stem: mask for mask in sorted((root / MASKS).glob("*.png"))}
        self._pairs = [
            (picture, masks[picture.stem])
            for folder in PICTURES
            for picture in sorted((root / folder).glob("*"))
            if picture.suffix.lower() in PICTURE_SUFFIXES and picture.stem in masks
        ]
        if not self._pairs:
            raise InputError(f"{root} has no picture in images/ or rgb/ with a PNG of the same name in {MASKS}/")

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        return f"{self.path.name}/{self._pairs[index][0].stem}"

    def __getitem__(self, index: int) -> EvaluationSample:
        picture, mask = self._pairs[index]
        rgb = read_picture(picture)
        ids = read_mask(mask, rgb.shape)
        codes = [_code(self.colors[name]) for name in self.classes] if self.colors else range(len(self.classes))
        semantic = np.full(ids.shape, UNLABELLED, np.uint8)
        for number, code in enumerate(codes):
            semantic[ids == code] = number
        return EvaluationSample(
            rgb=rgb, semantic=semantic, classes=self.classes, name=self.name_of(index), group=self.group_of(index)
        )


def _code(color: _Color) -> int:
    """How `read_mask` numbers a colour."""
    return color[0] + 256 * color[1] + 65536 * color[2]
