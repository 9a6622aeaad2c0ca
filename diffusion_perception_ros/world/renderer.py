"""What a renderer gives back, and the choice between the two that there are."""

from __future__ import annotations

import logging
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

    def release(self) -> None:
        """Gives up what the renderer holds on the device."""
        ...


def create_renderer(width: int, height: int, supersample: int = 1) -> Renderer:
    """OpenGL where EGL works, else the PyTorch rasteriser, said once in the log."""
    from diffusion_perception_ros.world.opengl import EGLMissing, OpenGLRenderer

    try:
        return OpenGLRenderer(width, height, supersample)
    except EGLMissing as error:
        from diffusion_perception_ros.world.torch_renderer import TorchRenderer

        _logger.warning("Rendering with PyTorch, several times slower: %s", error)
        return TorchRenderer(width, height, supersample)


def ground_truth(
    triangles: Triangles, hit: npt.NDArray[np.int64], depth: FloatImage, normals: FloatImage
) -> tuple[FloatImage, FloatImage, UInt8Image, UInt16Image]:
    """Depth, normals, semantic and instance maps in their final conventions.

    Args:
        hit: (H, W), index of the triangle seen, -1 for sky.
        depth: (H, W), normals: (H, W, 3), anything at all where there is sky.
    """
    sky = hit < 0
    if len(triangles):
        semantic, instances = triangles.semantic[hit], triangles.instance[hit].astype(np.uint16)
    else:
        semantic, instances = np.zeros(hit.shape, np.uint8), np.zeros(hit.shape, np.uint16)
    semantic[sky], instances[sky] = CLASS_ID["sky"], 0
    depth = np.where(sky, np.float32(np.inf), depth)
    normals = np.where(sky[..., None], np.float32(np.nan), normals)
    return depth, normals, semantic, instances
