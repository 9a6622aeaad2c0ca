"""What a rendered image is: light and exact ground truth, and how it comes from the triangles that were seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image
from diffusion_perception_ros.world.labels import CLASS_ID
from diffusion_perception_ros.world.scene import Scene, Triangles


@dataclass
class RenderedImage:
    """One view of a scene: light and exact ground truth, all of the image's height H and width W."""

    radiance: FloatImage
    """(H, W, 3), linear, unbounded above; the sensor's exposure makes a photograph of it."""
    depth: FloatImage
    """(H, W), planar z in metres at the pixel's centre, +Inf where there is sky."""
    normals: FloatImage
    """(H, W, 3), unit vectors in the optical frame facing the camera, NaN where there is sky."""
    semantic: UInt8Image
    """(H, W), ids of `world.labels`."""
    instances: UInt16Image
    """(H, W), 0 = stuff."""


def check_size(scene: Scene, width: int, height: int) -> None:
    """Refuses a scene whose camera's image has another size than the renderer's.

    Raises:
        ValueError: it has.
    """
    camera = scene.camera.intrinsics
    if (camera.width, camera.height) != (width, height):
        raise ValueError(f"the scene's camera is {camera.width}x{camera.height}, the renderer {width}x{height}")


def instance_map(triangles: Triangles, hit: npt.NDArray[np.int64]) -> UInt16Image:
    """(H, W) instance ids from the indices of the triangles seen, -1 for sky."""
    if not len(triangles):
        return np.zeros(hit.shape, np.uint16)
    return np.where(hit < 0, 0, triangles.instance[hit]).astype(np.uint16)


def ground_truth(
    triangles: Triangles, hit: npt.NDArray[np.int64], depth: FloatImage, normals: FloatImage
) -> tuple[FloatImage, FloatImage, UInt8Image, UInt16Image]:
    """Depth, normals, semantic and instance maps in their final conventions.

    Args:
        hit: (H, W), index of the triangle seen, -1 for sky.
        depth: (H, W), normals: (H, W, 3), anything at all where there is sky.
    """
    sky = hit < 0
    semantic = triangles.semantic[hit] if len(triangles) else np.zeros(hit.shape, np.uint8)
    semantic[sky] = CLASS_ID["sky"]
    depth = np.where(sky, np.float32(np.inf), depth)
    normals = np.where(sky[..., None], np.float32(np.nan), normals)
    return depth, normals, semantic, instance_map(triangles, hit)
