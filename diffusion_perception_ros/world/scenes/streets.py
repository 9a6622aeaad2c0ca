"""Streets: a road between pavements, house fronts, trees and parked cars."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Material, SceneBuilder
from diffusion_perception_ros.world.items.buildings import add_house
from diffusion_perception_ros.world.items.plants import Grove
from diffusion_perception_ros.world.items.shapes import box, join, quad
from diffusion_perception_ros.world.scenes.cameras import Proposal, View


_REACH = 120.0
"""Metres of street before and behind the camera."""


def build_street(builder: SceneBuilder) -> Proposal:
    """A road along y with pavements, house fronts or greenery at both sides, cars, trees and street furniture.

    The first view is from the middle, where no car stands; later ones are from anywhere along the street.
    """
    rng = builder.rng
    lanes = int(rng.choice([1, 2, 2, 2, 3, 4]))
    half_road = lanes * rng.uniform(2.6, 3.6) / 2
    pavement = rng.choice([0.0, rng.uniform(1.2, 4)], p=[0.15, 0.85])
    _add_road(builder, half_road, lanes, pavement)
    edge = half_road + pavement
    trees = Grove(builder)
    for side in (-1, 1):
        if rng.random() < 0.65:
            _park_cars(builder, side, half_road)
        _add_street_furniture(builder, side, half_road, max(pavement, 1.0))
    for _ in range(int(rng.integers(0, 4))):
        _drive_car(builder, half_road)
    for side in (-1, 1):
        kind = builder.choice(("houses", "houses", "houses", "trees", "trees", "wall"))
        if kind == "houses":
            _add_house_row(builder, side, edge + rng.choice([0.0, rng.uniform(0, 6)]))
        else:
            if kind == "wall":
                _add_wall(builder, side, edge + rng.uniform(0, 1.5))
            trees.add_row(side, edge + rng.uniform(1, 4), dense=True)
        if rng.random() < 0.4:
            trees.add_row(side, half_road + 0.3 * pavement + 0.3, dense=False)
    starts = iter([0.0])

    def propose() -> View:
        y = next(starts, None)
        for _ in range(8):
            x = rng.uniform(-0.8, 0.8) * edge
            eye_height = rng.uniform(1.2, 2.2) if abs(x) < half_road else rng.uniform(0.4, 1.8)
            heading = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(-1.2, 1.2)
            eye = np.array([x, rng.uniform(-5, 40) if y is None else y, eye_height])
            if y is not None or builder.is_clear(eye, 1.0):
                break
        return eye, eye + np.array([np.sin(heading) * 10, np.cos(heading) * 10, rng.normal(-0.4, 0.7)])

    return propose


def _add_road(builder: SceneBuilder, half_road: float, lanes: int, pavement: float) -> None:
    rng = builder.rng
    road = Material(
        np.ones(3) * rng.uniform(0.3, 0.9), builder.texture("asphalt", "asphalt", "asphalt", "slabs", "soil")
    )
    tag = builder.tag("road")
    builder.add(
        quad((-half_road, -_REACH, 0), (2 * half_road, 0, 0), (0, 2 * _REACH, 0), (half_road, _REACH)), tag, road
    )
    if rng.random() < 0.7:  # lane marks
        paint = Material((0.75, 0.75, 0.7))
        dash, gap, width = rng.uniform(1.5, 5), rng.uniform(2, 8), rng.uniform(0.1, 0.2)
        starts = np.arange(-10.0, 70.0, dash + gap).tolist()
        lines = [-half_road + 2 * half_road * i / lanes for i in range(1, lanes)]
        marks = [quad((x - width / 2, y, 0.012), (width, 0, 0), (0, dash, 0)) for x in lines for y in starts]
        marks += [quad((s * (half_road - 0.3), -_REACH, 0.012), (width, 0, 0), (0, 2 * _REACH, 0)) for s in (-1, 1)]
        builder.add(join(*marks), tag, paint)
    grass = Material(builder.color((0.6, 1), (0, 0.2)), builder.texture("grass", "grass", "soil", "slabs"))
    ground = builder.tag("ground")
    stone = Material(builder.color((0.5, 1), (0, 0.15)), builder.texture("slabs", "slabs", "asphalt", "tiles"))
    kerb = rng.uniform(0.06, 0.16)
    for side in (-1, 1):
        if pavement > 0:
            x = side * (half_road + pavement / 2)
            builder.add(box((pavement, 2 * _REACH, kerb), (x, 0, kerb / 2), 0.7), ground, stone)
        start = half_road + pavement
        width = _REACH - start
        corner = (start if side > 0 else -_REACH, -_REACH, 0.02)
        builder.add(quad(corner, (width, 0, 0), (0, 2 * _REACH, 0), (width / 3, 2 * _REACH / 3)), ground, grass)


def _add_house_row(builder: SceneBuilder, side: int, distance: float) -> None:
    rng = builder.rng
    y = -15.0
    is_closed = rng.random() < 0.6
    while y < 90:
        width = rng.uniform(6, 18)
        add_house(builder, side * (distance + 5), y + width / 2, side * np.pi / 2, width, 10.0)
        y += width + (0 if is_closed else rng.uniform(0.5, 7))


def _add_wall(builder: SceneBuilder, side: int, distance: float) -> None:
    rng = builder.rng
    height = rng.uniform(0.8, 3)
    material = Material(builder.color((0.4, 1), (0, 0.3)), builder.texture("bricks", "plaster", "slabs", "wood"))
    builder.add(box((0.25, 160, height), (side * distance, 60, height / 2), 0.6), builder.tag("building"), material)


def _park_cars(builder: SceneBuilder, side: int, half_road: float) -> None:
    rng = builder.rng
    y = rng.uniform(-8, 8)
    flips = rng.random() < 0.2
    while y < 60:
        if rng.random() < 0.75 and not -6 < y < 3:  # not where the camera is
            item = builder.pick("car" if rng.random() < 0.92 else "truck", "outdoor")
            length = max(item.size[:2])
            is_long_in_y = item.size[1] >= item.size[0]
            yaw = (0.0 if is_long_in_y else np.pi / 2) + (np.pi if (side > 0) == flips else 0) + rng.normal(0, 0.02)
            x = side * (half_road - min(item.size[:2]) / 2 - 0.15)
            builder.place(item, (x, y + length / 2, 0), yaw)
            y += length
        else:
            y += 4.5
        y += rng.uniform(0.4, 2.5)


def _drive_car(builder: SceneBuilder, half_road: float) -> None:
    rng = builder.rng
    item = builder.pick("car" if rng.random() < 0.8 else "truck", "outdoor")
    yaw = 0.0 if item.size[1] >= item.size[0] else np.pi / 2
    x, y = rng.uniform(-0.4, 0.4) * half_road, rng.uniform(9, 55)
    builder.place(item, (x, y, 0), yaw + (np.pi if rng.random() < 0.5 else 0))


def _add_street_furniture(builder: SceneBuilder, side: int, half_road: float, pavement: float) -> None:
    """Lamp posts, people, bicycles, bins and benches on the pavement."""
    rng = builder.rng
    post = builder.pick("lamp", "outdoor")
    if post.size[2] > 2:
        for y in np.arange(rng.uniform(2, 12), 70, rng.uniform(12, 28)).tolist():
            builder.place(post, (side * (half_road + 0.35), y, 0.1), side * np.pi / 2)
    for _ in range(int(rng.integers(0, 7))):
        item = builder.pick(
            builder.choice(("person", "person", "cycle", "cycle", "object", "chair", "container", "plant")),
            "outdoor",
            "floor",
        )
        x = side * (half_road + rng.uniform(0.3, 1) * pavement)
        y = rng.uniform(4, 40)
        if max(item.size[:2]) < 2.5:
            builder.place(item, (x, y, 0.1), rng.uniform(0, 2 * np.pi))
