"""Cardboard boxes on the floor seen from near: taped, labelled, open, stacked, tilted or leaning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import BLACK, printed
from diffusion_perception_ros.world.items.objects import open_box, small_thing
from diffusion_perception_ros.world.items.seating import side_chair
from diffusion_perception_ros.world.items.shapes import box, join, rotation_x, tube
from diffusion_perception_ros.world.scenes.cameras import Proposal, View, handheld_view
from diffusion_perception_ros.world.scenes.placement import half_extents, place_freely
from diffusion_perception_ros.world.scenes.rooms import Room


_SKIN = 0.001
"""Metres that tape and labels stand out."""


def build_parcels(builder: SceneBuilder, room: Room) -> Proposal:
    """Parcels about one place on the floor or against a wall, with chairs and cables, from a camera low or in a hand.

    Raises:
        ValueError: not one parcel found a place.
    """
    rng = builder.rng
    spots: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, 3))):
        spots += _add_leaning(builder, room)
    for _ in range(int(rng.integers(1, 6))):
        item = parcel(builder)
        spot = place_freely(builder, room.plan, item)
        if spot is None:
            continue
        spots.append((spot[0], spot[1], item.size[2]))
        above = parcel(builder, 0.35) if rng.random() < 0.5 else small_thing(builder)
        if item.top_height > 0 and rng.random() < 0.35 and max(above.size[:2]) < 1.2 * max(item.size[:2]):
            builder.place(above, (spot[0], spot[1], item.top_height), spot[2] + rng.uniform(-0.4, 0.4))
    if not spots:
        raise ValueError("the room has no space for a parcel")
    for _ in range(int(rng.integers(0, 4))):
        place_freely(builder, room.plan, side_chair(builder) if rng.random() < 0.6 else small_thing(builder))
    if rng.random() < 0.4:
        _add_cable(builder, room, spots[0][:2])

    def propose() -> View:
        x, y, height = spots[int(rng.integers(len(spots)))]
        target = np.array([x + rng.normal(0, 0.1), y + rng.normal(0, 0.1), rng.uniform(0.2, 0.9) * height])
        heights = (0.12, 0.5) if rng.random() < 0.55 else (0.5, 1.5)
        return handheld_view(
            builder, room.plan, room.height, target, (0.4, 1.5), heights, rng.uniform(0, 2 * np.pi), room_for=0.1
        )

    return propose


def parcel(builder: SceneBuilder, largest: float = 0.6) -> Item:
    """A cardboard box with tape and paper labels; every third one is open, its flaps up, out or hanging."""
    rng = builder.rng
    size = rng.uniform(0.15, largest, 3) * (1, rng.uniform(0.25, 1), rng.uniform(0.5, 1))
    brown = Material(np.ones(3) * rng.uniform(0.45, 1), builder.texture("cardboard"))
    if rng.random() < 0.15:
        brown = Material(np.ones(3) * rng.uniform(0.6, 1), builder.texture("package", "plaster"))
    if rng.random() < 0.35:
        return _open_parcel(builder, size, brown)
    width, depth, height = size
    parts = [Part(box(size, (0, 0, height / 2)), brown)]
    if rng.random() < 0.6:
        strip = rng.uniform(0.04, 0.07)
        drop = rng.uniform(0.05, 0.4) * height
        over = box((strip, depth + 2 * _SKIN, _SKIN), (0, 0, height + _SKIN / 2))
        ends = [box((strip, _SKIN, drop), (0, side * (depth + _SKIN) / 2, height - drop / 2)) for side in (-1, 1)]
        tape = BLACK if rng.random() < 0.4 else Material(np.array([0.6, 0.42, 0.2]) * rng.uniform(0.4, 1.4), -1, 0.5)
        parts.append(Part(join(over, *ends), tape))
    for side in (-1, 1):
        if rng.random() < 0.55:
            w, h = width * rng.uniform(0.2, 0.8), height * rng.uniform(0.2, 0.8)
            x, z = rng.uniform(-0.5, 0.5) * (width - w), height / 2 + rng.uniform(-0.5, 0.5) * (height - h)
            sheet = box((w, _SKIN, h), (x, side * (depth / 2 + 2 * _SKIN), z))
            parts.append(Part(sheet, printed(builder, "page", "page", "plaster", "cover")))
    return item_of("box", parts, float(height))


def _open_parcel(builder: SceneBuilder, size: npt.NDArray[np.float64], material: Material) -> Item:
    rng = builder.rng
    parts = [Part(open_box(size, 0.005), material)]
    folded = rng.uniform(-1.4, 1.45)
    for side in range(4):
        length, reach = size[side % 2] * 0.98, size[1 - side % 2] / 2
        long = min(0.5 * min(size[0], size[1]), 0.3)
        angle = np.clip(folded + rng.uniform(-0.5, 0.5), -1.45, 1.45)
        flap = box((length, long, 0.004), (0, long / 2, 0)).moved(rotation=rotation_x(angle))
        parts.append(Part(flap.moved((0, reach, size[2])).moved(yaw=side * np.pi / 2), material))
    if rng.random() < 0.5:  # what is packed in it
        fill = size[2] * rng.uniform(0.2, 0.8)
        inside = box((size[0] * 0.8, size[1] * 0.8, fill), (0, 0, fill / 2 + 0.006))
        parts.append(Part(inside, printed(builder, "package", "fabric", "page", "plaster")))
    return item_of("box", parts)


def _add_leaning(builder: SceneBuilder, room: Room) -> list[tuple[float, float, float]]:
    """A parcel on its lower back edge, tilted against a wall; where it stands and how high it is."""
    rng = builder.rng
    item = parcel(builder, 0.9)
    width, depth, height = item.size
    lean = rng.uniform(0.1, 0.6)
    wall = int(rng.integers(4))
    c, s = np.cos(lean), np.sin(lean)
    out = float(c * depth / 2 + s * height)  # its upper back edge touches the wall
    high = float(c * height + s * depth)
    along = room.find_on_wall(rng, wall, width, 0, min(high, room.height))
    if along is None or item.top_height == 0:
        return []
    at, yaw = room.at_wall(wall, along, out + 0.045, s * depth / 2)
    half_x, half_y = half_extents(Item("box", (width, 2 * out, high)), yaw)
    if not room.plan.is_free(float(at[0]), float(at[1]), half_x, half_y):
        return []
    room.plan.take(float(at[0]), float(at[1]), half_x, half_y, high)
    builder.place(item, at, yaw, tilt=rotation_x(-lean))
    return [(float(at[0]), float(at[1]), high)]


def _add_cable(builder: SceneBuilder, room: Room, near: tuple[float, float]) -> None:
    """A cable in a loose loop on the floor."""
    rng = builder.rng
    turn = np.linspace(0, rng.uniform(2, 7), 14)
    radius = rng.uniform(0.15, 0.4) * (1 + 0.3 * np.sin(turn * rng.uniform(0.5, 2)))
    thick = rng.uniform(0.003, 0.007)
    limit = np.array([room.plan.width, room.plan.depth]) / 2 - 0.02
    center = np.array(near) + rng.uniform(-0.6, 0.6, 2)
    line = np.clip(center + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1), -limit, limit)
    pieces = [
        tube((*a, thick), (*b, thick), thick, segments=6) for a, b in pairwise(line) if np.hypot(*(b - a)) > 1e-3
    ]
    material = BLACK if rng.random() < 0.6 else Material(builder.color((0.3, 1), (0, 0.5)))
    builder.add(join(*pieces), builder.tag("object"), material)
