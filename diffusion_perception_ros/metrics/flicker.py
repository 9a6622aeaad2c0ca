"""How much a video's predictions flicker, and what steadying them does to moving edges.

A prediction flickers where it changes from one image to the next although the surface that it shows does not. Two
images of a static scene are tied together by the camera's motion alone: it is found from the ground-truth depth and
the optical flow of the images (Perspective-n-Point on points that move consistently), and it gives for each pixel
its place in the image before and the depth that the surface had there. What changes beyond that is

    flicker = mean |log(p_t / p_t-1) - log(z_t / z_t-1)|

over the pixels whose measured depths agree with the motion in both images, so without occlusions and moving
objects. It is a relative change: 0.02 is 2 % from image to image. The same formula with the sensor's own depth in
place of p is the noise floor of the data. (Related to the temporal alignment error of Video Depth Anything, Chen et
al., CVPR 2025, which compares warped with predicted depth in metres.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.metrics.geometry import points_from_depth
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Sample, UInt8Image


BoolImage = npt.NDArray[np.bool_]

AGREEMENT = 0.03
"""Relative difference up to which the depth measured before is that of the moved surface: noise, not an occlusion."""
EDGE_JUMP = 1.1
"""Ratio of neighbouring depths from which a pixel lies on a depth edge."""
EDGE_BAND = 5
"""Pixels around a depth edge that count as its neighbourhood."""
_GRID = 8
"""Pixels between the points that the camera's motion is found from."""
_FEWEST_POINTS = 60
_REPROJECTION = 1.0
"""Pixels by which a point may miss and still follow the camera's motion."""


@dataclass(frozen=True)
class Correspondence:
    """N pixels of an image, the places of the same surface points in the image before, and what became of them."""

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    """(N,) pixels of this image."""
    places: npt.NDArray[np.float32]
    """(N, 2), x and y in the image before."""
    change: npt.NDArray[np.float32]
    """(N,), log(z_t / z_t-1) of the surface by the camera's motion."""
    noise: float
    """Mean absolute log difference between the depth measured before and that of the motion: the noise floor."""


def correspond(before: Sample, now: Sample) -> Correspondence | None:
    """Ties two images of a clip together; None where no camera motion explains most of the surfaces seen.

    Args:
        before, now: With depth and intrinsics, of one size.
    """
    if before.depth is None or now.depth is None or now.intrinsics is None:
        return None
    points = points_from_depth(now.depth, now.intrinsics)
    motion = _camera_motion(before.rgb, now.rgb, points, now.intrinsics)
    if motion is None:
        return None
    known = np.isfinite(points[..., 2]) & (points[..., 2] > 0)
    rows, columns = np.nonzero(known)
    moved = points[known] @ motion[:3, :3].T.astype(np.float32) + motion[:3, 3].astype(np.float32)
    camera, depth = now.intrinsics, moved[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = camera.fx * moved[:, 0] / depth + camera.cx
        y = camera.fy * moved[:, 1] / depth + camera.cy
    inside = (depth > 0) & (x >= 0) & (x <= camera.width - 1) & (y >= 0) & (y <= camera.height - 1)
    places = np.stack([x, y], axis=-1)[inside].astype(np.float32)
    rows, columns, depth = rows[inside], columns[inside], depth[inside]
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.log(nearest_to_places(before.depth, places) / depth))
        agreed = difference < AGREEMENT
    if np.count_nonzero(agreed) < _FEWEST_POINTS:
        return None
    rows, columns, depth = rows[agreed], columns[agreed], depth[agreed]
    change = np.log(now.depth[rows, columns] / depth)
    return Correspondence(rows, columns, places[agreed], change, float(difference[agreed].mean()))


def _camera_motion(
    before: UInt8Image, now: UInt8Image, points: FloatImage, camera: Intrinsics
) -> npt.NDArray[np.float64] | None:
    """(4, 4) of the camera before from the camera now."""
    flow = optical_flow(now, before)
    rows, columns = (index.ravel() for index in np.mgrid[_GRID // 2 : camera.height : _GRID, 4 : camera.width : _GRID])
    seen = points[rows, columns]
    known = np.isfinite(seen[:, 2]) & (seen[:, 2] > 0)
    rows, columns, seen = rows[known], columns[known], seen[known]
    if len(seen) < _FEWEST_POINTS:
        return None
    places = np.stack([columns, rows], axis=-1) + flow[rows, columns]
    found, turn, shift, inliers = cv2.solvePnPRansac(
        seen.astype(np.float64), places.astype(np.float64), camera.matrix, None, reprojectionError=_REPROJECTION
    )
    if not found or inliers is None or len(inliers) < max(_FEWEST_POINTS, len(seen) // 4):
        return None
    chosen = inliers.ravel()
    turn, shift = cv2.solvePnPRefineLM(
        seen[chosen].astype(np.float64), places[chosen].astype(np.float64), camera.matrix, None, turn, shift
    )
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return motion


def optical_flow(here: UInt8Image, there: UInt8Image) -> FloatImage:
    """(H, W, 2), pixels right and down between two images; Dense Inverse Search (Kroeger et al., ECCV 2016)."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8) for rgb in (here, there)]
    return np.asarray(search.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32)), np.float32)


def at_places(image: FloatImage, places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) values of (H, W) at places (N, 2), x and y, between the pixels; NaN spreads to its neighbours."""
    # remap works on images of at most 32767 columns, so the places become one.
    count, columns = len(places), 4096
    padded = np.pad(places, ((0, -count % columns), (0, 0))).reshape(-1, columns, 2)
    values = cv2.remap(image, padded[..., 0].copy(), padded[..., 1].copy(), cv2.INTER_LINEAR)
    return np.asarray(values, np.float32).ravel()[:count]


def nearest_to_places(image: npt.NDArray[Any], places: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """(N,) values of the pixels (H, W) nearest to places (N, 2)."""
    columns, rows = np.rint(places).astype(np.intp).T
    return np.asarray(image[rows, columns])


def depth_change(
    before: npt.NDArray[np.floating], now: npt.NDArray[np.floating], true_change: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """(N,) relative change (of logarithms) beyond the true one; NaN where a depth is not finite and positive.

    Args:
        before, now: (N,) depth of the same surface points in two images, in one scale.
        true_change: (N,), as `Correspondence.change`.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.log(np.where(now > 0, now, np.nan)) - np.log(np.where(before > 0, before, np.nan)) - true_change
    return np.where(np.isfinite(change), change, np.nan).astype(np.float64)


def depth_edges(depth: FloatImage) -> BoolImage:
    """(H, W): pixels next to a jump of the measured depth by more than `EDGE_JUMP`; next to unknown depth none."""
    known = np.isfinite(depth) & (depth > 0)
    around = np.ones((3, 3), np.uint8)
    near = cv2.erode(np.where(known, depth, np.float32(np.inf)), around)
    far = cv2.dilate(np.where(known, depth, np.float32(0.0)), around)
    with np.errstate(over="ignore"):
        return np.asarray(known & (far > np.float32(EDGE_JUMP) * near))


def edge_band(depth: FloatImage) -> BoolImage:
    """(H, W): pixels within `EDGE_BAND` of a depth edge, where blur and ghosts show."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE_BAND + 1, 2 * EDGE_BAND + 1))
    return np.asarray(cv2.dilate(depth_edges(depth).astype(np.uint8), disc) > 0)
