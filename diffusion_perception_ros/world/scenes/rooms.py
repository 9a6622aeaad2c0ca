"""Room shells: floor, walls, ceiling, windows, doors, pictures, rugs and lamps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder
from diffusion_perception_ros.world.items.shapes import box, quad, rotation_z, tube
from diffusion_perception_ros.world.scene import PointLight
from diffusion_perception_ros.world.scenes.placement import FloorPlan, Top
from diffusion_perception_ros.world.textures.tools import hsv


MAX_LIGHTS = 4
_SKIRTING = 0.1


@dataclass
class Room:
    """A closed box around the origin, being filled."""

    plan: FloorPlan
    height: float
    is_dark: bool
    tops: list[Top] = field(default_factory=list)
    windows: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = field(default_factory=list)
    """Centre and inward direction of each window."""
    _on_walls: list[list[tuple[float, float, float, float]]] = field(default_factory=lambda: [[], [], [], []])

    def wall_length(self, wall: int) -> float:
        """Walls 0 and 2 run along x, 1 and 3 along y."""
        return self.plan.width if wall % 2 == 0 else self.plan.depth

    def at_wall(self, wall: int, along: float, out: float, z: float = 0.0) -> tuple[npt.NDArray[np.float64], float]:
        """World position of a point `out` metres before a wall, and the yaw of things with their back to it."""
        away = (self.plan.depth if wall % 2 == 0 else self.plan.width) / 2
        yaw = wall * np.pi / 2
        return rotation_z(yaw).astype(float) @ np.array([along, away - out, 0.0]) + np.array([0, 0, z]), yaw

    def reserve(self, wall: int, along: float, width: float, low: float, high: float) -> None:
        """Mark a stretch of a wall between two heights as used."""
        self._on_walls[wall].append((along, width, low, high))

    def find_on_wall(self, rng: np.random.Generator, wall: int, width: float, low: float, high: float) -> float | None:
        """A free stretch of a wall for something `width` wide between two heights; it counts as used from then on."""
        reach = (self.wall_length(wall) - width) / 2
        if reach < 0 or high > self.height:
            return None
        for _ in range(8):
            along = rng.uniform(-reach, reach)
            if all(
                abs(along - a) > (width + w) / 2 + 0.03 or low > top or high < bottom
                for a, w, bottom, top in self._on_walls[wall]
            ):
                self.reserve(wall, along, width, low, high)
                return along
        return None


def build_shell(builder: SceneBuilder, width: float, depth: float, height: float, is_dark: bool = False) -> Room:
    """Floor, four walls and ceiling with surfaces that go together."""
    rng = builder.rng
    room = Room(FloorPlan(width, depth), height, is_dark)
    _floor_and_ceiling(builder, room)
    tag = builder.tag("wall")
    common, accent = _wall_material(builder, is_dark), _wall_material(builder, is_dark)
    accent_wall = int(rng.integers(4)) if rng.random() < 0.3 else -1
    skirting = Material(builder.color((0.1, 0.5) if is_dark else (0.5, 1), (0, 0.3))) if rng.random() < 0.6 else None
    panel = _wall_material(builder, is_dark) if rng.random() < 0.15 else None  # wainscot, tiles to chest height
    panel_height = rng.uniform(0.8, 1.5)
    for wall in range(4):
        material, tiling = accent if wall == accent_wall else common
        length = room.wall_length(wall)
        start, yaw = room.at_wall(wall, -length / 2, 0, height)
        along = rotation_z(yaw) @ np.array([length, 0, 0])
        builder.add(quad(start, along, (0, 0, -height), (length * tiling, height * tiling)), tag, material)
        foot, _ = room.at_wall(wall, 0, 0.008)
        if panel is not None:
            shape = box((length, 0.02, panel_height), (0, 0, panel_height / 2), panel[1])
            builder.add(shape.moved(foot, yaw), tag, panel[0])
        if skirting is not None:
            builder.add(box((length, 0.04, _SKIRTING), (0, 0, _SKIRTING / 2)).moved(foot, yaw), tag, skirting)
    return room


def _floor_and_ceiling(builder: SceneBuilder, room: Room) -> None:
    rng = builder.rng
    width, depth, height = room.plan.width, room.plan.depth, room.height
    kinds = (
        "wood",
        "wood",
        "wood",
        "tiles",
        "tiles",
        "carpet",
        "carpet",
        "carpet",
        "speckle",
        "plaster",
        "marble",
        "checker",
    )
    value = (0.25, 0.7) if room.is_dark else (0.6, 1.0)
    saturation = (0.1, 0.7) if room.is_dark and rng.random() < 0.6 else (0, 0.15)
    glossy = rng.random() < builder.config.room.glossy_floor_share
    floor = Material(builder.color(value, saturation), builder.texture(*kinds), rng.uniform(0.2, 0.9) if glossy else 0)
    tiling = rng.uniform(0.4, 1.6)
    repeat = (width * tiling, depth * tiling)
    builder.add(quad((-width / 2, -depth / 2, 0), (width, 0, 0), (0, depth, 0), repeat), builder.tag("floor"), floor)
    texture = builder.texture("plaster", "plaster", "wood", "tiles", "speckle") if rng.random() < 0.5 else -1
    ceiling = Material(builder.color((0.3, 0.8) if room.is_dark else (0.8, 1), (0, 0.12)), texture)
    builder.add(
        quad((-width / 2, -depth / 2, height), (width, 0, 0), (0, depth, 0), (width * 0.8, depth * 0.8)),
        builder.tag("ceiling"),
        ceiling,
    )


def _wall_material(builder: SceneBuilder, is_dark: bool) -> tuple[Material, float]:
    rng = builder.rng
    kind = builder.choice(("plaster",) * 7 + ("stripes", "tiles", "bricks", "wood", "fabric", "speckle"))
    if is_dark:
        color = builder.color((0.15, 0.65), (0.1, 0.8))
    elif rng.random() < 0.55:
        color = hsv(rng.uniform(0.05, 0.17), rng.uniform(0, 0.18), rng.uniform(0.75, 1)) ** 2.2
    else:
        color = builder.color((0.5, 1), (0, 0.45))
    return Material(color, builder.texture(kind), rng.uniform(0, 0.15)), rng.uniform(0.4, 1.4)


def add_openings(builder: SceneBuilder, room: Room, windows: int, doors: int) -> None:
    """Windows with a view (they give light) and doors."""
    rng = builder.rng
    for _ in range(windows):
        _add_window(builder, room, int(rng.integers(4)))
    for _ in range(doors):
        add_door(builder, room, int(rng.integers(4)))


def _add_window(builder: SceneBuilder, room: Room, wall: int) -> None:
    rng = builder.rng
    item = builder.pick("window", "wall")
    width, depth, height = np.array(item.size) * (rng.uniform(0.8, 1.3), 1, rng.uniform(0.9, 1.2))
    height = min(height, room.height - 0.25)
    low = rng.uniform(0.5, max(0.51, min(1.1, room.height - height - 0.15))) if height < 1.8 else 0.02
    along = room.find_on_wall(rng, wall, width, low, low + height)
    if along is None:
        return
    at, yaw = room.at_wall(wall, along, depth / 2, low)
    tag = builder.place(item, at, yaw, np.array([width, depth, height]) / item.size)
    pane, _ = room.at_wall(wall, along, 0.012, low)
    right = rotation_z(yaw) @ np.array([0.96 * width, 0, 0])
    view = quad(pane - right / 2 + np.array([0, 0, 0.97 * height]), right, (0, 0, -0.94 * height))
    if tag is not None:
        texture = builder.texture("landscape") if rng.random() < 0.75 else -1
        dim = rng.uniform(0.1, 0.7) if room.is_dark else rng.uniform(0.7, 2.5)
        builder.add(view, tag, Material(builder.color((0.85, 1), (0, 0.15)), texture, 0.3, dim))
    inward = rotation_z(yaw) @ np.array([0, -1.0, 0])
    room.windows.append((pane + np.array([0, 0, height / 2]), inward.astype(float)))
    if rng.random() < 0.3:
        _add_curtains(builder, room, wall, along, width, low + height)


def _add_curtains(builder: SceneBuilder, room: Room, wall: int, along: float, width: float, top: float) -> None:
    rng = builder.rng
    material = Material(builder.color((0.4, 1), (0, 0.5)), builder.texture("curtain"))
    drop = top + 0.08 if rng.random() < 0.6 else rng.uniform(0.6, 1) * top
    tag = builder.tag("curtain")
    for side in (-1, 1):
        cloth = rng.uniform(0.15, 0.5) * width
        at, yaw = room.at_wall(wall, along + side * width / 2, 0.1, min(top + 0.08, room.height) - drop / 2)
        count = max(4, int(cloth * 24))
        x = np.linspace(-cloth / 2, cloth / 2, count)
        fold = 0.035 * np.where(np.arange(count) % 2, 1, -1)
        for i in range(count - 1):
            start = np.array([x[i], fold[i], drop / 2])
            step = np.array([x[i + 1] - x[i], fold[i + 1] - fold[i], 0])
            builder.add(quad(start, step, (0, 0, -drop)).moved(at, yaw), tag, material)


def add_door(builder: SceneBuilder, room: Room, wall: int, along: float | None = None) -> None:
    """A door on a wall, where there is room for it; the floor before it is kept free."""
    rng = builder.rng
    item = builder.pick("door", "wall")
    width, depth, height = item.size
    if height > room.height or width > 1.7:
        return
    if along is None:
        along = room.find_on_wall(rng, wall, width, 0, height)
    if along is None:
        return
    at, yaw = room.at_wall(wall, along, depth / 2)
    builder.place(item, at, yaw)
    before, _ = room.at_wall(wall, along, depth + 0.3)
    room.plan.take(before[0], before[1], 0.35, 0.35, 0.05)


def add_pictures(builder: SceneBuilder, room: Room, count: int) -> None:
    """Framed pictures and posters."""
    rng = builder.rng
    for _ in range(count):
        wall, width, height = int(rng.integers(4)), rng.uniform(0.2, 1.2), rng.uniform(0.2, 0.9)
        low = rng.uniform(0.9, 1.7)
        along = room.find_on_wall(rng, wall, width, low, low + height)
        if along is None:
            continue
        thick, border = rng.uniform(0.005, 0.04), rng.uniform(0, 0.06)
        at, yaw = room.at_wall(wall, along, thick / 2, low + height / 2)
        tag = builder.tag("picture")
        builder.add(box((width, thick, height)).moved(at, yaw), tag, Material(builder.color((0.05, 0.9), (0, 0.5))))
        inner = (width - 2 * border, 0.002, height - 2 * border)
        sheet = Material(np.ones(3) * 0.9, builder.texture("cover", "cover", "page", "landscape"), rng.uniform(0, 0.4))
        builder.add(box(inner, (0, -thick / 2 - 0.001, 0)).moved(at, yaw), tag, sheet)


def add_rug(builder: SceneBuilder, room: Room) -> None:
    """A carpet on the floor: part of the floor, as robots drive over it."""
    rng = builder.rng
    width, depth = rng.uniform(0.8, 2.8), rng.uniform(0.6, 2.0)
    x, y = rng.uniform(-0.3, 0.3, 2) * (room.plan.width, room.plan.depth)
    material = Material(
        builder.color((0.3, 1), (0, 0.5)), builder.texture("carpet", "fabric", "stripes", "checker", "cover")
    )
    shape = box((width, depth, 0.015), (0, 0, 0.0075), rng.uniform(0.4, 1.5))
    yaw = rng.uniform(0, np.pi) if rng.random() < 0.3 else 0.0
    builder.add(shape.moved((x, y, 0), yaw), builder.tag("floor"), material)


def add_pipes(builder: SceneBuilder, room: Room) -> None:
    """Pipes or cable ducts along a wall."""
    rng = builder.rng
    wall, radius = int(rng.integers(4)), rng.uniform(0.01, 0.06)
    z = rng.choice([rng.uniform(0.12, 0.4), room.height - rng.uniform(0.15, 0.5)])
    length = room.wall_length(wall)
    (start, _), (end, _) = (room.at_wall(wall, side * length / 2, radius + 0.03, z) for side in (-1, 1))
    builder.add(tube(start, end, radius), builder.tag("wall"), Material(builder.color((0.3, 0.9), (0, 0.4)), -1, 0.4))


def add_lamps(builder: SceneBuilder, room: Room) -> None:
    """Hanging lamps or flat ceiling lights, as furniture; `room_lights` gives the light."""
    rng = builder.rng
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(-0.35, 0.35, 2) * (room.plan.width, room.plan.depth)
        item = builder.pick("lamp", "ceiling") if rng.random() < 0.5 else ceiling_panel(builder)
        if item.size[2] < room.height - 1.9 and max(item.size[:2]) < 1.6:
            builder.place(item, (x, y, room.height - item.size[2]), rng.integers(4) * np.pi / 2)


def ceiling_panel(builder: SceneBuilder) -> Item:
    """A flat ceiling light that glows."""
    w, d = builder.rng.choice([(0.6, 0.6), (1.2, 0.3), (0.3, 0.3), (1.2, 0.6)])
    frame = Part(box((w, d, 0.05), (0, 0, 0.025)), Material((0.85, 0.85, 0.85)))
    glow = Part(box((w * 0.94, d * 0.92, 0.01), (0, 0, 0)), Material((1, 1, 1), -1, 0, builder.rng.uniform(1, 4)))
    return Item("lamp", (float(w), float(d), 0.05), [frame, glow])


def room_lights(builder: SceneBuilder, room: Room) -> tuple[list[PointLight], tuple[float, float, float]]:
    """Lamps below the ceiling, light through the windows, and the ambient light that goes with them."""
    rng, config = builder.rng, builder.config.light
    size = max(room.plan.width, room.plan.depth)
    lights = []
    for _ in range(int(rng.integers(config.lamps[0], config.lamps[1] + 1))):
        x, y = rng.uniform(-0.4, 0.4, 2) * (room.plan.width, room.plan.depth)
        warm = (
            hsv(rng.uniform(0.05, 0.14), rng.uniform(0, 0.45), 1)
            if rng.random() < 0.7
            else hsv(0.58, rng.uniform(0, 0.25), 1)
        )
        power = rng.uniform(0.4, 1.5) * (0.6 + 0.25 * min(size, 9)) ** 2
        lights.append(_point((x, y, room.height - rng.uniform(0.08, 0.6)), warm * power))
    for center, inward in room.windows[:2]:
        daylight = hsv(rng.uniform(0.54, 0.62) if rng.random() < 0.6 else 0.1, rng.uniform(0, 0.3), 1)
        power = rng.uniform(0.5, 3) * (0.15 if room.is_dark else 1)
        lights.append(_point(center + 0.2 * inward, daylight * power))
    order = rng.permutation(len(lights))[:MAX_LIGHTS]
    ambient = hsv(rng.random(), rng.uniform(0, 0.15), 1) * rng.uniform(*config.ambient) * (0.4 if room.is_dark else 1)
    return [lights[i] for i in order], (float(ambient[0]), float(ambient[1]), float(ambient[2]))


def _point(position: npt.ArrayLike, color: npt.ArrayLike) -> PointLight:
    x, y, z = (float(value) for value in np.asarray(position))
    r, g, b = (float(value) for value in np.asarray(color))
    return PointLight((x, y, z), (r, g, b))
