"""Near-field scenes: table tops, bins and shelf fronts that fill the picture, as arms and desk robots see them.

Each builder takes a place in an unfurnished room, fills it, and returns a function that proposes views of it.
"""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.config import Range
from diffusion_perception_ros.world.items.finishes import plastic, printed
from diffusion_perception_ros.world.items.objects import open_box, small_thing
from diffusion_perception_ros.world.items.shapes import box, extrude, rotation_z
from diffusion_perception_ros.world.scenes.cameras import Proposal, View
from diffusion_perception_ros.world.scenes.placement import Top, half_extents, place_freely, scatter_on, top_of
from diffusion_perception_ros.world.scenes.rooms import Room


_MESH_SHARE = 0.35
"""Catalogue meshes among the small things; the rest is procedural."""


def build_tabletop(builder: SceneBuilder, room: Room) -> Proposal:
    """A table with little or much on it, seen obliquely from near, with or without chairs."""
    rng = builder.rng
    top = add_table(builder, room, (0.7, 2.2), (0.55, 1.2), (0.4, 1.0))
    few, some, many = (int(rng.integers(low, high)) for low, high in ((0, 4), (3, 10), (8, 26)))
    count = int(rng.choice([few, some, many], p=[0.35, 0.35, 0.3]))
    scatter_on(builder, top, count, _small_thing, stacking=0.25, lying=0.25)
    if top.center[2] > 0.6 and rng.random() < 0.5:
        _add_chairs(builder, room, top)
    return lambda: look_down(builder, room, top, (0.45, 2.0), (15.0, 82.0))


def build_desk(builder: SceneBuilder, room: Room) -> Proposal:
    """A long plain table, mostly with its back to a wall, and a few things on it; looked down on obliquely."""
    rng = builder.rng
    width, depth, height = rng.uniform(1.3, 3.0), rng.uniform(0.7, 1.3), rng.uniform(0.65, 0.95)
    wall = int(rng.integers(4))
    slack = max(room.wall_length(wall) - width, 0) / 2
    out = depth / 2 + (0.02 if rng.random() < 0.65 else rng.uniform(0.02, 1.5))
    at, yaw = room.at_wall(wall, rng.uniform(-slack, slack), out)
    x, y = float(at[0]), float(at[1])
    half_x, half_y = half_extents(Item("table", (width, depth, height)), yaw)
    room.plan.take(x, y, half_x, half_y, height)
    add_plain_table(builder, (x, y, height), width, depth, yaw)
    top = Top((x, y, height), yaw, width * 0.48, depth * 0.47)
    count = int(rng.choice([rng.integers(1, 6), rng.integers(4, 14)], p=[0.6, 0.4]))
    scatter_on(builder, top, count, lambda b: small_thing(b, 0.15), stacking=0.35, lying=0.25)
    if rng.random() < 0.6:
        _add_chairs(builder, room, top)

    def propose() -> View:
        for _ in range(8):  # a wall may push the camera up to where it looks straight down
            eye, target = look_down(builder, room, top, (0.5, 1.5), (20.0, 55.0))
            if eye[2] - target[2] < 1.5 * np.hypot(*(eye - target)[:2]):
                break
        return eye, target

    return propose


def build_bin(builder: SceneBuilder, room: Room) -> Proposal:
    """A bin, tote or drawer full of things on the floor or on a table, from above."""
    rng = builder.rng
    width, depth, height = rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.6), rng.uniform(0.08, 0.4)
    if rng.random() < 0.5:
        table = add_table(builder, room, (0.9, 1.6), (0.7, 1.1), (0.3, 0.9))
        (x, y, base), yaw = table.center, table.yaw
    else:
        x, y = rng.uniform(-0.35, 0.35, 2) * (room.plan.width - width, room.plan.depth - width)
        base, yaw = 0.0, rng.uniform(0, 2 * np.pi)
        room.plan.take(float(x), float(y), width / 2, width / 2, height)
    tag = builder.tag("container" if rng.random() < 0.6 else "box")
    material = plastic(builder) if rng.random() < 0.8 else printed(builder, "cardboard", "wood", "metal")
    builder.add(
        open_box((width, depth, height), rng.uniform(0.004, 0.02), 2.0).moved((x, y, base), yaw), tag, material
    )
    if rng.random() < 0.4:  # a rim to grip
        for side in (-1, 1):
            for bar, offset in (
                ((width + 0.04, 0.02, 0.015), (0, side * depth / 2, height)),
                ((0.02, depth + 0.04, 0.015), (side * width / 2, 0, height)),
            ):
                builder.add(box(bar, offset).moved((x, y, base), yaw), tag, material)
    for layer in range(int(rng.integers(1, 4))):  # things lie on and in each other
        inside = Top((x, y, base + 0.015 + layer * min(0.07, height / 3)), yaw, width * 0.46, depth * 0.45)
        scatter_on(builder, inside, int(rng.integers(4, 14)), _small_thing, lying=0.6)
    middle = Top((x, y, base + height / 2), yaw, width / 2, depth / 2)
    return lambda: look_down(builder, room, middle, (0.4, 1.2), (45.0, 89.0))


def build_portrait(builder: SceneBuilder, room: Room) -> Proposal:
    """One to three people, seen from a few steps away at about the height of their heads."""
    rng = builder.rng
    people = [builder.pick("person", "floor") for _ in range(int(rng.integers(1, 4)))]
    spots = [(place_freely(builder, room.plan, somebody), somebody) for somebody in people]
    standing = [(spot, somebody.size[2]) for spot, somebody in spots if spot is not None]
    if not standing:
        raise ValueError("the room has no space for anybody")
    limits = np.array([room.plan.width, room.plan.depth]) / 2 - builder.config.camera.clearance_m

    def propose() -> View:
        (x, y, _), height = standing[int(rng.integers(len(standing)))]
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 3.5)
        eye = np.clip(np.array([x, y]) + distance * np.array([np.cos(angle), np.sin(angle)]), -limits, limits)
        target = np.array([x, y, rng.uniform(0.45, 0.75) * height])
        return np.array([*eye, rng.uniform(0.6, 1.05) * height]), target

    return propose


def build_shelf_front(builder: SceneBuilder, room: Room) -> Proposal:
    """Shelf boards full of things along a wall, seen from arm's length."""
    rng = builder.rng
    wall = int(rng.integers(4))
    length = min(room.wall_length(wall) - 0.2, rng.uniform(1.2, 3.5))
    depth, total = rng.uniform(0.22, 0.5), min(room.height - 0.1, rng.uniform(1.2, 2.4))
    room.find_on_wall(rng, wall, 2 * room.wall_length(wall) - length, 0, total)  # nothing else on this wall
    at, yaw = room.at_wall(wall, 0, depth / 2 + 0.02)
    half_x, half_y = (length / 2, depth / 2) if wall % 2 == 0 else (depth / 2, length / 2)
    room.plan.take(float(at[0]), float(at[1]), half_x, half_y, total)
    tag = builder.tag("shelf")
    finish = builder.texture("wood", "plaster", "metal", "plaster")
    board = Material(builder.color((0.3, 1), (0, 0.4)), finish, rng.uniform(0, 0.4))
    for x in np.linspace(-length / 2, length / 2, max(2, int(length / 0.9) + 1)):
        builder.add(box((0.025, depth, total), (x, 0, total / 2), 1.0).moved(at, yaw), tag, board)
    if rng.random() < 0.6:
        builder.add(box((length, 0.01, total), (0, depth / 2, total / 2), 1.0).moved(at, yaw), tag, board)
    gap = (total - 0.1) / int(rng.integers(2, 6))
    for z in np.arange(0.05, total, gap).tolist():
        builder.add(box((length, depth, 0.025), (0, 0, z), 1.0).moved(at, yaw), tag, board)
        top = Top((float(at[0]), float(at[1]), z + 0.0125), yaw, length * 0.49, depth * 0.5)
        scatter_on(builder, top, int(length * rng.uniform(2, 14)), lambda b: _lower_than(b, gap - 0.04), stacking=0.1)

    def propose() -> View:
        out, x = rng.uniform(0.6, 1.7), rng.uniform(-0.35, 0.35) * length
        eye, _ = room.at_wall(wall, x, depth + out, rng.uniform(0.4, 1.7))
        target, _ = room.at_wall(wall, x + rng.uniform(-0.5, 0.5) * out, depth, rng.uniform(0.2, 0.8) * total)
        return eye, target

    return propose


def _small_thing(builder: SceneBuilder) -> Item:
    return small_thing(builder, _MESH_SHARE)


def _lower_than(builder: SceneBuilder, height: float) -> Item:
    """A small thing that fits between two boards, if one of a few does."""
    item = _small_thing(builder)
    for _ in range(4):
        if item.size[2] < height:
            break
        item = _small_thing(builder)
    return item


def add_table(builder: SceneBuilder, room: Room, widths: Range, depths: Range, heights: Range) -> Top:
    """A table somewhere in the room: one of the furniture's, or a plain one of any size and surface."""
    rng = builder.rng
    if rng.random() < 0.25:
        item = builder.pick("table", "floor")
        spot = place_freely(builder, room.plan, item)
        top = top_of(item, (spot[0], spot[1], 0.0), spot[2]) if spot else None
        if top is not None:
            return top
    width, depth, height = rng.uniform(*widths), rng.uniform(*depths), rng.uniform(*heights)
    yaw = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.1)
    half_x, half_y = half_extents(Item("table", (width, depth, height)), yaw)
    slack = np.maximum(np.array([room.plan.width / 2 - half_x, room.plan.depth / 2 - half_y]), 0)
    x, y = (float(value) for value in rng.uniform(-slack, slack))
    room.plan.take(x, y, half_x, half_y, height)
    add_plain_table(builder, (x, y, height), width, depth, yaw)
    return Top((x, y, height), yaw, width * 0.48, depth * 0.47)


def add_plain_table(
    builder: SceneBuilder,
    center: tuple[float, float, float],
    width: float,
    depth: float,
    yaw: float,
    surface: Material | None = None,
) -> None:
    """A plate on four legs, its top at `center`; without a `surface`, of wood, laminate, stone, cloth or metal."""
    rng = builder.rng
    tag = builder.tag("table")
    thick, under = rng.uniform(0.015, 0.06), np.array([0, 0, center[2]])
    kinds = ("wood", "wood", "wood", "plaster", "plaster", "marble", "fabric", "speckle", "tiles", "metal", "stripes")
    color = builder.color((0.55, 1), (0, 0.2)) if rng.random() < 0.7 else builder.color((0.1, 0.8), (0, 0.8))
    surface = surface or Material(color, builder.texture(*kinds), rng.choice([0, rng.uniform(0, 0.4)]))
    frame = Material(builder.color((0.05, 0.8), (0, 0.4)), -1, 0.4)
    tiling, leg = rng.uniform(0.5, 2), rng.uniform(0.03, 0.09)
    is_round = rng.random() < 0.15
    if is_round:
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        outline = np.stack([width / 2 * np.cos(angle), depth / 2 * np.sin(angle)], axis=-1)
        plate = extrude(outline, thick, tiling).moved((0, 0, -thick))
    else:
        plate = box((width, depth, thick), (0, 0, -thick / 2), tiling)
    builder.add(plate.moved(center, yaw), tag, surface)
    inset = 0.68 if is_round else 1.0
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = np.array([sx * inset * (width / 2 - leg), sy * inset * (depth / 2 - leg), 0])
            post = box((leg, leg, center[2] - thick), foot - (under + np.array([0, 0, thick])) / 2)
            builder.add(post.moved(center, yaw), tag, frame)


def _add_chairs(builder: SceneBuilder, room: Room, top: Top) -> None:
    rng = builder.rng
    chair = builder.pick("chair", "floor")
    for side in range(4):
        if rng.random() > 0.6:
            continue
        away = top.half_depth if side % 2 == 0 else top.half_width
        turn = top.yaw + side * np.pi / 2
        local = np.array([rng.uniform(-0.2, 0.2), -away - chair.size[1] * rng.uniform(0.1, 0.6), 0])
        x, y, _ = (float(value) for value in rotation_z(turn) @ local + np.array(top.center))
        if abs(x) < room.plan.width / 2 - 0.3 and abs(y) < room.plan.depth / 2 - 0.3:
            builder.place(chair, (x, y, 0), turn + np.pi + rng.normal(0, 0.2))
            room.plan.take(x, y, 0.2, 0.2, chair.size[2])


def look_down(builder: SceneBuilder, room: Room, top: Top, distances: Range, elevations_deg: Range) -> View:
    """A view of a surface from a distance and an angle above it, kept inside the room."""
    rng = builder.rng
    near, far = distances
    distance = near + (far - near) * rng.random() ** 1.7  # the nearer, the more often
    elevation = np.radians(rng.uniform(*elevations_deg))
    local = rng.uniform(-0.5, 0.5, 2) * (top.half_width, top.half_depth)
    target = np.array(top.center) + rotation_z(top.yaw) @ np.array([*local, rng.uniform(0, 0.1)])
    azimuth = rng.uniform(0, 2 * np.pi)
    flat = np.cos(elevation) * distance
    eye = target + np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) * distance])
    limit = np.array([room.plan.width / 2 - 0.1, room.plan.depth / 2 - 0.1, room.height - 0.1])
    return np.clip(eye, [-limit[0], -limit[1], top.center[2] + 0.18], limit), target
