"""Procedural fixtures: doors, windows, lamps, screens, stairs and what hangs on walls."""

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
    printed,
    wood,
    wood_or_paint,
)
from diffusion_perception_ros.world.items.shapes import box, join, lathe, quad, sphere, tube


def door(builder: SceneBuilder) -> Item:
    """A door leaf in its frame, with panels, a pane or plain, and a handle."""
    rng = builder.rng
    width, height, frame = rng.uniform(0.75, 1.0), rng.uniform(1.95, 2.15), rng.uniform(0.05, 0.1)
    leaf, trim = wood_or_paint(builder), wood_or_paint(builder)
    surround = join(
        box((frame, 0.08, height), (-(width + frame) / 2, 0, height / 2), 1.0),
        box((frame, 0.08, height), ((width + frame) / 2, 0, height / 2), 1.0),
        box((width + 2 * frame, 0.08, frame), (0, 0, height + frame / 2), 1.0),
    )
    parts = [Part(surround, trim), Part(box((width, 0.04, height), (0, 0.01, height / 2), 1.0), leaf)]
    style = builder.choice(("plain", "panels", "pane"))
    if style == "panels":
        rows = int(rng.integers(1, 4))
        panels = [
            box(
                (width * 0.34, 0.02, height / rows - 0.2),
                (side * width * 0.22, -0.015, (row + 0.5) * height / rows),
                1.0,
            )
            for row in range(rows)
            for side in (-1, 1)
        ]
        parts.append(Part(join(*panels), leaf))
    elif style == "pane":
        parts.append(Part(box((width * 0.6, 0.01, height * 0.4), (0, -0.015, height * 0.68)), GLASS))
    side = rng.choice([-1, 1])
    knob = join(tube((0, 0, 0), (0, -0.06, 0), 0.01), box((0.12, 0.015, 0.02), (-side * 0.05, -0.06, 0)))
    parts.append(Part(knob.moved((side * width * 0.43, -0.01, 1.02)), metal(builder)))
    return item_of("door", parts)


def window(builder: SceneBuilder) -> Item:
    """A window frame with bars; what is behind it is the room's business."""
    rng = builder.rng
    width, height, frame, depth = rng.uniform(0.6, 2.2), rng.uniform(0.6, 1.6), rng.uniform(0.04, 0.08), 0.07
    bars = [box((frame, depth, height), (side * (width - frame) / 2, 0, height / 2)) for side in (-1, 1)]
    bars += [box((width, depth, frame), (0, 0, z)) for z in (frame / 2, height - frame / 2)]
    columns, rows = max(1, int(width / rng.uniform(0.5, 1.0))), int(rng.choice([1, 1, 2, 3]))
    bars += [
        box((frame * 0.8, depth, height), (width * i / columns - width / 2, 0, height / 2)) for i in range(1, columns)
    ]
    bars += [box((width, depth, frame * 0.6), (0, 0, height * i / rows)) for i in range(1, rows)]
    if rng.random() < 0.6:
        bars.append(box((width + 0.1, 0.2, 0.03), (0, -0.05, -0.015)))  # sill
    return item_of("window", [Part(join(*bars), WHITE if rng.random() < 0.6 else wood_or_paint(builder))])


def lamp(builder: SceneBuilder, placements: Sequence[str]) -> Item:
    """A lamp for a floor, table, ceiling, wall or street."""
    rng = builder.rng
    if "outdoor" in placements:
        return _street_lamp(builder)
    radius = rng.uniform(0.08, 0.22)
    shade_height = radius * rng.uniform(0.8, 1.8)
    slope = rng.uniform(0.5, 1)
    shade = lathe([(radius, 0), (radius * slope, shade_height)], 24, (2, 1))
    glow = Material(
        builder.color((0.7, 1), (0, 0.35)), builder.texture("plaster", "fabric", "stripes"), 0, rng.uniform(0, 1.5)
    )
    if "ceiling" in placements:
        cord = rng.uniform(0.1, 0.8)
        wire = tube((0, 0, shade_height), (0, 0, shade_height + cord), 0.006, segments=6)
        return item_of("lamp", [Part(shade, glow), Part(wire, BLACK)])
    if "wall" in placements:
        arm = box((0.08, 0.12, 0.08), (0, radius + 0.04, shade_height / 2))
        return item_of("lamp", [Part(shade, glow), Part(arm, metal(builder))])
    stem = rng.uniform(1.1, 1.6) if "floor" in placements else rng.uniform(0.2, 0.4)
    foot = radius * rng.uniform(0.5, 0.9)
    pole = join(
        tube((0, 0, 0), (0, 0, 0.025), foot, segments=20),
        tube((0, 0, 0), (0, 0, stem + shade_height * 0.7), 0.012, segments=8),
    )
    return item_of("lamp", [Part(pole, metal(builder)), Part(shade.moved((0, 0, stem)), glow)])


def _street_lamp(builder: SceneBuilder) -> Item:
    rng = builder.rng
    height, reach = rng.uniform(3.5, 8), rng.choice([0.0, rng.uniform(0.6, 2)])
    pieces = [tube((0, 0, 0), (0, 0, height), 0.09, 0.05, 10)]
    if reach:
        pieces += [
            tube((0, 0, height), (0, -reach, height + 0.2), 0.04, segments=8),
            box((0.2, 0.5, 0.1), (0, -reach, height + 0.2)),
        ]
    else:
        pieces.append(sphere(0.2, (0, 0, height + 0.15), 12))
    return item_of("lamp", [Part(join(*pieces), metal(builder))])


def screen(builder: SceneBuilder, placements: Sequence[str]) -> Item:
    """A television, monitor or laptop; dark, or showing something."""
    rng = builder.rng
    width = rng.uniform(0.3, 0.6) if "top" in placements else rng.uniform(0.7, 1.4)
    height = width * rng.uniform(0.56, 0.65)
    on = rng.random() < 0.5
    shown = Material((0.8, 0.8, 0.8), builder.texture("cover", "page", "landscape"), 0.3, rng.uniform(0.3, 1.2))
    glass = shown if on else Material((0.01, 0.01, 0.012), -1, 0.7)
    base = 0.0 if "wall" in placements else 0.12 * width + 0.05
    panel = box((width, 0.035, height), (0, 0, base + height / 2))
    picture = box((width - 0.03, 0.002, height - 0.03), (0, -0.019, base + height / 2))
    parts = [Part(panel, BLACK if rng.random() < 0.8 else plastic(builder)), Part(picture, glass)]
    if base:
        stand = join(box((0.45 * width, 0.2, 0.015), (0, 0, 0.008)), box((0.06, 0.03, base), (0, 0.03, base / 2)))
        parts.append(Part(stand, BLACK))
    return item_of("screen", parts, elevation=rng.uniform(0.9, 1.4) if "wall" in placements else 0.0)


def curtain(builder: SceneBuilder) -> Item:
    """A folded cloth hanging from the ceiling side of a wall."""
    rng = builder.rng
    width, drop = rng.uniform(0.4, 1.6), rng.uniform(1.2, 2.2)
    count = max(6, int(width * 20))
    x = np.linspace(-width / 2, width / 2, count)
    y = 0.03 * np.where(np.arange(count) % 2, 1, -1)
    strips = [
        quad((x[i], y[i], drop), (x[i + 1] - x[i], y[i + 1] - y[i], 0), (0, 0, -drop), (0.3, 1))
        for i in range(count - 1)
    ]
    return item_of("curtain", [Part(join(*strips), printed(builder, "curtain", "fabric", "stripes"))], elevation=0.05)


def picture(builder: SceneBuilder) -> Item:
    """A framed picture or a board."""
    rng = builder.rng
    width, height, border = rng.uniform(0.25, 1.3), rng.uniform(0.25, 0.9), rng.uniform(0.01, 0.06)
    frame = box((width, 0.03, height), (0, 0, height / 2))
    sheet = box((width - 2 * border, 0.002, height - 2 * border), (0, -0.016, height / 2))
    shown = WHITE if rng.random() < 0.15 else printed(builder, "cover", "page", "landscape")
    return item_of("picture", [Part(frame, wood_or_paint(builder)), Part(sheet, shown)])


def wall_object(builder: SceneBuilder) -> Item:
    """A clock, a fuse box, a switch, an extinguisher or a coat rack."""
    rng = builder.rng
    kind = builder.choice(("clock", "box", "switch", "extinguisher", "rack"))
    elevation = rng.uniform(0.9, 1.6)
    if kind == "clock":
        radius = rng.uniform(0.1, 0.2)
        face = [
            tube((0, 0.02, radius), (0, -0.01, radius), radius, segments=24),
            tube((0, 0, radius), (0, -0.015, radius), radius * 0.9, segments=24),
        ]
        hands = join(
            box((0.01, 0.004, radius * 0.7), (0, -0.018, radius * 1.3)),
            box((radius * 0.5, 0.004, 0.012), (radius * 0.2, -0.018, radius)),
        )
        return item_of(
            "object", [Part(face[0], plastic(builder)), Part(face[1], WHITE), Part(hands, BLACK)], elevation=1.8
        )
    if kind == "extinguisher":
        body = join(tube((0, 0, 0), (0, 0, 0.4), 0.075, segments=16), sphere((0.075, 0.075, 0.06), (0, 0, 0.4), 16))
        valve = join(tube((0, 0, 0.42), (0, 0, 0.52), 0.02), box((0.14, 0.03, 0.02), (0.03, 0, 0.52)))
        return item_of(
            "object", [Part(body, Material((0.55, 0.02, 0.02), -1, 0.6)), Part(valve, BLACK)], elevation=0.7
        )
    if kind == "rack":
        board = box((0.8, 0.03, 0.1), (0, 0, 0.05), 1.0)
        hooks = join(*(tube((x, 0, 0.04), (x, -0.08, 0.07), 0.01, segments=6) for x in np.linspace(-0.35, 0.35, 5)))
        return item_of("object", [Part(board, wood(builder)), Part(hooks, metal(builder))], elevation=1.6)
    size = (0.08, 0.02, 0.08) if kind == "switch" else rng.uniform((0.2, 0.08, 0.25), (0.6, 0.25, 0.8))
    shape = box(size, (0, 0, float(size[2]) / 2))
    return item_of("object", [Part(shape, WHITE if rng.random() < 0.5 else paint(builder))], elevation=elevation)


def stairs(builder: SceneBuilder) -> Item:
    """A straight flight rising towards the back."""
    rng = builder.rng
    steps, width = int(rng.integers(4, 15)), rng.uniform(0.8, 1.4)
    rise, run = rng.uniform(0.16, 0.19), rng.uniform(0.25, 0.3)
    length = steps * run
    blocks = [
        box((width, run, rise * (i + 1)), (0, (i + 0.5) * run - length / 2, rise * (i + 1) / 2), 1.0)
        for i in range(steps)
    ]
    return item_of(
        "stairs",
        [Part(join(*blocks), wood_or_paint(builder) if rng.random() < 0.6 else printed(builder, "slabs", "carpet"))],
    )
