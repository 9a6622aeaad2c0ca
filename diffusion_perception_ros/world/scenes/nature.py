"""Parks, tracks, slopes and yards: uneven ground with trees, rocks and fences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Material, SceneBuilder
from diffusion_perception_ros.world.items.buildings import add_house
from diffusion_perception_ros.world.items.plants import Grove, bush
from diffusion_perception_ros.world.items.shapes import Shape, box, join, quad, rotation_z, sphere, surface, tube
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


def build_rough(builder: SceneBuilder) -> Proposal:
    """Bumpy ground with stones, logs, tufts and bushes, from a low camera that looks where it is going."""
    rng = builder.rng
    ground = _add_terrain(builder, is_rough=True)
    if rng.random() < 0.3:
        _add_track(builder, ground)
    for _ in range(int(rng.integers(10, 90))):
        _add_rock(builder, ground, 4.0, (0.02, 0.35))
    for _ in range(int(rng.integers(0, 5))):
        _add_log(builder, ground)
    tufts = [bush(builder) for _ in range(3)]
    for _ in range(int(rng.integers(0, 50))):
        x, y = rng.normal(0, 3), rng.normal(3, 4)
        size = rng.uniform(0.08, 0.5)
        builder.place(tufts[int(rng.integers(3))], (x, y, ground.height(x, y) - 0.02), rng.uniform(0, 6), size)
    trees = Grove(builder, budget=60_000)
    for _ in range(int(rng.integers(0, 25))):
        distance, angle = 4 + rng.exponential(9), rng.uniform(-1.2, 1.2)
        x, y = distance * np.sin(angle), distance * np.cos(angle)
        trees.plant(x, y, ground.height(x, y))
    if rng.random() < 0.3:
        _add_steps(builder, ground)

    def propose() -> View:
        for _ in range(8):
            x, y, height = rng.uniform(-2, 2), rng.uniform(-3, 4), rng.uniform(0.12, 1.3)
            eye = np.array([x, y, ground.height(x, y) + height])
            if builder.is_clear(eye, 0.15):
                break
        heading, dip = (
            rng.normal(0, 0.5),
            np.radians(rng.uniform(-4, 45) if rng.random() < 0.7 else rng.uniform(-8, 15)),
        )
        ahead = np.array([np.sin(heading) * np.cos(dip), np.cos(heading) * np.cos(dip), -np.sin(dip)])
        return eye, eye + ahead

    return propose


def add_hills(builder: SceneBuilder) -> None:
    """Hills all round, from where the ground ends to as far as is drawn."""
    rng = builder.rng
    turn, out = np.meshgrid(np.linspace(0, 2 * np.pi, 97), np.linspace(0, 1, 14), indexing="ij")
    radius = _REACH * 0.9 + out * 330
    rise = rng.uniform(4, 70) * out ** rng.uniform(0.6, 1.5)
    z = (
        sum(rise * rng.uniform(0, 0.5) * (1 + np.sin(n * turn + rng.uniform(0, 6) + 2 * out)) for n in range(1, 8))
        - 1.5
    )
    x, y = radius * np.cos(turn), radius * np.sin(turn)
    points = np.stack([x, y, z], axis=-1)
    normals = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    normals *= np.where(normals[..., 2:] < 0, -1, 1)
    shape = surface(points, normals, np.stack([x, y], axis=-1) * rng.uniform(0.01, 0.05))
    material = Material(builder.color((0.4, 1), (0, 0.3)), builder.texture("grass", "grass", "soil", "speckle"))
    builder.add(shape, builder.tag("vegetation" if rng.random() < 0.5 else "ground"), material)


class Terrain:
    """A smooth height field: a slope and two waves."""

    def __init__(self, rng: np.random.Generator, is_rough: bool = False) -> None:
        self._slope = rng.normal(0, 0.05, 2)
        self._waves = [(rng.uniform(-0.25, 0.25, 2), rng.uniform(0.1, 0.8), rng.uniform(0, 6)) for _ in range(3)]
        if rng.random() < 0.3:
            self._slope *= 0
            self._waves = []
        if is_rough:  # bumps of half a metre to six metres, the shorter the lower
            for length in rng.uniform(0.5, 6, 14).tolist():
                angle = rng.uniform(0, 2 * np.pi)
                wave = 2 * np.pi / length * np.array([np.cos(angle), np.sin(angle)])
                self._waves.append((wave, rng.uniform(0.1, 1) * 0.025 * length, rng.uniform(0, 6)))
            self._slope = rng.normal(0, 0.12, 2)

    def height(self, x: float, y: float) -> float:
        """Metres above zero."""
        return float(self.heights(np.array(x), np.array(y)))

    def heights(self, x: Array, y: Array) -> Array:
        """Metres above zero at many places."""
        total: Array = self._slope[0] * x + self._slope[1] * y
        for direction, size, phase in self._waves:
            total = total + size * np.sin(direction[0] * x + direction[1] * y + phase)
        return total


def _add_terrain(builder: SceneBuilder, is_rough: bool = False) -> Terrain:
    rng = builder.rng
    terrain = Terrain(rng, is_rough)
    line = np.linspace(-1, 1, 111 if is_rough else 61)
    steps = np.sign(line) * np.abs(line) ** (2.6 if is_rough else 2) * _REACH
    x, y = np.meshgrid(steps, steps, indexing="ij")
    builder.add(
        _draped(terrain, x, y, 0.4, 0.0),
        builder.tag("ground"),
        Material(
            builder.color((0.6, 1), (0, 0.2)),
            builder.texture(*(("soil", "soil", "grass") if is_rough else ("grass", "grass", "soil", "slabs"))),
        ),
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


def _add_rock(
    builder: SceneBuilder, terrain: Terrain, spread: float | None = None, sizes: tuple[float, float] = (0.1, 0.8)
) -> None:
    """A stone somewhere ahead, or with `spread` (metres) about the start."""
    rng = builder.rng
    if spread is None:
        x, y = rng.uniform(-8, 8), rng.uniform(2, 20)
    else:
        x, y = rng.normal(0, spread), rng.normal(2, spread)
    size = rng.uniform(*sizes)
    shape = sphere(size * rng.uniform(0.5, 1, 3), (x, y, terrain.height(x, y) + 0.1 * size), 10)
    material = Material(builder.color((0.4, 0.9), (0, 0.2)), builder.texture("soil", "slabs", "speckle"))
    builder.add(shape, builder.tag("object"), material)


def _add_log(builder: SceneBuilder, terrain: Terrain) -> None:
    """A trunk or branch that lies on the ground."""
    rng = builder.rng
    (x, y), angle, half = rng.normal((0, 3), 2.5), rng.uniform(0, np.pi), rng.uniform(0.3, 2.5)
    girth = rng.uniform(0.02, 0.2)
    ends = [(x + side * half * np.cos(angle), y + side * half * np.sin(angle)) for side in (-1, 1)]
    start, end = ((a, b, terrain.height(a, b) + 0.7 * girth) for a, b in ends)
    material = Material((0.8, 0.8, 0.8), builder.texture("bark"))
    builder.add(tube(start, end, girth, girth * rng.uniform(0.5, 1), 10), builder.tag("object"), material)


def _add_steps(builder: SceneBuilder, terrain: Terrain) -> None:
    """A few steps of stone or wood across the way."""
    rng = builder.rng
    y, rise, going = rng.uniform(1.5, 6), rng.uniform(0.1, 0.2), rng.uniform(0.28, 0.5)
    width, x = rng.uniform(1, 4), rng.uniform(-1, 1)
    base = terrain.height(x, y)
    tag = builder.tag("stairs")
    material = Material(builder.color((0.4, 1), (0, 0.2)), builder.texture("slabs", "wood", "plaster"))
    for step in range(int(rng.integers(1, 8))):
        size = (width, going * 3, rise + 1.0)
        builder.add(box(size, (x, y + going * (step + 1), base + rise * (step + 1) - size[2] / 2), 1.0), tag, material)


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
