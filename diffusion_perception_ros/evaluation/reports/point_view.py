"""A point cloud as an image: coloured points splatted from a viewpoint beside the camera's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.metrics.geometry import points_from_depth
from diffusion_perception_ros.sample import FloatImage, Intrinsics, UInt8Image


BACKGROUND = (22, 24, 29)
YAW_DEGREES, PITCH_DEGREES = 24.0, 14.0
RETREAT = 0.18
"""How far the viewpoint moves back, as a share of the distance to the middle of the scene."""
EDGE_STEP = 0.06
"""Relative depth step between neighbours above which a pixel lies on an edge and its point would float in the air."""
FAR_PERCENTILE = 98.0


def render_point_view(rgb: UInt8Image, depth: FloatImage, intrinsics: Intrinsics) -> UInt8Image:
    """The cloud seen from the right and above, looking at its middle; (H, W, 3) like the image.

    Args:
        rgb: (H, W, 3) colours of the points.
        depth: (H, W) metres; not finite or <= 0 = no point.
        intrinsics: Of the image, used for the view too.
    """
    height, width = depth.shape
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    usable = np.isfinite(depth) & (depth > 0)
    if not usable.any():
        return image
    usable &= (depth <= np.percentile(depth[usable], FAR_PERCENTILE)) & ~_on_edge(depth)
    points = points_from_depth(depth, intrinsics)[usable].astype(np.float64)
    if not len(points):
        return image
    seen, scale = _from_beside(points)
    _splat(image, seen, rgb[usable], intrinsics, scale)
    return image


def _on_edge(depth: FloatImage) -> npt.NDArray[np.bool_]:
    edge = np.zeros(depth.shape, bool)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            step = np.abs(np.diff(depth, axis=axis)) > EDGE_STEP * np.minimum(
                np.delete(depth, 0, axis), np.delete(depth, -1, axis)
            )
            padding = [(0, 0), (0, 0)]
            padding[axis] = (1, 0)
            edge |= np.pad(step, padding)
            padding[axis] = (0, 1)
            edge |= np.pad(step, padding)
    return edge


def _from_beside(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The points in the frame of the new viewpoint, and by how much each is magnified against the old one."""
    middle = np.median(points, axis=0)
    yaw, pitch = np.radians(YAW_DEGREES), np.radians(PITCH_DEGREES)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    distance = float(np.linalg.norm(middle))
    seen = (points - middle) @ (tilt @ turn).T + np.array([0.0, 0.0, distance * (1 + RETREAT)])
    with np.errstate(divide="ignore"):
        return seen, np.where(seen[:, 2] > 0, points[:, 2] / seen[:, 2], 0.0)


def _splat(
    image: UInt8Image,
    points: npt.NDArray[np.float64],
    colors: UInt8Image,
    camera: Intrinsics,
    scale: npt.NDArray[np.float64],
) -> None:
    """Paints squares, far ones first: as large as the pixel was, magnified, with a margin that closes surfaces."""
    front = points[:, 2] > 0.05 * np.median(points[:, 2])
    points, colors, scale = points[front], colors[front], scale[front]
    height, width = image.shape[:2]
    u = np.rint(camera.fx * points[:, 0] / points[:, 2] + camera.cx).astype(np.int64)
    v = np.rint(camera.fy * points[:, 1] / points[:, 2] + camera.cy).astype(np.int64)
    size = np.clip(np.ceil(scale * 1.8), 1, 6).astype(np.int64)
    order = np.argsort(-points[:, 2])
    nearest = np.full((height, width), np.inf)
    for down in range(int(size.max())):
        for right in range(int(size.max())):
            chosen = order[(size[order] > down) & (size[order] > right)]
            x, y = u[chosen] + right - size[chosen] // 2, v[chosen] + down - size[chosen] // 2
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y, chosen = x[inside], y[inside], chosen[inside]
            closer = points[chosen, 2] < nearest[y, x]
            x, y, chosen = x[closer], y[closer], chosen[closer]
            # With an index given twice the last value stays: the nearest, by the order.
            nearest[y, x] = points[chosen, 2]
            image[y, x] = colors[chosen]
