"""Procedural kitchen appliances, radiators and sanitary ware."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import (
    BLACK,
    GLASS,
    WHITE,
    metal,
    paint,
    plastic,
    wood,
    wood_or_paint,
)
from diffusion_perception_ros.world.items.shapes import Shape, box, extrude, join, lathe, sphere, tube


def appliance(builder: SceneBuilder, placements: Sequence[str]) -> Item:
    """A refrigerator, cooker or washing machine; a radiator on walls."""
    if "wall" in placements:
        return _radiator(builder)
    rng = builder.rng
    kind = builder.choice(("fridge", "oven", "washer"))
    width, depth = rng.uniform(0.55, 0.75), rng.uniform(0.55, 0.7)
    height = rng.uniform(1.4, 2.0) if kind == "fridge" else rng.uniform(0.82, 0.92)
    body = (
        WHITE if rng.random() < 0.5 else Material(np.ones(3) * rng.uniform(0.03, 0.5), builder.texture("metal"), 0.5)
    )
    parts = [Part(box((width, depth - 0.03, height), (0, 0.015, height / 2)), body)]
    front = -depth / 2
    if kind == "fridge":
        split = height * rng.uniform(0.25, 0.4)
        doors = [(0.02, split - 0.01), (split + 0.01, height - 0.01)]
        parts += [Part(box((width - 0.01, 0.04, b - a), (0, front + 0.02, (a + b) / 2)), body) for a, b in doors]
        grips = join(*(box((0.025, 0.04, 0.3), (-width * 0.42, front - 0.02, z)) for z in (split - 0.2, split + 0.25)))
        parts.append(Part(grips, metal(builder)))
    elif kind == "oven":
        parts.append(Part(box((width * 0.94, 0.03, height * 0.6), (0, front + 0.015, height * 0.42)), BLACK))
        parts.append(Part(box((width * 0.8, 0.03, 0.02), (0, front - 0.015, height * 0.74)), metal(builder)))
        knobs = [
            tube((x * width, front, height * 0.88), (x * width, front - 0.03, height * 0.88), 0.02, segments=10)
            for x in np.linspace(-0.35, 0.35, 5)
        ]
        rings = [
            tube((x * width, y * depth, height), (x * width, y * depth, height + 0.008), 0.09, segments=20)
            for x in (-0.23, 0.23)
            for y in (-0.2, 0.22)
        ]
        parts.append(Part(join(*knobs, *rings), BLACK))
    else:
        ring = lathe([(0.2, 0), (0.2, 0.04), (0.15, 0.04), (0.14, 0.02)], 28).moved(
            rotation=[[1, 0, 0], [0, 0, -1], [0, 1, 0]]
        )
        parts.append(Part(ring.moved((0, front + 0.01, height * 0.45)), metal(builder)))
        parts.append(Part(sphere((0.15, 0.06, 0.15), (0, front + 0.02, height * 0.45), 20), GLASS))
        parts.append(Part(box((width * 0.9, 0.02, 0.1), (0, front, height * 0.9)), plastic(builder)))
    return item_of("appliance", parts, height if kind != "fridge" else 0.0)


def _radiator(builder: SceneBuilder) -> Item:
    rng = builder.rng
    width, height = rng.uniform(0.5, 1.8), rng.uniform(0.4, 0.8)
    ribs = [box((0.04, 0.08, height), (x, 0, height / 2)) for x in np.arange(-width / 2, width / 2, 0.06).tolist()]
    pipes = [box((width, 0.03, 0.03), (0, 0, z)) for z in (0.04, height - 0.04)]
    return item_of(
        "appliance", [Part(join(*ribs, *pipes), WHITE if rng.random() < 0.8 else paint(builder))], elevation=0.12
    )


def sanitary(builder: SceneBuilder) -> Item:
    """A toilet, washbasin or bathtub."""
    return (_toilet, _washbasin, _bathtub)[int(builder.rng.integers(3))](builder)


def _toilet(builder: SceneBuilder) -> Item:
    rng = builder.rng
    bowl = lathe([(0, 0), (0.12, 0), (0.11, 0.2), (0.19, 0.38), (0.19, 0.4), (0.15, 0.4), (0.1, 0.25), (0, 0.22)], 24)
    stretch = np.array([1, 1.3, 1], np.float32)
    bowl = Shape(bowl.positions * stretch, bowl.normals, bowl.uvs).moved((0, -0.1, 0))
    lid_angle = rng.choice([0.0, 1.45])
    lid = extrude([(0.2 * np.cos(a), 0.26 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)], 0.02)
    c, s = np.cos(lid_angle), np.sin(lid_angle)
    lid = lid.moved((0, -0.26, 0)).moved((0, 0.16, 0.41), rotation=[[1, 0, 0], [0, c, s], [0, -s, c]])
    tank = box((0.4, 0.18, 0.4), (0, 0.27, 0.6))
    return item_of(
        "sanitary", [Part(join(bowl, tank), WHITE), Part(lid, WHITE if rng.random() < 0.7 else wood(builder))]
    )


def _washbasin(builder: SceneBuilder) -> Item:
    rng = builder.rng
    width, depth, height = rng.uniform(0.45, 0.8), rng.uniform(0.38, 0.5), 0.85
    rim = lathe([(0.1, -0.16), (0.3, -0.12), (0.5, 0), (0.46, 0), (0.3, -0.1), (0, -0.12)], 28)
    basin = Shape(rim.positions * np.array([width, depth, 1], np.float32), rim.normals, rim.uvs).moved((0, 0, height))
    foot = box((width * 0.8, depth * 0.7, height - 0.14), (0, 0.03, (height - 0.14) / 2), 1.0)
    if rng.random() < 0.5:
        foot = tube((0, 0.05, 0), (0, 0.05, height - 0.13), 0.1, 0.08, 16)
    tap = join(
        tube((0, depth * 0.4, height), (0, depth * 0.4, height + 0.14), 0.015),
        tube((0, depth * 0.4, height + 0.14), (0, depth * 0.1, height + 0.12), 0.012),
    )
    return item_of(
        "sanitary",
        [
            Part(basin, WHITE),
            Part(foot, WHITE if rng.random() < 0.5 else wood_or_paint(builder)),
            Part(tap, metal(builder)),
        ],
    )


def _bathtub(builder: SceneBuilder) -> Item:
    rng = builder.rng
    width, depth, height = rng.uniform(1.4, 1.8), rng.uniform(0.7, 0.85), rng.uniform(0.5, 0.6)
    apron = join(
        box((width, 0.06, height), (0, -(depth - 0.06) / 2, height / 2), 2.0),
        box((width, 0.06, height), (0, (depth - 0.06) / 2, height / 2), 2.0),
        box((0.06, depth, height), (-(width - 0.06) / 2, 0, height / 2), 2.0),
        box((0.06, depth, height), ((width - 0.06) / 2, 0, height / 2), 2.0),
    )
    ground = box((width - 0.1, depth - 0.1, 0.12), (0, 0, 0.06))
    tap = tube((width * 0.4, 0, height), (width * 0.4, 0, height + 0.15), 0.02)
    return item_of("sanitary", [Part(join(apron, ground), WHITE), Part(tap, metal(builder))])
