"""How a camera's image moved since the one before: where each pixel was, and how far to trust that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, UInt8Image


FLOW_WIDTH = 160
"""Pixels. The flow is found between images of this width, or their own if that is smaller."""
GREY_TOLERANCE = 16.0
"""Grey levels by which the image before may differ, once moved, where it shows the same surface."""
FLOW_TOLERANCE = 1.0
"""Pixels, at `FLOW_WIDTH`, by which the flow there and back may miss its start."""
LEAST_OVERLAP = 0.25
"""Mean trust below which the two images have nothing to do with each other: the scene was cut."""
_FINEST_SCALE = 1
"""Half the resolution is the finest that is matched, instead of a quarter: the images are small already."""
_SMALLEST = 16
"""Pixels that the flow needs in width and height."""
_PRECISION = 0.05
"""Pixels, what the flow can be trusted to at best."""
_FEWEST = 100
_SAMPLED = np.s_[::4, ::4]
"""Enough pixels for what holds for the whole image."""

Size = tuple[int, int]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Motion:
    """From the pixels of a map to the frame before, all (h, w) float32."""

    columns: FloatImage
    rows: FloatImage
    """Where each pixel was."""
    trust: FloatImage
    """In [0, 1]: 0 where it was hidden, outside, or looked different."""
    expansion: float
    """How much larger the image became: the camera came nearer by about this factor; 1 if it only turned."""

    def carry(self, image: Array, is_smooth: bool = True) -> Array:
        """A map (h, w) or (h, w, channels) of the frame before, moved onto this one."""
        interpolation = cv2.INTER_LINEAR if is_smooth else cv2.INTER_NEAREST
        return _moved(image, self.columns, self.rows, interpolation)

    def resized(self, size: Size) -> Motion:
        """The same motion for maps of another width and height."""
        height, width = self.trust.shape
        right, down = size[0] / width, size[1] / height
        # Pixel centres are at integer coordinates.
        columns = cv2.resize(self.columns, size, interpolation=cv2.INTER_LINEAR) * right + 0.5 * (right - 1)
        rows = cv2.resize(self.rows, size, interpolation=cv2.INTER_LINEAR) * down + 0.5 * (down - 1)
        trust = cv2.resize(self.trust, size, interpolation=cv2.INTER_LINEAR)
        return Motion(columns, rows, np.asarray(trust, np.float32), self.expansion)


class MotionTracker:
    """Optical flow by Dense Inverse Search (Kroeger et al., ECCV 2016), there and back, from image to image."""

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._search.setFinestScale(_FINEST_SCALE)
        self._before: UInt8Image | None = None

    def reset(self) -> None:
        """Forgets the last image."""
        self._before = None

    def track(self, rgb: UInt8Image) -> Motion | None:
        """The motion since the last image; None for the first one, another size, or another scene.

        Args:
            rgb: (H, W, 3). The motion has `FLOW_WIDTH` columns, or W if that is less.
        """
        height, width = rgb.shape[:2]
        reduced = min(FLOW_WIDTH, width)
        size = reduced, max(1, round(height * reduced / width))
        grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        before, self._before = self._before, np.asarray(grey, np.uint8)
        if before is None or before.shape != self._before.shape or min(size) < _SMALLEST:
            return None
        return self._between(before, self._before)

    def _between(self, before: UInt8Image, now: UInt8Image) -> Motion | None:
        back = self._flow(now, before)
        forth = self._flow(before, now)
        rows, columns = np.indices(now.shape, np.float32)
        x, y = columns + back[..., 0], rows + back[..., 1]
        miss = back + _moved(forth, x, y)
        trust = _fall(np.square(miss[..., 0]) + np.square(miss[..., 1]), FLOW_TOLERANCE)
        trust *= _fall(np.square(_difference(_moved(before, x, y), now)), GREY_TOLERANCE)
        height, width = now.shape
        trust[(x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)] = 0.0
        if float(trust.mean()) < LEAST_OVERLAP:
            return None
        return Motion(x, y, trust, _expansion(x, y, columns, rows, trust))

    def _flow(self, here: UInt8Image, there: UInt8Image) -> FloatImage:
        """(h, w, 2), pixels to the right and down from a place in one image to its place in the other."""
        start = np.zeros((*here.shape, 2), np.float32)
        return np.asarray(self._search.calc(here, there, start), np.float32)


def _moved(image: Array, x: FloatImage, y: FloatImage, interpolation: int = cv2.INTER_LINEAR) -> Array:
    return np.asarray(cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE))


def _fall(squared: Array, limit: float) -> FloatImage:
    """From 1 at zero over 1/2 at the limit to 0: a cheap bell."""
    return np.asarray(np.maximum(0.0, 1.0 - squared * np.float32(0.5 / limit**2)), np.float32)


def _difference(warped: Array, now: Array) -> FloatImage:
    """Grey levels by which two images differ around each pixel, apart from a change of exposure."""
    difference = now.astype(np.float32) - warped
    difference -= np.median(difference[_SAMPLED])
    return np.asarray(cv2.blur(np.abs(difference), (3, 3)), np.float32)


def _expansion(x: FloatImage, y: FloatImage, columns: FloatImage, rows: FloatImage, trust: FloatImage) -> float:
    """Scale of the similarity transform that takes the pixels before to those now, over the trusted ones.

    A camera that moves ahead by dz sees a surface at z grow by the factor z / (z - dz); turning it or moving it
    sideways leaves the size as it is.
    """
    trusted = trust[_SAMPLED] > 0.5
    if np.count_nonzero(trusted) < _FEWEST:
        return 1.0
    # A plane of complex numbers: a similarity is a factor and a shift.
    before = (x[_SAMPLED] + 1j * y[_SAMPLED])[trusted]
    now = (columns[_SAMPLED] + 1j * rows[_SAMPLED])[trusted]
    weight = np.ones(len(now))
    factor = 1.0 + 0j
    for _ in range(4):
        from_center, to_center = before - np.average(before, weights=weight), now - np.average(now, weights=weight)
        factor = np.sum(weight * from_center.conj() * to_center) / max(
            float(np.sum(weight * np.abs(from_center) ** 2)), 1e-9
        )
        residual = np.abs(to_center - factor * from_center)
        # Cauchy's weights: what moves by itself, or much nearer than the rest, loses its say.
        weight = 1.0 / (1.0 + np.square(residual / max(float(np.median(residual)), _PRECISION)))
    return float(np.abs(factor))
