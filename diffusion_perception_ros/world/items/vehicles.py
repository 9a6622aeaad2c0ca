"""Procedural cars, trucks and bicycles; all drive towards -y."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import BLACK, GLASS, RUBBER, metal, printed
from diffusion_perception_ros.world.items.shapes import Shape, box, capsule, join, lathe, surface, tube


_SIDEWAYS = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32)
"""Turns an axis along z into one along x: for wheels."""


def car(builder: SceneBuilder) -> Item:
    """A hatchback, saloon or van: a lofted body, dark windows, lights and wheels."""
    rng = builder.rng
    kind = builder.choice(("hatch", "saloon", "van"))
    length = {"hatch": rng.uniform(3.5, 4.2), "saloon": rng.uniform(4.3, 4.9), "van": rng.uniform(4.4, 5.3)}[kind]
    width, height = rng.uniform(1.65, 1.9), rng.uniform(1.85, 2.1) if kind == "van" else rng.uniform(1.4, 1.6)
    waist = height * (0.5 if kind == "van" else 0.6)
    body = Material(builder.color((0.05, 1), (0, 0.1) if rng.random() < 0.6 else (0.4, 1)), -1, rng.uniform(0.4, 0.9))
    # stations along the car, as shares of its length from the front bumper: (y, z at the waist line)
    hull = _loft(
        [(0.0, 0.68), (0.03, 0.8), (0.25, 0.96), (0.6, 1.0), (0.95, 0.98), (1.0, 0.8)], length, width, 0.22, waist, 0.9
    )
    roof_line = {
        "hatch": [(0.24, 0.0), (0.4, 0.93), (0.55, 1.0), (0.85, 0.9), (0.97, 0.0)],
        "saloon": [(0.26, 0.0), (0.42, 0.95), (0.55, 1.0), (0.68, 0.92), (0.84, 0.0)],
        "van": [(0.08, 0.0), (0.2, 0.9), (0.3, 1.0), (0.97, 0.98), (0.995, 0.0)],
    }[kind]
    cabin = _loft(roof_line, length, width * 0.9, waist - 0.04, height, 0.8)
    glass = _loft([(y, z * 0.9) for y, z in roof_line], length + 0.02, width * 0.91, waist, height - 0.03, 0.83)
    wheels, rims = _wheels(rng.uniform(0.3, 0.36), length * 0.31, width * 0.45, 0.2)
    lights = join(*(box((0.35, 0.05, 0.14), (x * width * 0.36, -length / 2 + 0.08, waist * 0.72)) for x in (-1, 1)))
    tail = join(*(box((0.3, 0.05, 0.16), (x * width * 0.38, length / 2 - 0.05, waist * 0.8)) for x in (-1, 1)))
    lower = box((width * 0.94, length * 0.96, 0.16), (0, 0, 0.26))
    is_closed = kind == "van" and rng.random() < 0.5
    parts = [
        Part(join(hull, cabin), body),
        Part(_bands(glass, 0.35 if is_closed else 1.0, length), GLASS),
        Part(wheels, RUBBER),
        Part(rims, metal(builder)),
        Part(lights, Material((0.85, 0.85, 0.8), -1, 0.8)),
        Part(tail, Material((0.5, 0.02, 0.02), -1, 0.6)),
        Part(lower, BLACK),
        Part(box((0.5, 0.02, 0.11), (0, -length / 2 - 0.005, 0.45)), printed(builder, "page")),
    ]
    return item_of("car", parts)


def _loft(
    stations: list[tuple[float, float]], length: float, width: float, low: float, high: float, taper: float
) -> Shape:
    """A rounded body through cross-sections along y; `taper` narrows it towards the top and the ends."""
    y = np.interp(np.linspace(0, 1, 20), np.linspace(0, 1, len(stations)), [s[0] for s in stations])
    z = np.interp(y, [s[0] for s in stations], [s[1] for s in stations])
    end = 1 - (1 - taper) * np.abs(2 * (y - y[0]) / (y[-1] - y[0]) - 1) ** 6
    angle = np.linspace(0, np.pi, 17)
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.35
    up = np.abs(np.sin(angle)) ** 0.35
    narrowing = 1 - (1 - taper) * up**2
    top = low + (high - low) * z
    points = np.stack(
        [
            width / 2 * end[:, None] * across * narrowing,
            np.broadcast_to((y[:, None] - 0.5) * length, (len(y), len(angle))),
            low + (top[:, None] - low) * up,
        ],
        axis=-1,
    )
    normals = _grid_normals(points)
    uvs = np.stack(np.broadcast_arrays(y[:, None] * 2, angle), axis=-1)
    return surface(points, normals, uvs)


def _grid_normals(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where(length > 1e-9, normal / np.maximum(length, 1e-9), np.array([0.0, 0.0, 1.0]))


def _bands(shape: Shape, share: float, length: float) -> Shape:
    """The front `share` of a shape, with gaps where a car has its pillars."""
    y = shape.positions[..., 1].mean(axis=1) / length + 0.5
    normal = shape.normals.mean(axis=1)
    is_side = np.abs(normal[:, 0]) > 0.7
    is_pillar = is_side & (np.abs(y - 0.55) < 0.015)
    is_roof = normal[:, 2] > 0.85
    keep = ~is_pillar & ~is_roof & (y <= y.min() + share * (y.max() - y.min()))
    return Shape(*(values[keep] for values in shape))


def _wheels(radius: float, reach: float, track: float, thick: float) -> tuple[Shape, Shape]:
    """Tyres and rims of four wheels."""
    tyre = lathe([(radius * 0.6, 0), (radius, 0.02), (radius, thick - 0.02), (radius * 0.6, thick)], 22).moved(
        rotation=_SIDEWAYS
    )
    rim = tube((-0.01, 0, 0), (thick + 0.01, 0, 0), radius * 0.62, segments=16)
    spots = [(x * track - thick / 2, y * reach, radius) for x in (-1, 1) for y in (-1, 1)]
    return join(*(tyre.moved(spot) for spot in spots)), join(*(rim.moved(spot) for spot in spots))


def truck(builder: SceneBuilder) -> Item:
    """A box truck or a bus."""
    rng = builder.rng
    length, width, height = rng.uniform(6, 11), rng.uniform(2.3, 2.5), rng.uniform(2.8, 3.8)
    paint = Material(builder.color((0.3, 1), (0, 0.9)), builder.texture("plaster"), 0.3)
    front = -length / 2
    wheels, rims = _wheels(0.48, length * 0.33, width * 0.44, 0.3)
    if rng.random() < 0.5:  # bus
        panes = [
            box((width + 0.02, 1.1, 0.9), (0, y, height * 0.62))
            for y in np.arange(front + 1.2, -front - 0.6, 1.3).tolist()
        ]
        parts = [Part(box((width, length, height - 0.35), (0, 0, 0.35 + (height - 0.35) / 2)), paint)]
        parts.append(Part(join(*panes, box((width - 0.1, length + 0.02, 1.2), (0, 0, height * 0.6))), GLASS))
    else:
        cab = rng.uniform(1.6, 2.1)
        cargo = Material(builder.color((0.6, 1), (0, 0.6)), builder.texture("plaster", "metal", "package"))
        parts = [
            Part(box((width * 0.95, cab, 2.1), (0, front + cab / 2, 0.4 + 1.05)), paint),
            Part(box((width * 0.96, cab * 0.5, 0.8), (0, front + cab * 0.32, 1.95)), GLASS),
            Part(box((width * 0.85, 0.04, 0.85), (0, front - 0.01, 1.95)), GLASS),
            Part(
                box((width, length - cab - 0.15, height - 0.9), (0, cab / 2 + 0.07, 0.9 + (height - 0.9) / 2)), cargo
            ),
            Part(box((width * 0.5, length * 0.95, 0.3), (0, 0, 0.7)), BLACK),
        ]
    return item_of("truck", [*parts, Part(wheels, RUBBER), Part(rims, metal(builder))])


def cycle(builder: SceneBuilder) -> Item:
    """A bicycle."""
    rng = builder.rng
    radius, base = rng.uniform(0.28, 0.35), rng.uniform(0.95, 1.1)
    back, front = np.array([0, base / 2, radius]), np.array([0, -base / 2, radius])
    crank, seat, head = np.array([0, 0.08, 0.28]), np.array([0, 0.22, 0.85]), np.array([0, -base / 2 + 0.16, 0.82])
    bars = [(back, crank), (back, seat), (crank, seat), (crank, head), (seat, head), (front, head)]
    frame = join(*(tube(a, b, 0.016, segments=6) for a, b in bars))
    tyres = join(*(_ring(radius, 0.02, 28).moved(hub) for hub in (back, front)))
    spokes = [
        tube(hub, hub + radius * np.array([0, np.cos(angle), np.sin(angle)]), 0.002, segments=4)
        for hub in (back, front)
        for angle in np.arange(10) * 2 * np.pi / 10
    ]
    handle = tube(head + np.array([-0.27, 0, 0.12]), head + np.array([0.27, 0, 0.12]), 0.014, segments=6)
    stem = tube(head, head + np.array([0, 0, 0.12]), 0.014, segments=6)
    saddle = capsule(seat + np.array([0, -0.1, 0.06]), seat + np.array([0, 0.1, 0.07]), 0.03, 0.06)
    color = Material(builder.color((0.05, 1), (0.2, 1)), -1, 0.5)
    parts = [Part(frame, color), Part(join(tyres, saddle), RUBBER), Part(join(*spokes, handle, stem), metal(builder))]
    return item_of("cycle", parts)


def _ring(radius: float, thick: float, segments: int) -> Shape:
    """A torus about x."""
    angle = np.linspace(0, 2 * np.pi, 9)
    profile = np.stack([radius + thick * np.sin(angle), thick * np.cos(angle)], axis=-1)
    return lathe(profile, segments).moved(rotation=_SIDEWAYS)
