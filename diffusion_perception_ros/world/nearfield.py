"""Near-field scenes: table tops, bins and shelf fronts that fill the picture, as arms and desk robots see them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.finishes import plastic
from diffusion_perception_ros.world.objects import open_box, small_thing
from diffusion_perception_ros.world.placement import Top, scatter_on
from diffusion_perception_ros.world.rooms import Room
from diffusion_perception_ros.world.shapes import box, extrude, rotation_z


View = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Eye and target."""


def build_tabletop(builder: SceneBuilder, room: Room) -> View:
    """A table in the room with little or much on it; seen obliquely from a near eye."""
    rng = builder.rng
    width, depth, height = rng.uniform(0.7, 2.2), rng.uniform(0.55, 1.2), rng.uniform(0.4, 1.0)
    center = np.array([*(rng.uniform(-0.5, 0.5, 2) * _slack(room, width, depth)), height])
    yaw = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.1)
    _add_table(builder, center, width, depth, yaw)
    top = Top((center[0], center[1], height), yaw, width * 0.48, depth * 0.47)
    crowd = rng.choice(
        [int(rng.integers(0, 4)), int(rng.integers(3, 10)), int(rng.integers(8, 26))], p=[0.35, 0.35, 0.3]
    )
    scatter_on(builder, top, int(crowd), lambda b: small_thing(b, 0.35), stacking=0.25, lying=0.25)
    return _look_down(builder, room, top, rng.uniform(0.45, 1.7), np.radians(rng.uniform(15, 75)))


def build_bin(builder: SceneBuilder, room: Room) -> View:
    """A bin, tote or drawer full of things, from above."""
    rng = builder.rng
    width, depth, height = rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.6), rng.uniform(0.08, 0.4)
    base = rng.choice([0.0, rng.uniform(0.3, 0.9)])
    x, y = rng.uniform(-0.4, 0.4, 2) * _slack(room, width, depth)
    yaw = rng.uniform(0, 2 * np.pi)
    if base > 0:
        _add_table(builder, np.array([x, y, base]), max(width, 0.8), max(depth, 0.7), yaw)
    tag = builder.tag("container" if rng.random() < 0.6 else "box")
    material = (
        plastic(builder)
        if rng.random() < 0.8
        else Material((0.8, 0.8, 0.8), builder.texture("cardboard", "wood", "metal"))
    )
    builder.add(
        open_box((width, depth, height), rng.uniform(0.004, 0.02), 2.0).moved((x, y, base), yaw), tag, material
    )
    rim = box((width + 0.03, depth + 0.03, 0.012), (0, 0, height * 0.97))
    if rng.random() < 0.4:
        for side, size in ((0, (width + 0.04, 0.02)), (1, (0.02, depth + 0.04))):
            for sign in (-1, 1):
                offset = (0, sign * (depth / 2 + 0.01)) if side == 0 else (sign * (width / 2 + 0.01), 0)
                rim = box((*size, 0.015), (*offset, height * 0.97)).moved((x, y, base), yaw)
                builder.add(rim, tag, material)
    for layer in range(int(rng.integers(1, 4))):  # things lie on and in each other
        inside = Top((x, y, base + 0.015 + layer * min(0.07, height / 3)), yaw, width * 0.46, depth * 0.45)
        scatter_on(builder, inside, int(rng.integers(4, 14)), lambda b: small_thing(b, 0.3), lying=0.6)
    rimmed = Top((x, y, base + height / 2), yaw, width / 2, depth / 2)
    return _look_down(builder, room, rimmed, rng.uniform(0.45, 1.2), np.radians(rng.uniform(45, 88)))


def build_shelf_front(builder: SceneBuilder, room: Room) -> View:
    """Shelf boards full of things along a wall, seen from arm's length."""
    rng = builder.rng
    wall = int(rng.integers(4))
    length = min(room.wall_length(wall) - 0.2, rng.uniform(1.2, 3.5))
    depth, total = rng.uniform(0.22, 0.5), min(room.height - 0.1, rng.uniform(1.2, 2.4))
    at, yaw = room.at_wall(wall, 0, depth / 2 + 0.02)
    room.plan.take(at[0], at[1], *((length / 2, depth / 2) if wall % 2 == 0 else (depth / 2, length / 2)), total)
    tag = builder.tag("shelf")
    board = Material(
        builder.color((0.3, 1), (0, 0.4)), builder.texture("wood", "plaster", "metal", "plaster"), rng.uniform(0, 0.4)
    )
    levels = int(rng.integers(3, 7))
    for x in np.linspace(-length / 2, length / 2, max(2, int(length / 0.9) + 1)):
        builder.add(box((0.025, depth, total), (x, 0, total / 2), 1.0).moved(at, yaw), tag, board)
    if rng.random() < 0.6:
        builder.add(box((length, 0.01, total), (0, depth / 2, total / 2), 1.0).moved(at, yaw), tag, board)
    for level in range(levels):
        z = 0.05 + level * (total - 0.1) / max(levels - 1, 1)
        builder.add(box((length, depth, 0.025), (0, 0, z), 1.0).moved(at, yaw), tag, board)
        top = Top((float(at[0]), float(at[1]), z + 0.0125), yaw, length * 0.49, depth * 0.5)
        gap = (total - 0.1) / max(levels - 1, 1)
        scatter_on(
            builder,
            top,
            int(length * rng.uniform(2, 14)),
            lambda b, gap=gap: _fitting(b, gap),
            stacking=0.1,
            lying=0.1,
        )
    out = rng.uniform(0.6, 1.6)
    x = rng.uniform(-0.35, 0.35) * length
    eye, _ = room.at_wall(wall, x, depth + out, rng.uniform(0.4, 1.7))
    target, _ = room.at_wall(wall, x + rng.uniform(-0.5, 0.5) * out, depth, rng.uniform(0.2, 0.8) * total)
    return eye, target


def _fitting(builder: SceneBuilder, height: float) -> Item:
    item = small_thing(builder, 0.3)
    for _ in range(4):
        if item.size[2] < height - 0.04:
            break
        item = small_thing(builder, 0.3)
    return item


def _add_table(builder: SceneBuilder, center: npt.NDArray[np.float64], width: float, depth: float, yaw: float) -> None:
    """A plain table whose top's surface is at `center`."""
    rng = builder.rng
    tag = builder.tag("table")
    thick, z = rng.uniform(0.015, 0.06), float(center[2])
    kinds = ("wood", "wood", "wood", "plaster", "plaster", "marble", "fabric", "speckle", "tiles", "metal", "stripes")
    color = builder.color((0.55, 1), (0, 0.2)) if rng.random() < 0.7 else builder.color((0.1, 0.8), (0, 0.8))
    surface = Material(color, builder.texture(*kinds), rng.choice([0, rng.uniform(0, 0.4)]))
    frame = Material(builder.color((0.05, 0.8), (0, 0.4)), -1, 0.4)
    tiling = rng.uniform(0.5, 2)
    is_round = rng.random() < 0.15
    inset = 0.68 if is_round else 1.0
    if is_round:
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        outline = np.stack([width / 2 * np.cos(angle), depth / 2 * np.sin(angle)], axis=-1)
        builder.add(extrude(outline, thick, tiling).moved(center - np.array([0, 0, thick]), yaw), tag, surface)
    else:
        builder.add(box((width, depth, thick), (0, 0, -thick / 2), tiling).moved(center, yaw), tag, surface)
    leg = rng.uniform(0.03, 0.09)
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * inset * (width / 2 - leg), sy * inset * (depth / 2 - leg)
            builder.add(box((leg, leg, z - thick), (x, y, -(z + thick) / 2)).moved(center, yaw), tag, frame)


def _look_down(builder: SceneBuilder, room: Room, top: Top, distance: float, elevation: float) -> View:
    """A view of a surface from `distance`, `elevation` radians above it, kept inside the room."""
    rng = builder.rng
    local = rng.uniform(-0.5, 0.5, 2) * (top.half_width, top.half_depth)
    target = np.array(top.center) + rotation_z(top.yaw).astype(float) @ np.array([*local, rng.uniform(0, 0.1)])
    azimuth = rng.uniform(0, 2 * np.pi)
    flat = np.cos(elevation) * distance
    eye = target + np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) * distance])
    limit = np.array([room.plan.width / 2 - 0.1, room.plan.depth / 2 - 0.1, room.height - 0.1])
    eye = np.clip(eye, [-limit[0], -limit[1], top.center[2] + 0.18], limit)
    return eye, target


def _slack(room: Room, width: float, depth: float) -> npt.NDArray[np.float64]:
    """How far the middle of something may be from the middle of the room, both ways together."""
    diagonal = np.hypot(width, depth)
    return np.maximum(np.array([room.plan.width, room.plan.depth]) - diagonal, 0.0)
