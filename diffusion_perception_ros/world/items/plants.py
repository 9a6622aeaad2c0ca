"""Procedural trees, bushes and potted plants: tubes for wood, textured cards for leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.shapes import Shape, join, lathe, tube


def _cards(
    rng: np.random.Generator, centers: npt.NDArray[np.floating], size: tuple[float, float], around: npt.ArrayLike
) -> Shape:
    """Square leaf cards in random directions; normals point away from `around`, so that a crown shades like a ball."""
    count = len(centers)
    axes = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    half = rng.uniform(*size, (count, 1)) / 2
    u, v = axes[:, 0] * half, axes[:, 1] * half
    corners = np.stack([centers - u - v, centers + u - v, centers + u + v, centers - u + v], axis=1)
    corners[..., 2] = np.maximum(corners[..., 2], 0)  # leaves lie on the ground, not in it
    outward = centers - np.asarray(around) + rng.normal(size=(count, 3)) * 0.15
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-6)
    index = [[0, 1, 2], [0, 2, 3]]
    positions = corners[:, index].reshape(-1, 3, 3)
    uvs = np.broadcast_to(np.array([(0, 0), (1, 0), (1, 1), (0, 1)])[index], (count, 2, 3, 2)).reshape(-1, 3, 2)
    normals = np.repeat(outward, 2, axis=0)[:, None].repeat(3, axis=1)
    return Shape(*(np.asarray(values, np.float32) for values in (positions, normals, uvs)))


def _leaves(builder: SceneBuilder) -> Material:
    return Material(builder.color((0.85, 1), (0, 0.15)), builder.texture("foliage"))


def _crown(
    rng: np.random.Generator, center: npt.ArrayLike, radius: npt.ArrayLike, count: int
) -> npt.NDArray[np.float64]:
    """Points in the outer part of an ellipsoid, in clumps."""
    clumps = rng.normal(size=(max(3, count // 25), 3))
    clumps /= np.linalg.norm(clumps, axis=-1, keepdims=True)
    chosen = clumps[rng.integers(len(clumps), size=count)] * rng.uniform(0.35, 0.95, (count, 1))
    return np.asarray(np.asarray(center) + (chosen + rng.normal(0, 0.16, (count, 3))) * np.asarray(radius))


def broadleaf(builder: SceneBuilder) -> Item:
    """A deciduous tree: trunk, some boughs and a crown of leaf cards."""
    rng = builder.rng
    height = rng.uniform(3, 12)
    trunk = height * rng.uniform(0.2, 0.45)
    radius = height * np.array([rng.uniform(0.2, 0.38)] * 2 + [rng.uniform(0.28, 0.38)])
    center = np.array([0, 0, height - radius[2]])
    girth = 0.013 * height * rng.uniform(0.7, 1.6)
    wood = [tube((0, 0, 0), (0, 0, trunk), girth * 1.25, girth, 8)]
    for _ in range(int(rng.integers(3, 7))):
        start = (0, 0, trunk * rng.uniform(0.8, 1))
        wood.append(tube(start, center + rng.normal(size=3) * radius * 0.4, girth * 0.6, girth * 0.15, 6))
    cards = _cards(
        rng, _crown(rng, center, radius, int(rng.integers(180, 420))), (0.09 * height, 0.17 * height), center
    )
    return item_of(
        "vegetation",
        [Part(join(*wood), Material((0.8, 0.8, 0.8), builder.texture("bark"))), Part(cards, _leaves(builder))],
    )


def conifer(builder: SceneBuilder) -> Item:
    """A spruce: tiers of cards around a straight trunk."""
    rng = builder.rng
    height, width = rng.uniform(3, 14), rng.uniform(0.16, 0.3)
    count = int(rng.integers(180, 360))
    level = rng.uniform(0.08, 1, count) ** 0.8
    angle = rng.uniform(0, 2 * np.pi, count)
    radius = width * height * (1.02 - level) * rng.uniform(0.4, 1, count)
    centers = np.stack([radius * np.cos(angle), radius * np.sin(angle), level * height], axis=-1)
    cards = _cards(rng, centers, (0.07 * height, 0.14 * height), (0, 0, height * 0.3))
    trunk = tube((0, 0, 0), (0, 0, height * 0.95), 0.014 * height, 0.003 * height, 8)
    return item_of(
        "vegetation", [Part(trunk, Material((0.7, 0.7, 0.7), builder.texture("bark"))), Part(cards, _leaves(builder))]
    )


def bush(builder: SceneBuilder) -> Item:
    """A bush or a piece of hedge."""
    rng = builder.rng
    radius = rng.uniform(0.3, 1.2) * np.array([rng.uniform(0.7, 1.6), rng.uniform(0.7, 1.2), rng.uniform(0.6, 1.1)])
    center = np.array([0, 0, radius[2] * 0.9])
    points = _crown(rng, center, radius, int(rng.integers(120, 260)))
    points[:, 2] = np.abs(points[:, 2])
    size = float(radius.max())
    return item_of("vegetation", [Part(_cards(rng, points, (0.25 * size, 0.5 * size), center), _leaves(builder))])


def tree(builder: SceneBuilder) -> Item:
    """Any of the above."""
    return (broadleaf, broadleaf, broadleaf, conifer, bush)[int(builder.rng.integers(5))](builder)


def potted_plant(builder: SceneBuilder) -> Item:
    """A plant in a pot, from windowsill to floor size."""
    rng = builder.rng
    height = rng.choice([rng.uniform(0.2, 0.5), rng.uniform(0.6, 1.8)])
    pot, rim = height * rng.uniform(0.2, 0.35), height * rng.uniform(0.1, 0.18)
    vessel = lathe(
        [(0, 0), (rim * 0.7, 0), (rim, pot), (rim * 0.88, pot), (rim * 0.85, pot * 0.85), (0, pot * 0.85)], 20
    )
    radius = np.array([1.6 * rim, 1.6 * rim, (height - pot) / 2])
    center = np.array([0, 0, pot + radius[2]])
    points = _crown(rng, center, radius, int(rng.integers(40, 130)))
    stems = [tube((0, 0, pot * 0.8), point, 0.006 * height, 0.003 * height, 5) for point in points[:6]]
    return item_of(
        "plant",
        [
            Part(vessel, Material(builder.color((0.2, 1), (0, 0.6)), -1, rng.uniform(0, 0.5))),
            Part(join(*stems), Material((0.15, 0.25, 0.08))),
            Part(_cards(rng, points, (0.12 * height, 0.3 * height), center), _leaves(builder)),
        ],
    )


class Grove:
    """A few species of trees and bushes, planted again and again; together they stay within a triangle budget."""

    def __init__(self, builder: SceneBuilder, species: int = 4, budget: int = 150_000) -> None:
        self._builder = builder
        self._left = budget
        self._items = [_pick_tree(builder, budget // 12) for _ in range(species)]

    def plant(self, x: float, y: float, z: float) -> None:
        """One tree of any of the species, as long as the budget lasts."""
        rng = self._builder.rng
        item = self._items[int(rng.integers(len(self._items)))]
        self._left -= _triangle_count(item)
        if self._left > 0:
            self._builder.place(item, (x, y, z - 0.03), rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.35))

    def add_row(self, side: int, distance: float, dense: bool) -> None:
        """Trees along the street: an alley, or a dense and irregular belt."""
        rng = self._builder.rng
        y = rng.uniform(-2, 6)
        while y < 70:
            across = rng.exponential(3) if dense else 0.0
            self.plant(side * (distance + across), y, 0.0)
            y += rng.uniform(1.5, 5) if dense else rng.uniform(5, 14)


def _pick_tree(builder: SceneBuilder, max_triangles: int) -> Item:
    """Mostly procedural: their leaf cards are far lighter than the catalogue's modelled leaves."""
    item = builder.pick("vegetation", "outdoor") if builder.rng.random() < 0.3 else tree(builder)
    return item if _triangle_count(item) < max_triangles else tree(builder)


def _triangle_count(item: Item) -> int:
    return sum(len(part.shape.positions) for part in item.parts)
