"""Furniture in rooms: against walls, free-standing, on tops; people; boxes and clutter on the floor."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.sample import JOINTS
from diffusion_perception_ros.world.builder import Item, SceneBuilder
from diffusion_perception_ros.world.items.furniture import kitchen_row
from diffusion_perception_ros.world.items.objects import carton, small_thing
from diffusion_perception_ros.world.items.people import person
from diffusion_perception_ros.world.items.seating import chair
from diffusion_perception_ros.world.items.shapes import rotation_z
from diffusion_perception_ros.world.scenes.placement import Top, half_extents, place_freely, scatter_on, top_of
from diffusion_perception_ros.world.scenes.rooms import Room


THEMES: dict[str, tuple[str, ...]] = {
    "bedroom": ("bed", "bed", "cabinet", "cabinet", "chair", "table", "shelf"),
    "living": ("sofa", "sofa", "chair", "cabinet", "shelf", "plant", "table", "screen", "lamp"),
    "kitchen": ("cabinet", "cabinet", "appliance", "appliance", "sanitary", "shelf"),
    "bathroom": ("sanitary", "sanitary", "appliance", "cabinet"),
    "office": ("table", "table", "chair", "shelf", "cabinet", "shelf"),
    "dining": ("table", "cabinet", "chair", "shelf", "sofa"),
    "storage": ("shelf", "shelf", "box", "cabinet", "object", "cycle"),
    "mixed": ("bed", "sofa", "chair", "table", "cabinet", "shelf", "plant", "object", "box", "sanitary", "appliance"),
}
_FREE = (
    "table",
    "table",
    "chair",
    "chair",
    "chair",
    "sofa",
    "plant",
    "box",
    "object",
    "object",
    "animal",
    "cabinet",
    "lamp",
    "container",
)
_LOW_FURNITURE = 1.3


def furnish(builder: SceneBuilder, room: Room, theme: str, density: float) -> None:
    """Fill a room according to its theme; `density` 1 is sparse."""
    area = min(1.6, room.plan.width * room.plan.depth / 16)
    rng = builder.rng
    if theme == "kitchen" or rng.random() < 0.12:
        add_kitchen_row(builder, room, int(rng.integers(4)))
    if theme in ("dining", "kitchen", "office") and rng.random() < 0.8:
        add_table_group(builder, room)
    for _ in range(int(rng.integers(3, 9) * density * area)):
        add_against_wall(builder, room, builder.choice(THEMES[theme]))
    for _ in range(int(rng.integers(1, 8) * density * area)):
        add_free_standing(builder, room, builder.choice(_FREE))
    for _ in range(int(rng.integers(0, 5))):
        add_wall_thing(builder, room)
    for top in room.tops:
        scatter_on(builder, top, int(rng.integers(0, 8)), small_thing, stacking=0.15)
    if rng.random() < 0.35:
        add_floor_clutter(builder, room, int(rng.integers(1, 7)))
    if rng.random() < builder.config.room.people_share:
        add_people(builder, room, int(rng.choice([1, 1, 2])))


def add_against_wall(builder: SceneBuilder, room: Room, label: str) -> None:
    """One piece of furniture with its back to a wall."""
    rng = builder.rng
    item = (
        builder.pick(label, "floor", "wall")
        if label in ("cabinet", "shelf", "screen")
        else builder.pick(label, "floor")
    )
    width, depth, height = item.size
    if height > room.height or width > 3.5 or depth > 2.5:
        return
    elevation = item.elevation if item.elevation > 0.05 and item.elevation + height < room.height else 0.0
    wall = int(rng.integers(4))
    along = room.find_on_wall(rng, wall, width, elevation, elevation + height)
    if along is None:
        return
    gap = rng.uniform(0, 0.06) if rng.random() < 0.5 else 0.0
    at, yaw = room.at_wall(wall, along, depth / 2 + 0.02 + gap, elevation)
    half_x, half_y = half_extents(item, yaw)
    if elevation < 0.3:
        if not room.plan.is_free(at[0], at[1], half_x, half_y):
            return
        room.plan.take(at[0], at[1], half_x, half_y, height)
    builder.place(item, at, yaw)
    top = top_of(item, at, yaw)
    if label in ("table", "cabinet", "shelf", "appliance") and top and height < _LOW_FURNITURE:
        room.tops.append(top)


def add_free_standing(builder: SceneBuilder, room: Room, label: str) -> None:
    """One thing anywhere on the floor; tables get chairs."""
    item = builder.pick(label, "floor")
    if label == "animal" and max(item.size) > 1.2:  # horses stay outside
        return
    if max(item.size[:2]) > 2.5 or item.size[2] > room.height or min(item.size) < 0.02 or max(item.size) < 0.12:
        return
    if label == "table" and item.size[2] > 0.6:
        add_table_group(builder, room, item)
        return
    spot = place_freely(builder, room.plan, item)
    if spot and label in ("table", "cabinet"):
        top = top_of(item, (spot[0], spot[1], 0), spot[2])
        if top and item.size[2] < _LOW_FURNITURE:
            room.tops.append(top)


def add_table_group(builder: SceneBuilder, room: Room, table: Item | None = None) -> None:
    """A table with chairs around it, pushed in or pulled out."""
    rng = builder.rng
    table = table or builder.pick("table", "floor")
    spot = place_freely(builder, room.plan, table)
    if spot is None:
        return
    x, y, yaw = spot
    top = top_of(table, (x, y, 0), yaw)
    if top:
        room.tops.append(top)
    if table.size[2] < 0.6:
        return
    chair = builder.pick("chair", "floor")
    for side in range(4):
        length, away = (table.size[0], table.size[1]) if side % 2 == 0 else (table.size[1], table.size[0])
        seats = max(1, int(length / 0.75)) if side % 2 == 0 else 1
        for seat in range(seats):
            if rng.random() > 0.65:
                continue
            turn = yaw + side * np.pi / 2
            out = away / 2 + chair.size[1] * rng.uniform(0.05, 0.75)
            across = (seat - (seats - 1) / 2) * length / seats + rng.uniform(-0.1, 0.1)
            c, s = np.cos(turn), np.sin(turn)
            cx, cy = x + c * across + s * out, y + s * across - c * out
            if abs(cx) > room.plan.width / 2 - 0.3 or abs(cy) > room.plan.depth / 2 - 0.3:
                continue
            wobble = rng.uniform(-0.5, 0.5) if rng.random() < 0.5 else rng.uniform(-0.05, 0.05)
            builder.place(chair, (cx, cy, 0), turn + np.pi + wobble)
            room.plan.take(cx, cy, 0.25, 0.25, chair.size[2])


def add_kitchen_row(builder: SceneBuilder, room: Room, wall: int) -> None:
    """Base cabinets with one worktop along a wall, and what stands on it."""
    rng = builder.rng
    row = kitchen_row(builder, min(room.wall_length(wall) - 0.1, rng.uniform(1.8, 5)))
    length, depth, height = row.size
    along = room.find_on_wall(rng, wall, length, 0, height + 0.5)
    if along is None:
        return
    at, yaw = room.at_wall(wall, along, depth / 2 + 0.01)
    half_x, half_y = half_extents(row, yaw)
    if not room.plan.is_free(at[0], at[1], half_x, half_y):
        return
    room.plan.take(at[0], at[1], half_x, half_y, height)
    builder.place(row, at, yaw)
    top = Top((float(at[0]), float(at[1]), row.top_height), yaw, length * 0.48, depth * 0.42)
    scatter_on(builder, top, int(rng.uniform(2, 5 + 4 * length)), small_thing, stacking=0.2, lying=0.1)


def add_wall_thing(builder: SceneBuilder, room: Room) -> None:
    """Radiators, clocks, switches, wall cabinets, screens: what hangs on walls."""
    rng = builder.rng
    item = builder.pick(
        builder.choice(("object", "appliance", "cabinet", "shelf", "screen", "lamp", "picture", "curtain")), "wall"
    )
    width, depth, height = item.size
    low = item.elevation if item.elevation > 0 else rng.uniform(0.8, 1.6)
    wall = int(rng.integers(4))
    if low + height > room.height or depth > 0.8:
        return
    along = room.find_on_wall(rng, wall, width, low, low + height)
    if along is not None:
        at, yaw = room.at_wall(wall, along, depth / 2 + 0.005, low)
        builder.place(item, at, yaw)


def add_floor_clutter(builder: SceneBuilder, room: Room, count: int) -> None:
    """Cartons, some stacked, and small things lying on the floor."""
    rng = builder.rng
    for _ in range(count):
        item = carton(builder, 0.6) if rng.random() < 0.5 else small_thing(builder, 0.5)
        spot = place_freely(builder, room.plan, item)
        if spot and item.label == "box" and item.top_height > 0.1 and rng.random() < 0.4:
            above = carton(builder, 0.4) if rng.random() < 0.4 else small_thing(builder)
            if max(above.size[:2]) < 1.2 * max(item.size[:2]):
                builder.place(above, (spot[0], spot[1], item.top_height), spot[2] + rng.uniform(-0.5, 0.5))


def add_people(builder: SceneBuilder, room: Room, count: int) -> None:
    """People standing about, or sitting on a chair of their own."""
    rng = builder.rng
    for _ in range(count):
        if rng.random() < 0.25:
            _add_sitting(builder, room)
            continue
        item = builder.pick("person", "floor")
        if item.size[2] < room.height:
            place_freely(builder, room.plan, item)


def _add_sitting(builder: SceneBuilder, room: Room) -> None:
    seat = chair(builder)
    spot = place_freely(builder, room.plan, seat)
    if spot is None:
        return
    x, y, yaw = spot
    sitter = person(builder, "sit")
    hips = sitter.joints[JOINTS.index("left_hip")]
    forward = rotation_z(yaw) @ np.array([0, -0.05, 0])
    builder.place(sitter, np.array([x, y, seat.top_height + 0.1 - hips[2]]) + forward, yaw)
