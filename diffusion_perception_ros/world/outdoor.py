"""Streets, parks, tracks and yards: ground, roads, façades, parked cars, trees."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.cameras import View
from diffusion_perception_ros.world.plants import tree
from diffusion_perception_ros.world.scene import DirectionalLight
from diffusion_perception_ros.world.shapes import Shape, box, extrude, join, quad, rotation_z, sphere, surface
from diffusion_perception_ros.world.textures import hsv


_REACH = 120.0
"""Half the length of streets and half the side of the ground."""


def build_street(builder: SceneBuilder) -> View:
    """A road along y with pavements, house fronts or greenery at both sides, cars, trees and street furniture."""
    rng = builder.rng
    lanes = int(rng.choice([1, 2, 2, 2, 3, 4]))
    half_road = lanes * rng.uniform(2.6, 3.6) / 2
    pavement = rng.choice([0.0, rng.uniform(1.2, 4)], p=[0.15, 0.85])
    _add_road(builder, half_road, lanes, pavement)
    edge = half_road + pavement
    trees = _Trees(builder)
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
    x = rng.uniform(-0.8, 0.8) * edge
    eye_height = rng.uniform(1.2, 2.2) if abs(x) < half_road else rng.uniform(0.4, 1.8)
    heading = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(-1.2, 1.2)
    eye = np.array([x, 0.0, eye_height])
    return eye, eye + np.array([np.sin(heading) * 10, np.cos(heading) * 10, rng.normal(-0.4, 0.7)])


def build_nature(builder: SceneBuilder) -> View:
    """A meadow, track or yard on uneven ground with trees, bushes, rocks and now and then a house."""
    rng = builder.rng
    ground = _add_terrain(builder)
    if rng.random() < 0.6:
        _add_track(builder, ground)
    trees = _Trees(builder)
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
        _add_house(builder, rng.uniform(-15, 15), rng.uniform(14, 45), rng.uniform(0, np.pi))
    if rng.random() < 0.35:
        _add_fence(builder, ground, rng.uniform(4, 14), rng.uniform(-0.4, 0.4))
    height = rng.uniform(0.25, 1.9)
    eye = np.array([0.0, 0.0, ground.height(0, 0) + height])
    return eye, eye + np.array([rng.normal(0, 2), 10.0, rng.normal(-1.2, 1.2)])


def sun(
    builder: SceneBuilder,
) -> tuple[DirectionalLight, tuple[float, float, float], tuple[float, float, float], float]:
    """Sunlight, ambient light, the sky's colour and its cloud cover, which belong together."""
    rng, config = builder.rng, builder.config.light
    elevation, azimuth = np.radians(rng.uniform(*config.sun_elevation_deg)), rng.uniform(0, 2 * np.pi)
    direction = (
        float(np.cos(elevation) * np.cos(azimuth)),
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
    )
    clouds = float(np.clip(rng.normal(0.4, 0.35), 0, 1))
    sky = hsv(rng.uniform(0.54, 0.62), rng.uniform(0.1, 0.6) * (1 - 0.8 * clouds), rng.uniform(0.85, 1)) ** 2.2
    if rng.random() < 0.12:
        sky = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.4), 1) ** 2.2
    strength = (1 - 0.85 * clouds) * rng.uniform(1.5, 4)
    color = hsv(rng.uniform(0.07, 0.13), 0.35 * (1 - np.sin(elevation)) + 0.05, 1) * strength
    ambient = (0.5 * sky + 0.5) * rng.uniform(0.35, 0.8)
    return (
        DirectionalLight(direction, (float(color[0]), float(color[1]), float(color[2]))),
        (float(ambient[0]), float(ambient[1]), float(ambient[2])),
        (float(sky[0]), float(sky[1]), float(sky[2])),
        clouds,
    )


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
        starts = np.arange(-10.0, 70.0, dash + gap)
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
        _add_house(builder, side * (distance + 5), y + width / 2, side * np.pi / 2, width, 10.0)
        y += width + (0 if is_closed else rng.uniform(0.5, 7))


def _add_house(
    builder: SceneBuilder, x: float, y: float, yaw: float, width: float | None = None, depth: float | None = None
) -> None:
    """A house with windows all round, a door, and a flat or pitched roof."""
    rng = builder.rng
    width, depth = width or rng.uniform(6, 14), depth or rng.uniform(6, 12)
    storeys = int(rng.choice([1, 2, 2, 3, 3, 4, 5, 7]))
    storey = rng.uniform(2.6, 3.4)
    height = storeys * storey
    tag = builder.tag("building")
    bays = max(2, round(width / rng.uniform(2.2, 4)))
    front = Material(builder.color((0.7, 1), (0, 0.25)), builder.texture("facade"))
    body = box((width, depth, height), (0, 0, height / 2))
    counts = np.where(np.abs(body.normals[:, :1, 0:1]) > 0.5, max(2, round(depth / 3)), bays)
    uvs = body.uvs * np.concatenate([counts, np.full_like(counts, storeys)], axis=-1)
    builder.add(Shape(body.positions, body.normals, uvs.astype(np.float32)).moved((x, y, 0), yaw), tag, front)
    plinth = Material(builder.color((0.2, 0.8), (0, 0.3)), builder.texture("plaster", "slabs", "bricks"))
    base_height = rng.choice([rng.uniform(0.3, 0.9), storey])
    base = box((width + 0.06, depth + 0.06, base_height), (0, 0, base_height / 2), 0.5)
    builder.add(base.moved((x, y, 0), yaw), tag, plinth)
    opening = Material(builder.color((0.05, 0.6), (0, 0.6)), builder.texture("wood", "metal", "plaster"), 0.3)
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.choice([(1.0, 2.1), (2.4, 2.2), (1.6, 2.2)])
        shape = box((w, 0.06, h), (rng.uniform(-0.4, 0.4) * width, -depth / 2 - 0.05, h / 2))
        builder.add(shape.moved((x, y, 0), yaw), tag, opening)
    if rng.random() < 0.6:
        rise, over = rng.uniform(1.5, 4), 0.4
        gable = extrude([(-depth / 2 - over, 0), (depth / 2 + over, 0), (0, rise)], width + 0.3, 0.5)
        turned = gable.moved((-(width + 0.3) / 2, 0, 0), rotation=[[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        builder.add(
            turned.moved((0, 0, height)).moved((x, y, 0), yaw), tag, Material((0.8, 0.8, 0.8), builder.texture("roof"))
        )


def _add_wall(builder: SceneBuilder, side: int, distance: float) -> None:
    rng = builder.rng
    height = rng.uniform(0.8, 3)
    material = Material(builder.color((0.4, 1), (0, 0.3)), builder.texture("bricks", "plaster", "slabs", "wood"))
    builder.add(box((0.25, 160, height), (side * distance, 60, height / 2), 0.6), builder.tag("building"), material)


class _Trees:
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
        for y in np.arange(rng.uniform(2, 12), 70, rng.uniform(12, 28)):
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


class _Terrain:
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

    def heights(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        total = self._slope[0] * x + self._slope[1] * y
        for direction, size, phase in self._waves:
            total = total + size * np.sin(direction[0] * x + direction[1] * y + phase)
        return total


def _add_terrain(builder: SceneBuilder) -> _Terrain:
    rng = builder.rng
    terrain = _Terrain(rng)
    steps = np.sign(np.linspace(-1, 1, 61)) * np.abs(np.linspace(-1, 1, 61)) ** 2 * _REACH
    builder.add(
        _draped(terrain, *np.meshgrid(steps, steps, indexing="ij"), 0.4, 0.0),
        builder.tag("ground"),
        Material(builder.color((0.6, 1), (0, 0.2)), builder.texture("grass", "grass", "soil", "slabs")),
    )
    return terrain


def _draped(terrain: _Terrain, x: np.ndarray, y: np.ndarray, tiling: float, lift: float) -> Shape:  # type: ignore[type-arg]
    """A grid of points laid over the terrain."""
    z = terrain.heights(x, y) + lift
    step = 0.05
    slope_x = (terrain.heights(x + step, y) - z + lift) / step
    slope_y = (terrain.heights(x, y + step) - z + lift) / step
    normals = np.stack([-slope_x, -slope_y, np.ones_like(z)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return surface(np.stack([x, y, z], axis=-1), normals, np.stack([x, y], axis=-1) * tiling)


def _add_track(builder: SceneBuilder, terrain: _Terrain) -> None:
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


def _add_rock(builder: SceneBuilder, terrain: _Terrain) -> None:
    rng = builder.rng
    x, y, size = rng.uniform(-8, 8), rng.uniform(2, 20), rng.uniform(0.1, 0.8)
    shape = sphere(size * rng.uniform(0.5, 1, 3), (x, y, terrain.height(x, y) + 0.1 * size), 10)
    material = Material(builder.color((0.4, 0.9), (0, 0.2)), builder.texture("soil", "slabs", "speckle"))
    builder.add(shape, builder.tag("object"), material)


def _add_fence(builder: SceneBuilder, terrain: _Terrain, distance: float, yaw: float) -> None:
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
