"""What a report's images are made of: tiles with captions, colour bars, legends and embedded images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.visualization import colorize_depth
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


TILE_WIDTH = 640
"""Pixels to which images are reduced before they are embedded."""
JPEG_QUALITY = 88
SPARSE_SHARE = 0.25
"""Ground truth with less pixels than this is drawn with larger dots."""
DOT_RADIUS = 2.0
"""Pixels, of these dots."""


@dataclass(frozen=True)
class Scale:
    """A colour bar, from left to right."""

    gradient: str
    """CSS colours, separated by commas."""
    left: str
    right: str


@dataclass(frozen=True)
class Wheel:
    """A colour wheel, for directions."""

    source: str
    """Data URI."""
    text: str
    """What its rim means."""


@dataclass(frozen=True)
class Panel:
    """One image, or the reason why it is missing."""

    title: str
    caption: str = ""
    source: str | None = None
    """Data URI."""
    scale: Scale | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Name and CSS colour."""
    wheel: Wheel | None = None


def embed(image: UInt8Image, most: int = TILE_WIDTH) -> str:
    """An image (H, W, 3) RGB as a data URI, reduced to `most` pixels of width."""
    height, width = image.shape[:2]
    if width > most:
        size = (most, round(height * most / width))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def error_tile(title: str, caption: str, error: FloatImage, limit: float, unit: str) -> Panel:
    """Errors (H, W) from none (black) to `limit` and above (yellow); NaN is grey.

    Args:
        unit: `%` writes the limit as a share of one; anything else follows the number as it is.
    """
    end = f"≥ {limit:.0%}" if unit == "%" else f"≥ {limit:.3g}{unit}"
    image = colorize_depth(thickened(error), 0.0, limit, near_is_high=True)
    return Panel(title, caption, embed(image), Scale(error_gradient(), "0", end))


def thickened(values: FloatImage, radius: float = DOT_RADIUS) -> FloatImage:
    """Sparse measurements (H, W) or (H, W, C) as dots that can be seen; dense ones as they are."""
    known = np.isfinite(values if values.ndim == 2 else values[..., 0])
    if not known.any() or known.mean() >= SPARSE_SHARE:
        return values
    distance, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(nearest.max()) + 1, np.intp)
    source[nearest[known]] = np.flatnonzero(known)
    rows = values.reshape(known.size, -1)[source[nearest.reshape(-1)]]
    grown = np.array(rows, np.float32).reshape(values.shape)
    grown[distance > radius] = np.nan
    return grown


def outlines(ids: UInt8Image | UInt16Image) -> npt.NDArray[np.bool_]:
    """(H, W), the pixels at the rim of an area of one id, two wide on each side."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(ids, kernel) != cv2.erode(ids, kernel), bool)


def depth_gradient() -> str:
    """The colours of depth from near to far."""
    return _gradient(colorize_depth(np.linspace(0, 1, 9, dtype=np.float32)[None], 0.0, 1.0))


def error_gradient() -> str:
    """The colours of errors, from none to large."""
    return _gradient(colorize_depth(np.linspace(0, 1, 9, dtype=np.float32)[None], 0.0, 1.0, near_is_high=True))


def css_color(color: Sequence[int]) -> str:
    """RGB as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*(int(channel) for channel in color))


def _gradient(strip: UInt8Image) -> str:
    return ", ".join(css_color(color) for color in strip[0])
