"""Procedural furniture."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder
from diffusion_perception_ros.world.shapes import box


def make(builder: SceneBuilder, label: str) -> Item:
    """A procedural item of any thing's class."""
    rng = builder.rng
    w, d, h = rng.uniform(0.4, 1.2), rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.6)
    material = Material(np.asarray(builder.color((0.3, 1), (0, 0.5))), builder.texture("wood", "plaster"))
    return Item(label, (w, d, h), [Part(box((w, d, h), (0, 0, h / 2), 1.0), material)], h)
