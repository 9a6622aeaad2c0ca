"""Houses."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Material, SceneBuilder
from diffusion_perception_ros.world.items.shapes import Shape, box, extrude


def add_house(
    builder: SceneBuilder, x: float, y: float, yaw: float, width: float | None = None, depth: float | None = None
) -> None:
    """A house with windows all round, a door, and a flat or pitched roof."""
    rng = builder.rng
    width, depth = width or rng.uniform(6, 14), depth or rng.uniform(6, 12)
    storeys = int(rng.choice([1, 2, 2, 3, 3, 4, 5, 7]))
    storey = rng.uniform(2.6, 3.4)
    height = storeys * storey
    tag = builder.tag("building")
    bays = max(2, round(width / rng.uniform(2.2, 4)))
    front = Material(builder.color((0.7, 1), (0, 0.25)), builder.texture("facade"))
    body = box((width, depth, height), (0, 0, height / 2))
    counts = np.where(np.abs(body.normals[:, :1, 0:1]) > 0.5, max(2, round(depth / 3)), bays)
    uvs = body.uvs * np.concatenate([counts, np.full_like(counts, storeys)], axis=-1)
    builder.add(Shape(body.positions, body.normals, uvs.astype(np.float32)).moved((x, y, 0), yaw), tag, front)
    plinth = Material(builder.color((0.2, 0.8), (0, 0.3)), builder.texture("plaster", "slabs", "bricks"))
    base_height = rng.choice([rng.uniform(0.3, 0.9), storey])
    base = box((width + 0.06, depth + 0.06, base_height), (0, 0, base_height / 2), 0.5)
    builder.add(base.moved((x, y, 0), yaw), tag, plinth)
    opening = Material(builder.color((0.05, 0.6), (0, 0.6)), builder.texture("wood", "metal", "plaster"), 0.3)
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.choice([(1.0, 2.1), (2.4, 2.2), (1.6, 2.2)])
        shape = box((w, 0.06, h), (rng.uniform(-0.4, 0.4) * width, -depth / 2 - 0.05, h / 2))
        builder.add(shape.moved((x, y, 0), yaw), tag, opening)
    if rng.random() < 0.6:
        rise, over = rng.uniform(1.5, 4), 0.4
        gable = extrude([(-depth / 2 - over, 0), (depth / 2 + over, 0), (0, rise)], width + 0.3, 0.5)
        turned = gable.moved((-(width + 0.3) / 2, 0, 0), rotation=[[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        builder.add(
            turned.moved((0, 0, height)).moved((x, y, 0), yaw), tag, Material((0.8, 0.8, 0.8), builder.texture("roof"))
        )
