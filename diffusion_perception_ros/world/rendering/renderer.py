"""What a renderer gives back, and the choice between the two that there are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image
from diffusion_perception_ros.world.labels import CLASS_ID
from diffusion_perception_ros.world.scene import Scene, Triangles


_logger = logging.getLogger(__name__)


@dataclass
class RenderedImage:
    """One view of a scene: light and exact ground truth, all of the picture's height H and width W."""

    radiance: FloatImage
    """(H, W, 3), linear, unbounded above; the sensor's exposure makes a picture of it."""
    depth: FloatImage
    """(H, W), planar z in metres at the pixel's centre, +Inf where there is sky."""
    normals: FloatImage
    """(H, W, 3), unit vectors in the optical frame facing the camera, NaN where there is sky."""
    semantic: UInt8Image
    """(H, W), ids of `world.labels`."""
    instances: UInt16Image
    """(H, W), 0 = stuff."""


class Renderer(Protocol):
    """Draws scenes of one picture size."""

    name: str
    width: int
    height: int

    def render(self, scene: Scene) -> RenderedImage:
        """Draws the scene as its camera sees it."""
        ...

    def render_views(self, views: Sequence[Scene]) -> list[RenderedImage]:
        """Draws several views of one scene: the same triangles (one object), lights in the same places.

        The shadow maps may be shared, so that shadows are a little softer than those of `render`.
        """
        ...

    def instances(self, scene: Scene, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        """(K, H, W), the instance ids seen `offsets` (K, 2) pixels (right, down) beside the pixels' centres.

        No light is computed: several times faster than `render`.
        """
        ...

    def release(self) -> None:
        """Gives up what the renderer holds on the device."""
        ...


def create_renderer(width: int, height: int, supersample: int = 1) -> Renderer:
    """OpenGL where EGL works, else the PyTorch rasteriser, said once in the log."""
    from diffusion_perception_ros.world.rendering.opengl import EGLMissing, OpenGLRenderer

    try:
        return OpenGLRenderer(width, height, supersample)
    except EGLMissing as error:
        from diffusion_perception_ros.world.rendering.torch_renderer import TorchRenderer

        _logger.warning("Rendering with PyTorch, several times slower: %s", error)
        return TorchRenderer(width, height, supersample)


def check_size(renderer: Renderer, scene: Scene) -> None:
    """Refuses a scene whose camera's picture has another size than the renderer's.

    Raises:
        ValueError: it has.
    """
    camera = scene.camera.intrinsics
    if (camera.width, camera.height) != (renderer.width, renderer.height):
        raise ValueError(
            f"the scene's camera is {camera.width}x{camera.height}, the renderer {renderer.width}x{renderer.height}"
        )


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
