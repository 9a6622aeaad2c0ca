"""Corridors and large halls."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder
from diffusion_perception_ros.world.items.objects import small_thing
from diffusion_perception_ros.world.items.shapes import box, tube
from diffusion_perception_ros.world.scenes.furnish import (
    add_against_wall,
    add_floor_clutter,
    add_people,
    add_wall_thing,
)
from diffusion_perception_ros.world.scenes.placement import Top, place_freely, scatter_on, top_of
from diffusion_perception_ros.world.scenes.rooms import Room, add_door, add_pictures, build_shell, ceiling_panel


def build_corridor(builder: SceneBuilder, is_dark: bool) -> Room:
    """A passage along y with doors, ceiling lights and things along its walls; a door or window ends it."""
    rng = builder.rng
    width, length = rng.uniform(1.3, 3.2), rng.uniform(6, 24)
    room = build_shell(builder, width, length, rng.uniform(2.2, 3.4), is_dark)
    for wall in (1, 3):
        spacing = rng.uniform(1.6, 4.5)
        for along in np.arange(-length / 2 + rng.uniform(0.8, spacing), length / 2 - 0.8, spacing).tolist():
            if rng.random() < 0.75:
                add_door(builder, room, wall, along + rng.uniform(-0.2, 0.2))
    add_door(builder, room, 0, 0.0)
    for y in np.arange(-length / 2 + 1, length / 2, rng.uniform(1.8, 4)).tolist():
        panel = ceiling_panel(builder)
        builder.place(panel, (0, y, room.height - panel.size[2]), np.pi / 2 * rng.integers(2))
    for _ in range(int(rng.uniform(0, length / 2))):
        label = builder.choice(
            ("cabinet", "cabinet", "shelf", "chair", "plant", "box", "container", "appliance", "object")
        )
        add_against_wall(builder, room, label)
    for _ in range(int(rng.integers(0, 6))):
        add_wall_thing(builder, room)
    add_pictures(builder, room, int(rng.integers(0, 6)))
    if rng.random() < 0.3:
        _add_partitions(builder, room)
    if rng.random() < 0.3:
        add_floor_clutter(builder, room, 3)
    if rng.random() < builder.config.room.people_share:
        add_people(builder, room, 1)
    return room


def build_hall(builder: SceneBuilder, is_dark: bool) -> Room:
    """A large room with columns, or with rows of tables or shelves."""
    rng = builder.rng
    room = build_shell(builder, rng.uniform(7, 18), rng.uniform(8, 24), rng.uniform(2.6, 5.5), is_dark)
    layout = builder.choice(("tables", "shelves", "cubicles", "empty"))
    if rng.random() < 0.5:
        _add_columns(builder, room)
    if layout in ("tables", "shelves"):
        _add_rows(builder, room, "table" if layout == "tables" else "shelf")
    elif layout == "cubicles":
        _add_partitions(builder, room)
    for _ in range(int(rng.integers(2, 12))):
        add_against_wall(
            builder, room, builder.choice(("cabinet", "shelf", "plant", "chair", "appliance", "box", "sofa"))
        )
    for wall in range(4):
        if rng.random() < 0.7:
            along = rng.uniform(-0.35, 0.35) * room.wall_length(wall)
            add_door(builder, room, wall, along)
    for x in np.arange(-room.plan.width / 2 + 1.5, room.plan.width / 2, 3.0).tolist():
        for y in np.arange(-room.plan.depth / 2 + 1.5, room.plan.depth / 2, 3.5).tolist():
            panel = ceiling_panel(builder)
            builder.place(panel, (x, y, room.height - panel.size[2]))
    add_floor_clutter(builder, room, int(rng.integers(0, 8)))
    if rng.random() < 2 * builder.config.room.people_share:
        add_people(builder, room, int(rng.integers(1, 4)))
    return room


def build_crowd(builder: SceneBuilder, is_dark: bool) -> Room:
    """A station, canteen or shopping centre: counters, rows of seats, and people in groups, near and far."""
    rng = builder.rng
    room = build_shell(builder, rng.uniform(6, 18), rng.uniform(8, 24), rng.uniform(2.7, 6), is_dark)
    if rng.random() < 0.6:
        _add_columns(builder, room)
    for _ in range(int(rng.integers(0, 4))):
        _add_counter(builder, room)
    if rng.random() < 0.6:
        _add_rows(builder, room, builder.choice(("chair", "table", "shelf")))
    for _ in range(int(rng.integers(2, 8))):
        add_against_wall(builder, room, builder.choice(("shelf", "appliance", "cabinet", "chair", "plant", "screen")))
    add_pictures(builder, room, int(rng.integers(2, 9)))
    people = [builder.pick("person", "floor") for _ in range(int(rng.integers(3, 7)))]
    spread = np.array([room.plan.width, room.plan.depth]) / 2
    for _ in range(int(rng.integers(3, 10))):  # groups that stand together
        center = rng.uniform(-0.9, 0.9, 2) * spread
        for _ in range(int(rng.integers(1, 5))):
            x, y = (float(value) for value in center + rng.normal(0, 0.6, 2))
            somebody = people[int(rng.integers(len(people)))]
            if somebody.size[2] < room.height and room.plan.is_free(x, y, 0.22, 0.22):
                room.plan.take(x, y, 0.22, 0.22, somebody.size[2])
                builder.place(somebody, (x, y, 0), rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.08))
    add_floor_clutter(builder, room, int(rng.integers(0, 6)))
    for y in np.arange(-room.plan.depth / 2 + 1, room.plan.depth / 2, rng.uniform(2, 5)).tolist():
        panel = ceiling_panel(builder)
        builder.place(panel, (rng.uniform(-0.3, 0.3) * room.plan.width, y, room.height - panel.size[2]))
    return room


def _add_counter(builder: SceneBuilder, room: Room) -> None:
    """A counter, kiosk or desk of boxes somewhere on the floor, things on it."""
    rng = builder.rng
    length, depth, height = rng.uniform(1.2, 4.0), rng.uniform(0.5, 1.2), rng.uniform(0.85, 1.25)
    item = Item("cabinet", (length, depth, height), [], height)
    front = Material(
        builder.color((0.2, 1), (0, 0.7)), builder.texture("wood", "plaster", "metal", "stripes", "cover")
    )
    top = Material(builder.color((0.3, 1), (0, 0.2)), builder.texture("marble", "wood", "plaster"), 0.4)
    item.parts.append(Part(box((length, depth, height - 0.04), (0, 0, height / 2 - 0.02), 0.7), front))
    item.parts.append(Part(box((length + 0.06, depth + 0.06, 0.04), (0, 0, height - 0.02), 0.7), top))
    spot = place_freely(builder, room.plan, item)
    if spot is not None:
        surface = Top((spot[0], spot[1], height), spot[2], length * 0.47, depth * 0.44)
        scatter_on(builder, surface, int(rng.integers(1, 9)), small_thing, stacking=0.2)


def _add_columns(builder: SceneBuilder, room: Room) -> None:
    rng = builder.rng
    size, is_round = rng.uniform(0.25, 0.6), rng.random() < 0.4
    material = Material(builder.color((0.4, 1), (0, 0.3)), builder.texture("plaster", "tiles", "slabs"))
    for x in np.arange(-room.plan.width / 3, room.plan.width / 2, rng.uniform(3, 6)).tolist():
        for y in np.arange(-room.plan.depth / 3, room.plan.depth / 2, rng.uniform(3, 6)).tolist():
            if not room.plan.is_free(x, y, size / 2, size / 2):
                continue
            room.plan.take(x, y, size / 2, size / 2, room.height)
            if is_round:
                shape = tube((x, y, 0), (x, y, room.height), size / 2, segments=20)
            else:
                shape = box((size, size, room.height), (x, y, room.height / 2), 0.7)
            builder.add(shape, builder.tag("wall"), material)


def _add_rows(builder: SceneBuilder, room: Room, label: str) -> None:
    """Rows of one kind of table (with chairs) or shelf, as in classrooms, canteens and stores."""
    rng = builder.rng
    item = builder.pick(label, "floor")
    chair = builder.pick("chair", "floor") if label == "table" else None
    step_x = item.size[0] + (rng.uniform(0.02, 0.1) if label == "shelf" else rng.uniform(0.1, 1.2))
    step_y = item.size[1] + rng.uniform(1.0, 1.9)
    half_x, half_y = item.size[0] / 2, item.size[1] / 2
    for y in np.arange(-room.plan.depth / 2 + 1.2 + half_y, room.plan.depth / 2 - 1 - half_y, step_y).tolist():
        for x in np.arange(-room.plan.width / 2 + 1.2 + half_x, room.plan.width / 2 - 1 - half_x, step_x).tolist():
            if rng.random() < 0.12 or not room.plan.is_free(x, y, half_x, half_y):
                continue
            if builder.triangle_count > 0.6 * builder.config.max_triangles:
                return
            room.plan.take(x, y, half_x, half_y, item.size[2])
            builder.place(item, (x, y, 0))
            top = top_of(item, (x, y, 0), 0.0)
            if top and rng.random() < 0.5:
                scatter_on(builder, top, int(rng.integers(0, 4)), small_thing)
            if chair is not None and rng.random() < 0.85:
                at = (x + rng.uniform(-0.15, 0.15), y - half_y - chair.size[1] * rng.uniform(0.1, 0.6))
                builder.place(chair, (*at, 0), np.pi + rng.uniform(-0.4, 0.4))
                room.plan.take(at[0], at[1], 0.2, 0.2, chair.size[2])


def _add_partitions(builder: SceneBuilder, room: Room) -> None:
    """Free-standing panels of fabric or metal, chest to head high."""
    rng = builder.rng
    height = rng.uniform(1.1, min(2.0, room.height - 0.3))
    material = Material(builder.color((0.2, 0.9), (0, 0.4)), builder.texture("fabric", "carpet", "plaster", "metal"))
    rail = Material(np.ones(3) * rng.uniform(0.1, 0.8), -1, 0.5)
    for _ in range(int(rng.integers(2, 10))):
        length, along_y = rng.uniform(0.8, 3), rng.random() < 0.6
        half_x, half_y = (0.04, length / 2) if along_y else (length / 2, 0.04)
        x = rng.uniform(-0.45, 0.45) * room.plan.width
        y = rng.uniform(-0.48, 0.48) * room.plan.depth
        if not room.plan.is_free(x, y, half_x, half_y, 0.5 if room.plan.width > 4 else 0.0):
            continue
        room.plan.take(x, y, half_x, half_y, height)
        tag = builder.tag("wall")
        builder.add(box((2 * half_x, 2 * half_y, height), (x, y, height / 2), 1.0), tag, material)
        builder.add(box((2 * half_x + 0.02, 2 * half_y + 0.02, 0.04), (x, y, height)), tag, rail)
