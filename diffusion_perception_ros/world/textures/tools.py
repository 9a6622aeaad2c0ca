"""What procedural textures are painted with: colours, seamless noise and masonry patterns."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


SIZE = 128
Image = npt.NDArray[np.float64]
"""(128, 128) or (128, 128, 3), values in [0, 1]."""
Rng = np.random.Generator


def hsv(hue: float, saturation: float, value: float) -> npt.NDArray[np.float64]:
    """(3,) RGB of a hue in turns, saturation and value in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def tileable_noise(rng: Rng, base: int = 4, octaves: int = 5, stretch: int = 1, gain: float = 0.55) -> Image:
    """(128, 128) fractal noise in [0, 1] that repeats without a seam; `stretch` > 1 draws it out along v."""
    total = np.zeros((SIZE, SIZE))
    for octave in range(octaves):
        cells = base * 2**octave
        if cells > SIZE:
            break
        grid = rng.random((max(1, cells // stretch), cells)).astype(np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        scale_y, scale_x = SIZE / grid.shape[0], SIZE / grid.shape[1]
        big = cv2.resize(wrapped, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC)
        top, left = int(2 * scale_y), int(2 * scale_x)
        total += gain**octave * big[top : top + SIZE, left : left + SIZE]
    total -= total.min()
    return np.asarray(total / max(total.max(), 1e-9))


def unit_grid() -> tuple[Image, Image]:
    """Row and column coordinates in [0, 1)."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    return y, x


def mix(first: Image, second: Image, weight: Image) -> Image:
    """From the first colour to the second by a weight per pixel."""
    return first + (second - first) * weight[..., None]


def random_color(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Image:
    """(3,) sRGB of any hue."""
    return hsv(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def masonry(rng: Rng, columns: int, rows: int, shift: float, joint: float) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Random value per cell of a wall of stones, and where the joints are."""
    y, x = unit_grid()
    row = np.floor(y * rows).astype(int)
    along = x * columns + shift * (row % 2)
    column = np.floor(along).astype(int) % columns
    edge = joint * rows / SIZE
    joints = ((y * rows) % 1 < edge) | (along % 1 < joint * columns / SIZE)
    return rng.random((rows, columns))[row, column], joints
