"""Kitchens as a person or a robot with a raised camera sees them: rows of fronts from near, a table before them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.items.finishes import WHITE
from diffusion_perception_ros.world.items.kitchens import (
    KitchenStyle,
    Piece,
    base_row,
    hood,
    kitchen_style,
    leaning_print,
    tall_unit,
    wall_row,
)
from diffusion_perception_ros.world.items.objects import small_thing
from diffusion_perception_ros.world.items.shapes import box
from diffusion_perception_ros.world.scenes.cameras import Proposal, View, handheld_view
from diffusion_perception_ros.world.scenes.dining import Seated, add_dining_table
from diffusion_perception_ros.world.scenes.placement import Top, half_extents, scatter_on
from diffusion_perception_ros.world.scenes.rooms import Room


_HEIGHTS = (0.9, 2.2)
"""Of a camera held in the hand, metres."""


def build_kitchen(builder: SceneBuilder, room: Room) -> Proposal:
    """One row of units or two that meet in a corner, often a table with chairs in front; seen obliquely from above.

    Raises:
        ValueError: no row fits into the room.
    """
    rng = builder.rng
    style = kitchen_style(builder)
    wall = int(rng.integers(4))
    rows = _add_rows(builder, room, style, wall)
    table = add_dining_table(builder, room, (0.9, 1.9), (0.7, 1.0)) if rng.random() < 0.65 else None

    def propose() -> View:
        if table is not None and rng.random() < 0.35:
            return _over_the_table(builder, room, table, wall)
        row_wall, along, length = rows[int(rng.integers(len(rows)))]
        out = style.depth + style.overhang + 0.06
        x = along + rng.uniform(-0.4, 0.4) * length
        target, yaw = room.at_wall(row_wall, x, out, rng.uniform(0.35, 1.0))
        toward = yaw - np.pi / 2 + rng.uniform(-0.9, 0.9)
        return handheld_view(builder, room.plan, room.height, target, (0.55, 2.9), _HEIGHTS, toward)

    return propose


def _over_the_table(builder: SceneBuilder, room: Room, table: Seated, wall: int) -> View:
    """Across the table towards the row."""
    rng = builder.rng
    target = np.array(table.top.center) + np.array([*rng.uniform(-0.4, 0.4, 2), rng.uniform(-0.1, 0.3)])
    toward = wall * np.pi / 2 - np.pi / 2 + rng.uniform(-1.2, 1.2)
    return handheld_view(builder, room.plan, room.height, target, (0.4, 1.6), _HEIGHTS, toward)


def _add_rows(builder: SceneBuilder, room: Room, style: KitchenStyle, wall: int) -> list[tuple[int, float, float]]:
    """The units along one wall, at times along the next one, too: wall, middle and length of each row."""
    rng = builder.rng
    has_corner = rng.random() < 0.6
    first = min(room.wall_length(wall), rng.uniform(2.0, 4.5))
    half = room.wall_length(wall) / 2
    along = half - first / 2 if has_corner else rng.uniform(first / 2 - half, half - first / 2)
    rows = [(wall, float(along), first)]
    if has_corner:  # the right end of a wall meets the left end of the wall before it
        other = (wall + 3) % 4
        length = min(room.wall_length(other) - style.depth, rng.uniform(1.0, 3.0))
        rows.append((other, style.depth + length / 2 - room.wall_length(other) / 2, length))
    for row in rows:
        _add_row(builder, room, style, *row)
    return rows


def _add_row(builder: SceneBuilder, room: Room, style: KitchenStyle, wall: int, along: float, length: float) -> None:
    rng = builder.rng
    at, yaw = room.at_wall(wall, along, style.depth / 2 + 0.012)
    _add_pieces(builder, base_row(builder, style, length), at, yaw)
    outline = Item("cabinet", (length, style.depth, style.height))
    half_x, half_y = half_extents(outline, yaw)
    room.plan.take(float(at[0]), float(at[1]), half_x, half_y, style.height)
    room.reserve(wall, along, length, 0, style.height + 0.03)
    low, high = rng.uniform(1.35, 1.55), min(rng.uniform(2.0, 2.3), room.height - 0.03)
    if rng.random() < 0.7:
        _add_splashback(builder, room, style, wall, along, length, low)
    if rng.random() < 0.6:
        foot, _ = room.at_wall(wall, along, 0.012)
        _add_pieces(builder, wall_row(builder, style, length, low, high), foot, yaw)
        room.reserve(wall, along, length, style.height, high)
    elif rng.random() < 0.4:
        foot, _ = room.at_wall(wall, along + rng.uniform(-0.3, 0.3) * length, 0.012)
        _add_pieces(builder, [hood(builder, rng.uniform(0.55, 0.9), low, room.height)], foot, yaw)
        room.reserve(wall, along, length, style.height, room.height)
    free = room.wall_length(wall) / 2 + along - length / 2  # left of the row
    if free > 0.62 and rng.random() < 0.5:
        side, _ = room.at_wall(wall, along - length / 2 - 0.31, style.depth / 2 + 0.012)
        height = min(rng.uniform(1.7, 2.15), room.height - 0.02)
        _add_pieces(builder, [tall_unit(builder, style, 0.6, height)], side, yaw)
        room.plan.take(float(side[0]), float(side[1]), 0.32, 0.32, height)
        room.reserve(wall, along - length / 2 - 0.31, 0.62, 0, height)
    _clutter(builder, room, style, wall, along, length)


def _add_splashback(
    builder: SceneBuilder, room: Room, style: KitchenStyle, wall: int, along: float, length: float, top: float
) -> None:
    """Tiles, glass or steel between worktop and wall cabinets, with sockets."""
    rng = builder.rng
    kind = builder.choice(("tiles", "tiles", "tiles", "plaster", "metal", "marble", "bricks"))
    material = Material(builder.color((0.3, 1), (0, 0.35)), builder.texture(kind), rng.uniform(0.1, 0.8))
    at, yaw = room.at_wall(wall, along, 0.006, (style.height + top) / 2)
    tiling = rng.uniform(0.8, 4)
    builder.add(box((length, 0.01, top - style.height), tiling=tiling).moved(at, yaw), builder.tag("wall"), material)
    for _ in range(int(rng.integers(0, 4))):
        x = along + rng.uniform(-0.45, 0.45) * length
        spot, _ = room.at_wall(wall, x, 0.017, style.height + rng.uniform(0.15, 0.3))
        builder.add(box((rng.choice([0.08, 0.15]), 0.012, 0.08)).moved(spot, yaw), builder.tag("object"), WHITE)


def _clutter(builder: SceneBuilder, room: Room, style: KitchenStyle, wall: int, along: float, length: float) -> None:
    """Prints that lean on the wall, and small things on the worktop."""
    rng = builder.rng
    for _ in range(int(rng.integers(0, 4))):
        spot, yaw = room.at_wall(wall, along + rng.uniform(-0.45, 0.45) * length, 0.2, style.height)
        _add_pieces(builder, [leaning_print(builder)], spot, yaw + rng.uniform(-0.2, 0.2))
    at, yaw = room.at_wall(wall, along, style.depth / 2 + 0.02, style.height)
    top = Top((float(at[0]), float(at[1]), style.height), yaw, length * 0.48, style.depth * 0.42)
    scatter_on(builder, top, int(rng.uniform(0, 3 + 4 * length)), small_thing, stacking=0.2, lying=0.1)


def _add_pieces(builder: SceneBuilder, pieces: list[Piece], at: npt.NDArray[np.float64], yaw: float) -> None:
    for label, parts in pieces:
        tag = builder.tag(label)
        for shape, material in parts:
            builder.add(shape.moved(at, yaw), tag, material)
