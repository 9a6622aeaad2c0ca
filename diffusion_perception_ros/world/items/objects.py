"""Small procedural things: packages, cans, bottles, bowls, cups, books … what stands on tables and lies in bins."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import plastic, printed
from diffusion_perception_ros.world.items.shapes import Shape, box, join, lathe, rotation_x, sphere, tube


def package(builder: SceneBuilder) -> Item:
    """A printed food or parcel box, standing or lying."""
    rng = builder.rng
    size = np.array([rng.uniform(0.05, 0.24), rng.uniform(0.03, 0.12), rng.uniform(0.06, 0.3)])
    if rng.random() < 0.4:
        size = size[[0, 2, 1]]
    body = box(size, (0, 0, size[2] / 2))
    side = Material(builder.color((0.3, 1), (0.1, 0.9)), builder.texture("package", "plaster"))
    front = printed(builder, "package", "package", "cover")
    is_front = np.abs(body.normals[:, 0, int(np.argmin(size))]) > 0.5
    parts = [
        Part(Shape(*(values[is_front] for values in body)), front),
        Part(Shape(*(values[~is_front] for values in body)), side),
    ]
    return item_of("box", parts, float(size[2]))


def carton(builder: SceneBuilder, largest: float = 0.5) -> Item:
    """A cardboard box, closed or open."""
    rng = builder.rng
    size = rng.uniform(0.12, largest, 3) * (1, rng.uniform(0.5, 1), rng.uniform(0.4, 1))
    material = Material(np.ones(3) * rng.uniform(0.6, 1), builder.texture("cardboard"))
    if rng.random() < 0.75:
        return item_of("box", [Part(box(size, (0, 0, size[2] / 2)), material)], float(size[2]))
    parts = [Part(open_box(size, 0.006), material)]
    for side in range(4):  # flaps
        reach = size[1 - side % 2] / 2
        flap = box((size[side % 2] * 0.98, size[1 - side % 2] * 0.45, 0.004), (0, size[1 - side % 2] * 0.22, 0))
        flap = flap.moved((0, 0, 0), rotation=rotation_x(rng.uniform(-1.2, 0.9))).moved((0, reach, size[2]))
        parts.append(Part(flap.moved(yaw=side * np.pi / 2), material))
    return item_of("box", parts)


def open_box(size: npt.ArrayLike, wall: float, tiling: float | None = None) -> Shape:
    """Floor and four walls, open at the top, base at z = 0."""
    w, d, h = np.asarray(size, float)
    return join(
        box((w, d, wall), (0, 0, wall / 2), tiling),
        box((w, wall, h), (0, (d - wall) / 2, h / 2), tiling),
        box((w, wall, h), (0, -(d - wall) / 2, h / 2), tiling),
        box((wall, d, h), ((w - wall) / 2, 0, h / 2), tiling),
        box((wall, d, h), (-(w - wall) / 2, 0, h / 2), tiling),
    )


def can(builder: SceneBuilder) -> Item:
    """A tin or jar: printed wall, metal or coloured lid."""
    rng = builder.rng
    radius, height = rng.uniform(0.025, 0.08), rng.uniform(0.05, 0.18)
    wall = lathe([(radius, 0.003), (radius, height - 0.003)], 24, (2, 1))
    rim = lathe([(0, 0), (radius * 0.97, 0), (radius, 0.003)], 24)
    lid = lathe(
        [(radius, height - 0.003), (radius * 0.96, height), (radius * 0.92, height - 0.004), (0, height - 0.004)], 24
    )
    label = printed(builder, "package", "package", "stripes", "wood") if rng.random() < 0.75 else plastic(builder)
    top = (
        Material(np.ones(3) * rng.uniform(0.3, 0.9), builder.texture("metal"), 0.5)
        if rng.random() < 0.6
        else plastic(builder)
    )
    return item_of("container", [Part(wall, label), Part(join(rim, lid), top)], height)


def bottle(builder: SceneBuilder) -> Item:
    """A bottle with a label and a cap."""
    rng = builder.rng
    radius, height = rng.uniform(0.022, 0.055), rng.uniform(0.12, 0.33)
    neck, shoulder = radius * rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.75)
    t = np.linspace(0, 1, 6)
    curve = np.stack(
        [radius + (neck - radius) * (3 * t**2 - 2 * t**3), height * (shoulder + t * (0.9 - shoulder))], -1
    )
    body = np.concatenate([[(0, 0), (radius * 0.9, 0), (radius, 0.006)], curve, [(neck, height * 0.93)]])
    cap = [(neck * 1.15, height * 0.9), (neck * 1.15, height), (0, height)]
    low, high = height * shoulder * rng.uniform(0.1, 0.3), height * shoulder * rng.uniform(0.7, 0.95)
    label = lathe([(radius * 1.01, low), (radius * 1.01, high)], 20, (2, 1))
    glass = Material(builder.color((0.1, 0.95), (0, 0.9)), -1, 0.8)
    parts = [Part(lathe(body, 20), glass), Part(lathe(cap, 14), plastic(builder))]
    if rng.random() < 0.8:
        parts.append(Part(label, printed(builder, "package", "page", "cover")))
    return item_of("container", parts)


def bowl(builder: SceneBuilder) -> Item:
    """A bowl, pan or plate, open towards the top."""
    rng = builder.rng
    radius = rng.uniform(0.05, 0.17)
    height = radius * rng.choice([rng.uniform(0.1, 0.25), rng.uniform(0.5, 1.1)])
    angle = np.linspace(0.25, np.pi / 2 * rng.uniform(0.75, 1), 7)
    outside = np.stack([radius * np.sin(angle), height * (1 - np.cos(angle)) / (1 - np.cos(angle[-1]))], axis=-1)
    outside[0, 1] = 0
    inside = outside[::-1] * (0.95, 1) + (0, 0.004)
    inside[0] = outside[-1] * (0.96, 1)
    profile = np.concatenate([[(0, 0)], outside, inside, [(0, inside[-1, 1])]])
    material = plastic(builder) if rng.random() < 0.8 else printed(builder, "wood", "metal", "stripes")
    return item_of("container", [Part(lathe(profile, 28), material)])


def cup(builder: SceneBuilder) -> Item:
    """A mug with its handle."""
    rng = builder.rng
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.06, 0.12)
    foot = radius * rng.uniform(0.65, 1)
    wall = [(0, 0), (foot, 0), (radius, height), (radius * 0.92, height), (foot * 0.9, 0.006), (0, 0.006)]
    angle = np.linspace(-1.2, 1.2, 6)
    handle = np.stack(
        [radius * 0.95 + height * 0.3 * np.cos(angle), 0 * angle, height * (0.5 + 0.33 * np.sin(angle))], -1
    )
    pieces = [tube(a, b, 0.005, segments=6) for a, b in pairwise(handle)]
    outside = plastic(builder) if rng.random() < 0.7 else printed(builder, "package", "stripes")
    return item_of("container", [Part(join(lathe(wall, 22), *pieces), outside)])


def book(builder: SceneBuilder) -> Item:
    """A closed book or a stack of them, lying."""
    rng = builder.rng
    width, depth = rng.uniform(0.1, 0.24), rng.uniform(0.14, 0.31)
    parts, height = [], 0.0
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        thick = rng.uniform(0.006, 0.05)
        w, d = width * rng.uniform(0.85, 1), depth * rng.uniform(0.85, 1)
        yaw = rng.uniform(-0.2, 0.2)
        pages = box((w - 0.008, d - 0.008, thick - 0.004), (0.003, 0, height + thick / 2))
        covers = join(*(box((w, d, 0.002), (0, 0, height + z)) for z in (0.001, thick - 0.001)))
        spine = box((0.002, d, thick), (-w / 2, 0, height + thick / 2))
        parts.append(Part(pages.moved(yaw=yaw), Material((0.8, 0.77, 0.68))))
        parts.append(Part(join(covers, spine).moved(yaw=yaw), printed(builder, "cover", "cover", "package")))
        height += thick
    return item_of("box", parts, height)


def papers(builder: SceneBuilder) -> Item:
    """Loose sheets, a magazine or a newspaper."""
    rng = builder.rng
    parts = []
    for sheet in range(int(rng.integers(1, 4))):
        size = rng.choice([(0.21, 0.297), (0.15, 0.21), (0.3, 0.42)])
        shape = box((*size, 0.001), (*rng.uniform(-0.06, 0.06, 2), 0.001 + 0.0015 * sheet))
        parts.append(Part(shape.moved(yaw=rng.uniform(-0.5, 0.5)), printed(builder, "page", "page", "cover")))
    return item_of("object", parts)


def ball(builder: SceneBuilder) -> Item:
    """A ball or a fruit."""
    rng = builder.rng
    radius = rng.choice([rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.13)])
    material = plastic(builder) if rng.random() < 0.6 else printed(builder, "package", "stripes", "checker")
    return item_of("object", [Part(sphere(radius, (0, 0, radius), 18), material)])


def pouch(builder: SceneBuilder) -> Item:
    """A soft bag of crisps, coffee or cloth: a pillow with dents."""
    rng = builder.rng
    w, d, h = rng.uniform(0.08, 0.25), rng.uniform(0.1, 0.3), rng.uniform(0.02, 0.09)
    body = sphere((w / 2, d / 2, h / 2), (0, 0, h / 2), 20)
    x, y = body.positions[..., 0] / w * 2, body.positions[..., 1] / d * 2
    swell = np.clip(1.25 - 0.25 * (x**2 + y**2), 0.8, 1.3)[..., None]  # pulls the outline towards a rectangle
    dents = 1 + 0.12 * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6)) * np.sin(y * rng.uniform(3, 7))
    positions = body.positions * np.concatenate([swell, swell, dents[..., None]], axis=-1).astype(np.float32)
    uvs = np.stack([0.5 + 0.45 * x, 0.5 + 0.45 * y], axis=-1).astype(np.float32)
    material = printed(builder, "package", "package", "cover", "fabric")
    return item_of("object", [Part(Shape(positions, body.normals, uvs), material)])


def vase(builder: SceneBuilder) -> Item:
    """A vase, jug or candlestick of any profile."""
    rng = builder.rng
    height, radius = rng.uniform(0.08, 0.4), rng.uniform(0.03, 0.12)
    z = np.linspace(0, 1, 9)
    profile = radius * np.interp(z, np.linspace(0, 1, 4), rng.uniform(0.35, 1, 4))
    line = np.concatenate(
        [[(0, 0)], np.stack([profile, z * height], -1), [(profile[-1] * 0.85, height), (0, height * 0.7)]]
    )
    return item_of(
        "container",
        [
            Part(
                lathe(line, 22),
                plastic(builder, 0.7) if rng.random() < 0.8 else printed(builder, "marble", "stripes"),
            )
        ],
    )


def tray(builder: SceneBuilder) -> Item:
    """A shallow open box of plastic or wood."""
    rng = builder.rng
    size = (rng.uniform(0.15, 0.45), rng.uniform(0.12, 0.35), rng.uniform(0.03, 0.18))
    material = plastic(builder) if rng.random() < 0.75 else printed(builder, "wood", "metal")
    return item_of("container", [Part(open_box(size, rng.uniform(0.004, 0.012)), material)])


def gadget(builder: SceneBuilder) -> Item:
    """A device of a few blocks: charger, remote control, kitchen machine."""
    rng = builder.rng
    w, d, h = rng.uniform(0.04, 0.3), rng.uniform(0.04, 0.2), rng.uniform(0.015, 0.25)
    body = plastic(builder, 0.6)
    detail = plastic(builder, 0.6)
    parts = [Part(box((w, d, h), (0, 0, h / 2)), body)]
    parts.append(
        Part(box((w * rng.uniform(0.3, 0.9), 0.004, h * rng.uniform(0.2, 0.6)), (0, -d / 2, h * 0.55)), detail)
    )
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.35, 0.35, 2) * (w, d)
        radius = rng.uniform(0.05, 0.2) * min(w, d)
        parts.append(Part(tube((x, y, h), (x, y, h + rng.uniform(0.003, 0.03)), radius), detail))
    return item_of("object", parts, h)


SMALL_THINGS: tuple[tuple[Callable[[SceneBuilder], Item], float], ...] = (
    (package, 5.0),
    (can, 2.5),
    (bottle, 2.0),
    (bowl, 2.0),
    (cup, 2.0),
    (book, 2.0),
    (papers, 2.0),
    (ball, 0.7),
    (pouch, 1.0),
    (vase, 0.7),
    (tray, 0.7),
    (gadget, 1.5),
    (carton, 0.4),
)
_WEIGHTS = np.array([weight for _, weight in SMALL_THINGS]) / sum(weight for _, weight in SMALL_THINGS)
_MESH_LABELS = ("container", "container", "object", "object", "object", "box", "plant", "lamp", "screen")


def small_thing(builder: SceneBuilder, mesh_share: float = 0.4) -> Item:
    """Anything that may stand on a table; a catalogue mesh with probability `mesh_share`, where there are any."""
    if builder.rng.random() < mesh_share:
        item = builder.pick_mesh(builder.choice(_MESH_LABELS), "top")
        if item is not None and max(item.size) > 0.04:
            return item
    return SMALL_THINGS[int(builder.rng.choice(len(SMALL_THINGS), p=_WEIGHTS))][0](builder)
