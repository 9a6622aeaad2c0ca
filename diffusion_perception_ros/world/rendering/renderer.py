"""The choice between the two renderers that there are, and what both can do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.rendering.image import RenderedImage
from diffusion_perception_ros.world.rendering.opengl import EGLMissing, OpenGLRenderer
from diffusion_perception_ros.world.scene import Scene


_logger = logging.getLogger(__name__)


class Renderer(Protocol):
    """Draws scenes of one image size."""

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
    try:
        return OpenGLRenderer(width, height, supersample)
    except EGLMissing as error:
        from diffusion_perception_ros.world.rendering.torch_renderer import TorchRenderer  # PyTorch is heavy

        _logger.warning("Rendering with PyTorch, some twenty times slower: %s", error)
        return TorchRenderer(width, height, supersample)
