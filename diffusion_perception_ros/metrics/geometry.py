"""Points and surface normals from a depth map."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, Intrinsics


NORMAL_WINDOW = 21
"""Pixels. Below this, a depth camera's noise dominates the slope (on a Kinect's table, 8 degrees at 7 pixels)."""
MAX_RELATIVE_RESIDUAL = 0.01
"""Root mean square of a window's residuals, as a share of its distance, above which it holds more than one plane."""
MIN_SUPPORT = 0.6
"""Share of a window's pixels that must have depth."""


def points_from_depth(depth: FloatImage, intrinsics: Intrinsics) -> FloatImage:
    """(H, W, 3) points in the optical frame, metres; NaN where the depth is not finite."""
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(intrinsics.fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(intrinsics.fy)
    z = np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)
    return np.stack([x[None, :] * z, y[:, None] * z, z], axis=-1)


def normals_from_depth(
    depth: FloatImage,
    intrinsics: Intrinsics,
    window: int = NORMAL_WINDOW,
    max_depth: float = np.inf,
) -> FloatImage:
    """Surface normals by plane fits that do not mix surfaces.

    A plane n . P = d seen by a pinhole camera has an inverse depth that is linear in the pixel:
    1/z = (n_x x + n_y y + n_z) / d with x = (u - cx) / fx, y = (v - cy) / fy. So one least-squares fit of
    1/z = a x + b y + c per window gives the normal (a, b, c), and box filters give all windows at once. Each pixel
    then takes, among the windows that contain it (nine: centred, and shifted by half), the one with the smallest
    residual (Kuwahara's filter), which keeps normals apart at creases and depth edges.

    Args:
        depth: (H, W) metres; not finite, <= 0 or beyond `max_depth` = no data.
        window: odd side of the fitted square in pixels.

    Returns:
        (H, W, 3) unit vectors in the optical frame, facing the camera; NaN where no good window contains the pixel.
    """
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(depth) & (depth > 0) & (depth <= max_depth)
    planes, residual = _fit_planes(depth, valid, intrinsics, window)
    planes, residual = _best_of_shifted(planes, residual, window // 2)
    good = valid & (residual <= MAX_RELATIVE_RESIDUAL)
    length = np.linalg.norm(planes, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        # a x + b y + c = 1/z > 0 inside the window: (a, b, c) points away from the camera.
        normals = -planes / length
    return np.where(good[..., None], normals, np.nan).astype(np.float32)


def _fit_planes(
    depth: FloatImage, valid: npt.NDArray[np.bool_], intrinsics: Intrinsics, window: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(H, W, 3) coefficients a, b, c of every centred window, (H, W) relative residual, +Inf without support."""
    height, width = depth.shape
    x = np.broadcast_to((np.arange(width) - intrinsics.cx) / intrinsics.fx, depth.shape)
    y = np.broadcast_to(((np.arange(height) - intrinsics.cy) / intrinsics.fy)[:, None], depth.shape)
    weight = valid.astype(np.float64)
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=valid)

    def window_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        mean = cv2.boxFilter(values * weight, cv2.CV_64F, (window, window), borderType=cv2.BORDER_CONSTANT)
        return np.asarray(mean, np.float64)

    support = window_mean(np.ones(depth.shape))
    share = np.maximum(support, 1e-9)
    mean_x, mean_y, mean_i = (window_mean(values) / share for values in (x, y, inverse))
    xx = window_mean(x * x) / share - mean_x**2
    yy = window_mean(y * y) / share - mean_y**2
    xy = window_mean(x * y) / share - mean_x * mean_y
    xi = window_mean(x * inverse) / share - mean_x * mean_i
    yi = window_mean(y * inverse) / share - mean_y * mean_i
    ii = window_mean(inverse * inverse) / share - mean_i**2
    determinant = xx * yy - xy * xy
    solvable = (support >= MIN_SUPPORT) & (determinant > 1e-18)
    determinant = np.where(solvable, determinant, 1.0)
    a = (xi * yy - yi * xy) / determinant
    b = (yi * xx - xi * xy) / determinant
    c = mean_i - a * mean_x - b * mean_y
    variance = np.maximum(ii - a * xi - b * yi, 0.0)
    residual = np.where(solvable, np.sqrt(variance) / np.maximum(mean_i, 1e-9), np.inf)
    return np.stack([a, b, c], axis=-1), residual


def _best_of_shifted(
    planes: npt.NDArray[np.float64], residual: npt.NDArray[np.float64], shift: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For each pixel the plane of the nine windows shifted by -shift, 0, +shift with the smallest residual."""
    height, width = residual.shape
    best_residual, best_window = residual.copy(), np.arange(residual.size).reshape(residual.shape)
    own = best_window.copy()
    for down in (-shift, 0, shift):
        for right in (-shift, 0, shift):
            window = np.ix_(
                np.clip(np.arange(height) + down, 0, height - 1), np.clip(np.arange(width) + right, 0, width - 1)
            )
            candidate = residual[window]
            better = candidate < best_residual
            best_residual[better] = candidate[better]
            best_window[better] = own[window][better]
    return planes.reshape(-1, 3)[best_window], best_residual
