"""Where the maps of a prediction are written: new memory each time, or memory that the caller keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


class OutputMemory:
    """New memory for each map. A caller that keeps memory from image to image overrides `allocate`."""

    def allocate(self, field: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory for a map, which need not be cleared.

        Args:
            field: Its name in `Prediction`; metric and relative depth are both `depth`.
            shape: (H, W) or (H, W, C).
            dtype: Of its values.
        """
        return np.empty(shape, dtype)

    def allocator(self, field: str) -> Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]:
        """`allocate` for one field."""
        return lambda shape, dtype: self.allocate(field, shape, dtype)
