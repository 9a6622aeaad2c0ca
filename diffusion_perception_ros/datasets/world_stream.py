"""The synthetic world as a dataset that is rendered when it is asked for, without anything on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.generate import render_seed
from diffusion_perception_ros.world.rendering.renderer import Renderer, create_renderer


class WorldDataset(Sequence[Sample]):
    """Rendered samples of consecutive seeds. Each thread that asks gets a renderer of its own: OpenGL needs that.

    Args:
        config: what the scenes are drawn from.
        size: (width, height) in pixels.
        count: samples; sample i has the seed `seed` + i.
        seed: the first seed.
    """

    def __init__(self, config: WorldConfig, size: tuple[int, int], count: int, seed: int = 0) -> None:
        self.config, self.size, self.seeds = config, size, range(seed, seed + count)
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """One sample.

        Raises:
            InputError: none of the scenes tried for this seed could be used.
        """
        return render_seed(self.seeds[index], self.config, self._renderer).sample

    @property
    def _renderer(self) -> Renderer:
        if not hasattr(self._local, "renderer"):
            self._local.renderer = create_renderer(*self.size)
        renderer: Renderer = self._local.renderer
        return renderer
