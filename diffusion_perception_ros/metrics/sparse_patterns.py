"""Which pixels of a dense sensor are given away, as another sensor would have measured them."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage


BoolImage = npt.NDArray[np.bool_]

DEFAULT_ROWS = 32
RANDOM = "random"


def rows_of(pattern: str) -> int | None:
    """Scan lines of a pattern, None if it is `random`.

    Args:
        pattern: `random`, `rows` (32 scan lines) or `rowsN`, such as `rows16`.

    Raises:
        InputError: none of these.
    """
    if pattern == RANDOM:
        return None
    match = re.fullmatch(r"rows(\d{0,3})", pattern)
    rows = int(match[1] or DEFAULT_ROWS) if match else 0
    if rows < 1:
        raise InputError(f"sparse pattern '{pattern}' is unknown: give random, rows (= rows{DEFAULT_ROWS}) or rows16")
    return rows


def sparse_pattern(depth: FloatImage, share: float, pattern: str, seed: int) -> BoolImage:
    """(H, W), true where a measurement is given.

    Args:
        depth: (H, W) metres, NaN where nothing was measured.
        share: Of the measured pixels, in (0, 1).
        pattern: `random`: every pixel with the same probability. `rowsN`: a lidar's N scan lines at equal distances
            and equal steps along each, which hit what was measured there.
        seed: The same seed gives the same pixels.

    Raises:
        InputError: an unknown pattern.
    """
    rng = np.random.default_rng(seed)
    lines = rows_of(pattern)
    given: BoolImage
    if lines is None:
        given = np.isfinite(depth)
        given &= rng.random(depth.shape) < share
        return given
    height, width = depth.shape
    rows = np.unique(np.floor((np.arange(lines) + rng.random()) * height / lines).astype(np.intp))
    step = len(rows) / (share * height)
    given = np.zeros(depth.shape, np.bool_)
    for row in rows:
        columns = np.arange(rng.random() * step, width, step).astype(np.intp)
        given[row, columns] = True
    given &= np.isfinite(depth)
    return given
