"""Procedural chairs, stools, armchairs and sofas."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import BLACK, cloth, metal, wood
from diffusion_perception_ros.world.items.shapes import (
    Shape,
    box,
    cushion,
    ellipse,
    extrude,
    join,
    rotation_x,
    sphere,
    tube,
)


def chair(builder: SceneBuilder) -> Item:
    """A wooden chair, an office chair on castors, an armchair or a stool."""
    kind = builder.rng.choice(["chair", "office", "armchair", "stool"], p=[0.5, 0.2, 0.2, 0.1])
    return {"chair": side_chair, "office": _office_chair, "armchair": _armchair, "stool": _stool}[kind](builder)


def side_chair(builder: SceneBuilder) -> Item:
    """A wooden or metal chair on four legs, its back of slats, bars or one panel."""
    rng = builder.rng
    width, depth, seat = rng.uniform(0.38, 0.5), rng.uniform(0.38, 0.48), rng.uniform(0.42, 0.48)
    back, frame = rng.uniform(0.8, 1.05), wood(builder) if rng.random() < 0.6 else metal(builder)
    leg, lean = rng.uniform(0.022, 0.045), rng.uniform(0.0, 0.14)
    pieces = []
    for x in (-width / 2 + leg, width / 2 - leg):
        pieces.append(box((leg, leg, seat), (x, -depth / 2 + leg, seat / 2), 1.0))
        pieces.append(_post((x, depth / 2 - leg, 0), (x, depth / 2 - leg, seat), leg))
        pieces.append(_post((x, depth / 2 - leg, seat), (x, depth / 2 - leg + lean, back), leg))
    style = builder.choice(("slats", "bars", "panel"))
    low, high = seat + 0.14, back - 0.04
    count = int(rng.integers(2, 6)) if style != "panel" else 1
    for i in range(count):
        share = (i + 0.5) / count
        if style == "bars":
            x = (share - 0.5) * (width - 2 * leg)
            pieces.append(_post((x, depth / 2 - leg + lean * 0.2, low), (x, depth / 2 - leg + lean, high), leg * 0.6))
        else:
            z, size = low + share * (high - low), (high - low) / count * (0.55 if count > 1 else 1)
            pieces.append(
                box((width - leg, 0.02, size), (0, depth / 2 - leg + lean * (z - seat) / (back - seat), z), 1.0)
            )
    if style == "bars":
        pieces += [
            box((width - leg, 0.03, 0.05), (0, depth / 2 - leg + lean * share, z))
            for share, z in ((0.2, low), (1, high))
        ]
    cushion = cloth(builder) if rng.random() < 0.6 else frame
    plate = Part(box((width, depth, 0.03), (0, 0, seat), 1.5), cushion)
    return item_of("chair", [Part(join(*pieces), frame), plate], seat)


def _office_chair(builder: SceneBuilder) -> Item:
    rng = builder.rng
    seat, width = rng.uniform(0.42, 0.52), rng.uniform(0.44, 0.52)
    frame = BLACK if rng.random() < 0.7 else metal(builder)
    base = [tube((0, 0, 0.08), (0, 0, seat - 0.05), 0.025)]
    for angle in np.arange(5) * 2 * np.pi / 5:
        end = (0.3 * np.cos(angle), 0.3 * np.sin(angle), 0.06)
        base += [tube((0, 0, 0.1), end, 0.022, 0.014, 6), sphere(0.03, (end[0], end[1], 0.03), 8)]
    base.append(box((0.06, 0.02, 0.3), (0, width / 2 + 0.02, seat + 0.12)))
    if rng.random() < 0.6:
        for side in (-1, 1):
            base.append(box((0.05, 0.25, 0.03), (side * (width / 2 + 0.04), 0, seat + 0.22)))
            base.append(box((0.03, 0.04, 0.22), (side * (width / 2 + 0.04), 0.05, seat + 0.11)))
    back = rng.uniform(0.35, 0.65)
    soft = join(
        cushion((width, width, 0.09), (0, 0, seat)),
        cushion((width * 0.95, 0.08, back), (0, width / 2 + 0.03, seat + 0.15 + back / 2)),
    )
    return item_of("chair", [Part(join(*base), frame), Part(soft, cloth(builder))], seat)


def _armchair(builder: SceneBuilder) -> Item:
    item = _seating(builder, 1)
    return Item("chair", item.size, item.parts, item.top_height)


def _stool(builder: SceneBuilder) -> Item:
    rng = builder.rng
    height, radius = rng.choice([0.45, 0.65, 0.75]), rng.uniform(0.15, 0.2)
    legs = []
    for angle in np.pi / 4 + np.arange(4) * np.pi / 2:
        c, s = np.cos(angle), np.sin(angle)
        legs.append(tube((radius * c, radius * s, 0), (0.6 * radius * c, 0.6 * radius * s, height), 0.014, segments=6))
    plate = extrude(ellipse(radius, radius), 0.04, 2.0).moved((0, 0, height - 0.04))
    frame = wood(builder) if rng.random() < 0.5 else metal(builder)
    return item_of(
        "chair", [Part(join(*legs), frame), Part(plate, cloth(builder) if rng.random() < 0.5 else frame)], height
    )


def sofa(builder: SceneBuilder) -> Item:
    """Two to four seats with arms and cushions."""
    return _seating(builder, int(builder.rng.integers(2, 5)))


def _seating(builder: SceneBuilder, seats: int) -> Item:
    rng = builder.rng
    seat_width, depth, seat = rng.uniform(0.5, 0.7), rng.uniform(0.75, 0.95), rng.uniform(0.38, 0.46)
    arm, arm_height, back = rng.uniform(0.1, 0.24), rng.uniform(0.5, 0.65), rng.uniform(0.72, 0.95)
    inside = seats * seat_width
    width = inside + 2 * arm
    body = [box((width, depth, seat - 0.14), (0, 0, 0.06 + (seat - 0.14) / 2), 1.5)]
    body += [
        cushion((arm, depth, arm_height - 0.06), (side * (inside + arm) / 2, 0, 0.06 + arm_height / 2))
        for side in (-1, 1)
    ]
    body.append(cushion((inside, 0.2, back - 0.1), (0, depth / 2 - 0.1, 0.1 + back / 2)))
    soft = []
    for i in range(seats):
        x = (i + 0.5) * seat_width - inside / 2
        soft.append(cushion((seat_width - 0.01, depth - 0.2, 0.16), (x, -0.08, seat - 0.04)))
        soft.append(
            cushion((seat_width - 0.03, 0.16, back - seat), (x, depth / 2 - 0.24, seat + (back - seat) / 2 + 0.02))
        )
    fabric = cloth(builder)
    parts = [Part(join(*body), fabric), Part(join(*soft), fabric if rng.random() < 0.7 else cloth(builder))]
    for _ in range(int(rng.integers(0, 4))):
        pillow = cushion((0.4, 0.12, 0.4)).moved(rotation=rotation_x(rng.uniform(-0.5, -0.2)))
        x = rng.uniform(-0.4, 0.4) * inside
        parts.append(Part(pillow.moved((x, depth / 2 - 0.42, seat + 0.22), rng.uniform(-0.4, 0.4)), cloth(builder)))
    legs = [
        box((0.05, 0.05, 0.06), (sx * (width / 2 - 0.06), sy * (depth / 2 - 0.06), 0.03))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return item_of("sofa", [*parts, Part(join(*legs), wood(builder))], seat)


def _post(start: tuple[float, float, float], end: tuple[float, float, float], size: float) -> Shape:
    return tube(start, end, size * 0.6, segments=6)
