"""Tables with chairs all round, as in dining rooms and eat-in kitchens, and the views of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.config import Range
from diffusion_perception_ros.world.items.finishes import wood, wood_or_paint
from diffusion_perception_ros.world.items.objects import small_thing
from diffusion_perception_ros.world.items.seating import side_chair
from diffusion_perception_ros.world.items.shapes import box, rotation_z
from diffusion_perception_ros.world.scenes.cameras import Proposal, View, handheld_view
from diffusion_perception_ros.world.scenes.placement import Top, half_extents, scatter_on
from diffusion_perception_ros.world.scenes.rooms import Room


@dataclass(frozen=True)
class Seated:
    """A table with its chairs."""

    top: Top
    chairs: tuple[tuple[float, float], ...]
    """Where they stand (x, y)."""


def build_dining(builder: SceneBuilder, room: Room) -> Proposal:
    """A dining table with its chairs, seen over their backs, or past them into the room.

    Raises:
        ValueError: the room is too small for the table.
    """
    rng = builder.rng
    group = add_dining_table(builder, room, (1.2, 2.4), (0.8, 1.15))
    if group is None:
        raise ValueError("the room has no space for a dining table")

    def propose() -> View:
        spot = np.array(group.top.center)
        if group.chairs and rng.random() < 0.5:
            spot = np.array([*group.chairs[int(rng.integers(len(group.chairs)))], 0.6])
        away = (0.7, 3.0)
        if rng.random() < 0.25:  # past the table, at something else in the room
            things = room.plan.footprints
            goal = things[int(rng.integers(len(things)))]
            spot, away = np.array([goal[0], goal[1], rng.uniform(0.2, 1) * min(goal[4], 1.4)]), (1.5, 4.5)
        spot[2] += rng.uniform(-0.25, 0.25)
        return handheld_view(builder, room.plan, room.height, spot, away, (1.0, 1.75), rng.uniform(0, 2 * np.pi))

    return propose


def add_dining_table(builder: SceneBuilder, room: Room, widths: Range, depths: Range) -> Seated | None:
    """A wooden table near the middle of the room with chairs of one kind; None where no place is free."""
    rng = builder.rng
    width, depth, height = rng.uniform(*widths), rng.uniform(*depths), rng.uniform(0.7, 0.78)
    for _ in range(12):
        yaw = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.12)
        half_x, half_y = half_extents(Item("table", (width, depth, height)), yaw)
        slack = np.array([room.plan.width / 2 - half_x - 0.3, room.plan.depth / 2 - half_y - 0.3])
        if slack.min() < 0:
            continue
        x, y = (float(value) for value in rng.uniform(-slack, slack))
        if room.plan.is_free(x, y, half_x, half_y, 0.25):
            break
    else:
        return None
    _add_table(builder, (x, y), (width, depth, height), yaw)
    top = Top((x, y, height), yaw, width * 0.47, depth * 0.46)
    scatter_on(builder, top, int(rng.integers(0, 14)), small_thing, stacking=0.15, lying=0.15)
    chairs = _add_chairs(builder, room, top, width, depth)
    room.plan.take(x, y, half_x, half_y, height)  # only now: chairs may be pushed in under it
    return Seated(top, chairs)


def _add_table(builder: SceneBuilder, at: tuple[float, float], size: tuple[float, float, float], yaw: float) -> None:
    """A plate of boards on square legs with an apron, at times with a runner of cloth."""
    rng = builder.rng
    width, depth, height = size
    tag = builder.tag("table")
    surface = wood(builder) if rng.random() < 0.8 else wood_or_paint(builder)
    thick, leg = rng.uniform(0.02, 0.06), rng.uniform(0.045, 0.11)
    inset, rail = leg / 2 + rng.uniform(0, 0.06), rng.uniform(0.05, 0.12)
    under = height - thick
    shapes = [box((width, depth, thick), (0, 0, height - thick / 2), rng.uniform(0.6, 1.5))]
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = (sx * (width / 2 - inset), sy * (depth / 2 - inset), under / 2)
            shapes.append(box((leg, leg, under), foot, 1.0))
    for side in (-1, 1):
        z = under - rail / 2
        shapes.append(box((width - 2 * inset, 0.02, rail), (0, side * (depth / 2 - inset), z), 1.0))
        shapes.append(box((0.02, depth - 2 * inset, rail), (side * (width / 2 - inset), 0, z), 1.0))
    for shape in shapes:
        builder.add(shape.moved((*at, 0), yaw), tag, surface)
    if rng.random() < 0.3:
        cloth = Material(builder.color((0.2, 1), (0, 0.8)), builder.texture("fabric", "stripes", "cover", "checker"))
        strip = box(
            (width * rng.uniform(0.4, 0.95), depth * rng.uniform(0.25, 0.5), 0.003), (0, 0, height + 0.0015), 1.5
        )
        builder.add(strip.moved((*at, 0), yaw), tag, cloth)


def _add_chairs(
    builder: SceneBuilder, room: Room, top: Top, width: float, depth: float
) -> tuple[tuple[float, float], ...]:
    """Chairs on all sides, pushed in, pulled out or turned away."""
    rng = builder.rng
    chair = side_chair(builder) if rng.random() < 0.6 else builder.pick("chair", "floor")
    spots = []
    for side in range(4):
        length, away = (width, depth) if side % 2 == 0 else (depth, width)
        turn = top.yaw + side * np.pi / 2
        seats = max(1, int(length / 0.62))
        for seat in range(seats):
            if rng.random() > 0.75:
                continue
            across = (seat - (seats - 1) / 2) * length / seats + rng.uniform(-0.06, 0.06)
            out = away / 2 + chair.size[1] * rng.choice([rng.uniform(-0.1, 0.3), rng.uniform(0.3, 1.1)])
            offset = rotation_z(turn) @ np.array([across, -out, 0])
            x, y = float(top.center[0] + offset[0]), float(top.center[1] + offset[1])
            if not room.plan.is_free(x, y, 0.16, 0.16):
                continue
            wobble = rng.uniform(-0.7, 0.7) if rng.random() < 0.35 else rng.normal(0, 0.06)
            builder.place(chair, (x, y, 0), turn + np.pi + wobble)
            room.plan.take(x, y, 0.2, 0.2, chair.size[2])
            spots.append((x, y))
    return tuple(spots)
