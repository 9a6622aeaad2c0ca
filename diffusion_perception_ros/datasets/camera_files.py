"""Intrinsics given on the command line or in a camera calibration file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.safe_files import read_yaml
from diffusion_perception_ros.sample import Intrinsics


@dataclass(frozen=True)
class Calibration:
    """A camera's intrinsics in pixels; without a size they belong to whatever picture they are used on."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int] | None = None
    """(width, height) of the calibrated image."""
    source: str = "--camera-info"

    def for_size(self, width: int, height: int) -> Intrinsics:
        """The intrinsics of a picture of width x height, scaled if it has another resolution.

        Raises:
            InputError: the picture has another aspect ratio than the calibrated image, or the values make no camera.
        """
        calibrated = self.size or (width, height)
        if abs(calibrated[0] / calibrated[1] / (width / height) - 1.0) > 0.01:
            raise InputError(
                f"{self.source} is for {calibrated[0]}x{calibrated[1]} pixels, the picture has {width}x{height}: "
                "another aspect ratio, so it was cropped or comes from another camera"
            )
        try:
            return Intrinsics(*calibrated, self.fx, self.fy, self.cx, self.cy).resized(width, height)
        except ValueError as error:
            raise InputError(f"{self.source}: {error}") from error


def parse_calibration(text: str) -> Calibration:
    """Reads `fx,fy,cx,cy` in pixels, or a YAML file: of `camera_calibration`, or a CameraInfo message.

    Raises:
        InputError: neither; the message names the file and the field.
    """
    parts = text.split(",")
    if len(parts) == 4 and not Path(text).exists():
        try:
            fx, fy, cx, cy = map(float, parts)
        except ValueError:
            raise InputError(f"--camera-info takes a file or four numbers fx,fy,cx,cy, got '{text}'") from None
        return Calibration(fx, fy, cx, cy)
    return _read_file(Path(text))


def _read_file(path: Path) -> Calibration:
    try:
        fields = read_yaml(path, f"--camera-info: {path}")
    except FileNotFoundError as error:
        raise InputError(f"--camera-info: {path} cannot be read: {error.strerror}") from error
    if not isinstance(fields, dict):
        raise InputError(f"--camera-info: {path} is not a camera calibration: it has no fields")
    matrix: Any = fields.get("camera_matrix", fields.get("k", fields.get("K")))
    if isinstance(matrix, dict):
        matrix = matrix.get("data")
    width: Any = fields.get("image_width", fields.get("width"))
    height: Any = fields.get("image_height", fields.get("height"))
    try:
        k = [float(value) for value in matrix]
        size = int(width), int(height)
        if len(k) != 9 or min(size) <= 0 or not all(map(math.isfinite, k)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"--camera-info: {path} needs camera_matrix.data (or k) with nine numbers, image_width and image_height"
        ) from None
    if k[0] <= 0 or k[4] <= 0:
        raise InputError(f"--camera-info: {path} is uncalibrated: its focal lengths are {k[0]} and {k[4]}")
    return Calibration(k[0], k[4], k[2], k[5], size, str(path))
