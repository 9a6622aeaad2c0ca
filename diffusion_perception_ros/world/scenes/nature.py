"""Parks, tracks, slopes and yards: uneven ground with trees, rocks and fences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Material, SceneBuilder
from diffusion_perception_ros.world.items.buildings import add_house
from diffusion_perception_ros.world.items.plants import Grove
from diffusion_perception_ros.world.items.shapes import Shape, box, join, quad, rotation_z, sphere, surface
from diffusion_perception_ros.world.scenes.cameras import Proposal, View


Array = npt.NDArray[np.float64]

_REACH = 120.0
"""Half the side of the ground, metres."""


def build_nature(builder: SceneBuilder) -> Proposal:
    """A meadow, track or yard on uneven ground with trees, bushes, rocks and now and then a house."""
    rng = builder.rng
    ground = _add_terrain(builder)
    if rng.random() < 0.6:
        _add_track(builder, ground)
    trees = Grove(builder)
    for _ in range(int(rng.integers(8, 45))):
        distance, angle = 2.5 + rng.exponential(9), rng.uniform(-0.95, 0.95)
        x, y = distance * np.sin(angle), distance * np.cos(angle)
        if rng.random() < 0.75:
            trees.plant(x, y, ground.height(x, y))
        else:
            item = builder.pick(
                builder.choice(("object", "chair", "person", "animal", "plant", "table", "car", "cycle")),
                "outdoor",
                "floor",
            )
            if max(item.size[:2]) / 2 + 0.8 < distance:
                builder.place(item, (x, y, ground.height(x, y)), rng.uniform(0, 2 * np.pi))
    for _ in range(int(rng.integers(0, 12))):
        _add_rock(builder, ground)
    if rng.random() < 0.4:
        add_house(builder, rng.uniform(-15, 15), rng.uniform(14, 45), rng.uniform(0, np.pi))
    if rng.random() < 0.35:
        _add_fence(builder, ground, rng.uniform(4, 14), rng.uniform(-0.4, 0.4))
    starts = iter([(0.0, 0.0)])

    def propose() -> View:
        start = next(starts, None)
        for _ in range(8):
            height = rng.uniform(0.25, 1.9)
            x, y = start or (rng.uniform(-6, 6), rng.uniform(-3, 10))
            eye = np.array([x, y, ground.height(x, y) + height])
            if start or builder.is_clear(eye, 0.6):
                break
        return eye, eye + np.array([rng.normal(0, 2 if start else 5), 10.0, rng.normal(-1.2, 1.2)])

    return propose


class Terrain:
    """A smooth height field: a slope and two waves."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._slope = rng.normal(0, 0.05, 2)
        self._waves = [(rng.uniform(-0.25, 0.25, 2), rng.uniform(0.1, 0.8), rng.uniform(0, 6)) for _ in range(3)]
        if rng.random() < 0.3:
            self._slope *= 0
            self._waves = []

    def height(self, x: float, y: float) -> float:
        """Metres above zero."""
        return float(self.heights(np.array(x), np.array(y)))

    def heights(self, x: Array, y: Array) -> Array:
        """Metres above zero at many places."""
        total: Array = self._slope[0] * x + self._slope[1] * y
        for direction, size, phase in self._waves:
            total = total + size * np.sin(direction[0] * x + direction[1] * y + phase)
        return total


def _add_terrain(builder: SceneBuilder) -> Terrain:
    rng = builder.rng
    terrain = Terrain(rng)
    steps = np.sign(np.linspace(-1, 1, 61)) * np.abs(np.linspace(-1, 1, 61)) ** 2 * _REACH
    x, y = np.meshgrid(steps, steps, indexing="ij")
    builder.add(
        _draped(terrain, x, y, 0.4, 0.0),
        builder.tag("ground"),
        Material(builder.color((0.6, 1), (0, 0.2)), builder.texture("grass", "grass", "soil", "slabs")),
    )
    return terrain


def _draped(terrain: Terrain, x: Array, y: Array, tiling: float, lift: float) -> Shape:
    """A grid of points laid over the terrain."""
    z = terrain.heights(x, y) + lift
    step = 0.05
    slope_x = (terrain.heights(x + step, y) - z + lift) / step
    slope_y = (terrain.heights(x, y + step) - z + lift) / step
    normals = np.stack([-slope_x, -slope_y, np.ones_like(z)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return surface(np.stack([x, y, z], axis=-1), normals, np.stack([x, y], axis=-1) * tiling)


def _add_track(builder: SceneBuilder, terrain: Terrain) -> None:
    """A winding path of earth or asphalt through the picture."""
    rng = builder.rng
    along = np.linspace(-5, 80, 120)
    center = (
        rng.uniform(-1, 1) + rng.normal(0, 0.1) * along + rng.uniform(0, 2.5) * np.sin(along * rng.uniform(0.03, 0.12))
    )
    half = rng.uniform(0.6, 2.5)
    x = center[:, None] + np.linspace(-half, half, 9)
    y = np.broadcast_to(along[:, None], x.shape)
    material = Material(builder.color((0.6, 1), (0, 0.15)), builder.texture("soil", "soil", "asphalt", "slabs"))
    builder.add(_draped(terrain, x, y, 0.5, 0.03), builder.tag("road"), material)


def _add_rock(builder: SceneBuilder, terrain: Terrain) -> None:
    rng = builder.rng
    x, y, size = rng.uniform(-8, 8), rng.uniform(2, 20), rng.uniform(0.1, 0.8)
    shape = sphere(size * rng.uniform(0.5, 1, 3), (x, y, terrain.height(x, y) + 0.1 * size), 10)
    material = Material(builder.color((0.4, 0.9), (0, 0.2)), builder.texture("soil", "slabs", "speckle"))
    builder.add(shape, builder.tag("object"), material)


def _add_fence(builder: SceneBuilder, terrain: Terrain, distance: float, yaw: float) -> None:
    """Posts and rails across the picture."""
    rng = builder.rng
    tag = builder.tag("object")
    material = Material(builder.color((0.2, 0.9), (0, 0.5)), builder.texture("wood", "metal", "bark"))
    height, spacing = rng.uniform(0.8, 1.6), rng.uniform(1.2, 2.5)
    posts = []
    for x in np.arange(-18, 18, spacing):
        here, there = (rotation_z(yaw) @ np.array([value, distance, 0]) for value in (x, x + spacing))
        z = terrain.height(float(here[0]), float(here[1]))
        posts.append(box((0.1, 0.1, height), (here[0], here[1], z + height / 2), 1.0))
        for level in (0.35, 0.65, 0.92):
            start = here + np.array([0, 0, z + level * height])
            end_z = terrain.height(float(there[0]), float(there[1])) + level * height
            span = there + np.array([0, 0, end_z]) - start
            posts.append(quad(start, span, (0, 0, 0.1), (2, 0.1)))
    builder.add(join(*posts), tag, material)
