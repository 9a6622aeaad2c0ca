"""Which of some scattered points is nearest, place by place on a grid, without a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.metric_scale.sparse_points import Indices


_FINEST = 5.0
"""Cells are doubled as long as the points remain this many cells apart, so that few cells hold two."""
_GROWTH = 3
"""Cells by which the known ones grow before the rest is looked up on a map of half the size."""
_AROUND = np.ones((3, 3), np.uint8)

Offset = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True)
class PointMap:
    """The nearest point of each cell of a grid and of a margin around it. Of two in one cell, one is left."""

    indices: npt.NDArray[np.intp]
    """(ch, cw), of the points."""
    level: int
    """Of the cells, which are 2**level places wide."""
    margin: int
    """Places around the grid."""

    @staticmethod
    def of(rows: Indices, columns: Indices, shape: tuple[int, int], spacing: float, reach: int) -> PointMap:
        """
        Args:
            rows, columns: (N,) places of the points, at least one and fewer than 65536.
            shape: Places of the grid.
            spacing: Of the points.
            reach: Places beyond the grid that will be asked for.
        """
        level = 0
        while spacing >= _FINEST * 2**level:
            level += 1
        margin = math.ceil(reach / 2**level)
        numbers = np.zeros([math.ceil(side / 2**level) + 2 * margin for side in shape], np.uint16)
        numbers[(rows >> level) + margin, (columns >> level) + margin] = np.arange(1, len(rows) + 1)
        return PointMap(_filled(numbers).astype(np.intp) - 1, level, margin << level)

    def at(self, rows: Indices, columns: Indices) -> npt.NDArray[np.intp]:
        """The nearest points of some places, which may lie in the margin."""
        row, column = (rows + self.margin) >> self.level, (columns + self.margin) >> self.level
        return np.take(self.indices, row * self.indices.shape[1] + column)

    def spread(self, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """(N, C) of the points, in rows of 1, 2, 4 or 8 bytes, as C planes: grid and margin."""
        whole = np.ascontiguousarray(values).view(f"u{values.itemsize * values.shape[1]}")[:, 0]  # one look-up for all
        cells = np.take(whole, self.indices).view(values.dtype).reshape(*self.indices.shape, values.shape[1])
        if self.level > 0:
            size = self.indices.shape[1] << self.level, self.indices.shape[0] << self.level
            cells = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)
        return list(cv2.split(cells))

    def seen_from(self, offset: Offset, shape: tuple[int, int]) -> tuple[slice, slice]:
        """The part of a plane that the places of the grid see at an offset from themselves."""
        top, left = self.margin + offset[0], self.margin + offset[1]
        return slice(top, top + shape[0]), slice(left, left + shape[1])


def mean_spacing(rows: Indices, columns: Indices, shape: tuple[int, int]) -> float:
    """Places between neighbouring points, where there are points at all."""
    taken = np.zeros(shape, np.uint8)
    taken[rows, columns] = 1
    count = cv2.countNonZero(taken)
    side = max(4, int(3 * math.sqrt(taken.size / count)))
    cells = np.zeros((-(-shape[0] // side), -(-shape[1] // side)), np.uint8)
    cells[rows // side, columns // side] = 1
    return math.sqrt(min(cv2.countNonZero(cells) * side**2, taken.size) / count)


def ring(radius: float) -> list[Offset]:
    """Here, and eight places around."""
    angles = [math.pi / 4 * step for step in range(8)]
    around = [(round(radius * math.sin(angle)), round(radius * math.cos(angle))) for angle in angles]
    return list(dict.fromkeys([(0, 0), *around]))


def _filled(numbers: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Zeros replaced by the number that is nearest, or nearly so."""
    for _ in range(_GROWTH):
        if cv2.countNonZero(numbers) == numbers.size:
            return numbers
        _fill(numbers, cv2.dilate(numbers, _AROUND))
    if cv2.countNonZero(numbers) < numbers.size:
        half = _filled(np.ascontiguousarray(numbers[::2, ::2]))
        _fill(numbers, cv2.resize(half, numbers.shape[::-1], interpolation=cv2.INTER_NEAREST))
    return numbers


def _fill(numbers: npt.NDArray[np.uint16], source: Any) -> None:
    cv2.copyTo(source, cv2.compare(numbers, np.zeros(1, np.uint16), cv2.CMP_EQ), numbers)
