"""All predictions of `diffusion-perception run` in one image, to be looked at, or shown, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import write_bytes
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.sample import UInt8Image
from diffusion_perception_ros.world.sheet import grid


CELL = (160, 120)
"""Width and height of one map."""
CAPTION = 14
"""Pixels under a frame's maps, for its name."""
GAP = 6
"""Pixels between frames."""
WIDTH = 1920
"""Pixels that a row of frames fills at most."""
MOST = 200
"""Frames on one sheet."""


class PredictionSheet:
    """A strip of small images per frame, strips side by side and below each other.

    Args:
        path: PNG or JPEG.
        with_input: Begin every strip with the input. Without, a sheet can be shown of images that cannot.

    Raises:
        InputError: `path` does not end like an image.
    """

    def __init__(self, path: Path, with_input: bool = True) -> None:
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise InputError(f"a contact sheet is a .png or .jpg, got {path}")
        self._path, self._with_input = path, with_input
        self._strips: list[UInt8Image] = []
        self.left_out = 0
        """Frames beyond `MOST`."""

    def add(self, name: str, rgb: UInt8Image, maps: Sequence[Path]) -> None:
        """Takes up a frame: its image and the files that its maps were written to."""
        if len(self._strips) == MOST:
            self.left_out += 1
            return
        images = [rgb] * self._with_input + [read_picture(file) for file in maps]
        strip = np.concatenate([_cell(image) for image in images], axis=1)
        strip = np.pad(strip, ((0, CAPTION + GAP), (0, GAP), (0, 0)), constant_values=255)
        baseline = (2, CELL[1] + CAPTION - 4)
        cv2.putText(strip, name, baseline, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)
        self._strips.append(strip)

    def write(self) -> None:
        """Writes the file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        width = max(strip.shape[1] for strip in self._strips)
        columns = min(len(self._strips), max(1, WIDTH // width))
        cells = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in self._strips]
        encoded = cv2.imencode(self._path.suffix, grid(cells, columns)[..., ::-1])[1]
        write_bytes(self._path, encoded.tobytes())


def _cell(image: UInt8Image) -> UInt8Image:
    """The whole image in a cell, on white."""
    height, width = image.shape[:2]
    scale = min(CELL[0] / width, CELL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cell = np.full((CELL[1], CELL[0], 3), 255, np.uint8)
    top, left = (CELL[1] - size[1]) // 2, (CELL[0] - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell
