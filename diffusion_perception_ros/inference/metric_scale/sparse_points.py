"""Sparse depth as points on a prediction: which pixels were measured, how far they are, what the model says there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage


FEWEST_POINTS = 10
"""Fewer cannot tell a fit from a coincidence."""
MOST_POINTS = 20_000
"""More than these are thinned out evenly: they cost time and tell nothing new."""
_LARGEST_DEPTH = 200.0
"""Metres. A median beyond is a sensor in millimetres."""
_SMALLEST_DEPTH = 0.02
"""Metres. A median below is a sensor in metres that was taken for one in millimetres."""
_ASPECT_TOLERANCE = 0.02

FloatVector = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SparsePoints:
    """N measured pixels of a predicted image of H x W."""

    rows: Indices
    columns: Indices
    """(N,) pixel of the prediction."""
    metres: FloatVector
    """(N,) along the optical axis, finite and positive."""
    values: FloatVector
    """(N,) what the model predicts there, finite."""

    def __len__(self) -> int:
        return len(self.metres)


def sparse_points(relative: FloatImage, sparse: FloatImage) -> SparsePoints:
    """The measured pixels of `sparse` on a prediction.

    Args:
        relative: (H, W) predicted values; NaN invalid.
        sparse: (h, w) metres along the optical axis; NaN, 0 or +Inf where nothing was measured. It shows the same view
            as the prediction and may have another resolution.

    Raises:
        InputError: another view, fewer than `FEWEST_POINTS` points, or depth in another unit than metres.
    """
    height, width = relative.shape
    if abs(sparse.shape[1] * height - sparse.shape[0] * width) > max(sparse.shape) * _ASPECT_TOLERANCE * height:
        raise InputError(
            f"sparse depth of {sparse.shape[1]}x{sparse.shape[0]} pixels has another aspect ratio than the image of "
            f"{width}x{height}"
        )
    # A NaN is not larger than anything, and says so without a warning.
    with np.errstate(invalid="ignore"):
        measured = np.flatnonzero(sparse > 0)
    rows, columns = np.divmod(measured, sparse.shape[1])
    metres = sparse.reshape(-1)[measured]
    if relative.shape != sparse.shape:
        # pixel centres are at integer coordinates, so that the grids match at their outer edges
        rows = np.minimum((rows * 2 + 1) * height // (2 * sparse.shape[0]), height - 1)
        columns = np.minimum((columns * 2 + 1) * width // (2 * sparse.shape[1]), width - 1)
    values = relative[rows, columns]
    valid = np.flatnonzero(np.isfinite(values + metres))
    if len(valid) < FEWEST_POINTS:
        raise InputError(f"sparse depth has {len(valid)} points on valid predictions; {FEWEST_POINTS} are needed")
    if len(valid) > MOST_POINTS:
        valid = valid[np.linspace(0, len(valid) - 1, MOST_POINTS).astype(np.intp)]
    points = SparsePoints(rows[valid], columns[valid], metres[valid], values[valid])
    _check_unit(points.metres)
    return points


def _check_unit(metres: FloatVector) -> None:
    median = float(np.median(metres[:: max(1, len(metres) // 500)]))
    if median > _LARGEST_DEPTH:
        raise InputError(
            f"sparse depth has a median of {median:.0f} m: is it in millimetres? 32FC1 images and clouds are in metres"
        )
    if median < _SMALLEST_DEPTH:
        raise InputError(
            f"sparse depth has a median of {median:.4f} m: is it in metres? 16UC1 images are in millimetres"
        )
