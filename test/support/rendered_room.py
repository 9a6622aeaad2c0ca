"""A room in closed form: floor, ceiling, three walls, seen along its length. Nothing but geometry, no renderer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


PLANES = {
    "floor": ((0.0, -1.0, 0.0), 1.0),
    "ceiling": ((0.0, 1.0, 0.0), 1.0),
    "left wall": ((1.0, 0.0, 0.0), 1.5),
    "right wall": ((-1.0, 0.0, 0.0), 1.5),
    "back wall": ((0.0, 0.0, -1.0), 4.0),
}
"""Name → normal in the optical frame (x right, y down, z forward), facing the camera, and metres from the camera."""

FloatArray = npt.NDArray[np.float32]


def render_room(width: int, height: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp], FloatArray, FloatArray]:
    """Camera in the middle, focal length = half the width.

    Returns:
        rgb: (H, W, 3) uint8, a colour per plane, darker with distance.
        plane: (H, W), index into `PLANES`.
        normals: (H, W, 3), unit vectors in the optical frame.
        depth: (H, W), metres along z.
    """
    focal = width / 2
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(columns - width / 2) / focal, (rows - height / 2) / focal, np.ones_like(rows)], axis=-1)
    vectors = np.array([normal for normal, _ in PLANES.values()])
    distances = np.array([distance for _, distance in PLANES.values()])
    towards = -(rays @ vectors.T)  # > 0 where the ray meets the plane's front
    depths = np.where(towards > 1e-6, distances / np.maximum(towards, 1e-6), np.inf)
    plane = depths.argmin(axis=-1)
    depth = depths.min(axis=-1)
    colors = np.array([(150, 110, 70), (235, 235, 230), (90, 130, 200), (200, 90, 90), (110, 180, 110)])
    rgb = colors[plane] * (1.0 - 0.12 * depth[..., None])
    return rgb.clip(0, 255).astype(np.uint8), plane, vectors[plane].astype(np.float32), depth.astype(np.float32)
