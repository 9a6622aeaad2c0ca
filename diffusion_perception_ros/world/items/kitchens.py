"""Fitted kitchens: base units under one worktop, sinks, hobs, built-in appliances, tall units and wall cabinets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_perception_ros.world.builder import Material, Part, SceneBuilder
from diffusion_perception_ros.world.items.finishes import BLACK, GLASS, WHITE, metal, printed, wood
from diffusion_perception_ros.world.items.objects import open_box
from diffusion_perception_ros.world.items.shapes import Shape, box, join, rotation_x, tube


Piece = tuple[str, list[Part]]
"""A class name and the parts of one instance, in the frame of the row: centred, the front along -y, floor at z = 0."""

_UNIT_WIDTHS = (0.3, 0.4, 0.45, 0.5, 0.6, 0.6, 0.6, 0.8, 0.9)
_GAP = 0.004
_FRONT = 0.02
"""Thickness of doors and drawer fronts."""
_BASIN = 0.19
"""Depth of a sink."""


@dataclass(frozen=True)
class KitchenStyle:
    """What all units of one kitchen have in common; metres."""

    depth: float
    height: float
    """Of the worktop's surface above the floor."""
    plate: float
    """Thickness of the worktop."""
    overhang: float
    """Of the worktop before the fronts."""
    plinth: float
    """Height of the recessed base."""
    front: Material
    worktop: Material
    base: Material
    handle: Material
    grip: str
    """`bar`, `knob`, `edge` (a metal strip on the upper edge) or `none`."""
    is_panelled: bool
    """Fronts with a raised frame."""


def kitchen_style(builder: SceneBuilder) -> KitchenStyle:
    """Fronts from strong lacquer over white to wood, a worktop of stone, steel or wood, the measures of real units."""
    rng = builder.rng
    look = rng.random()
    gloss = float(rng.choice([rng.uniform(0, 0.2), rng.uniform(0.3, 0.95)]))
    if look < 0.35:
        front = Material(builder.color((0.25, 0.85), (0.5, 1.0)), builder.texture("plaster"), gloss)
    elif look < 0.7:
        front = Material(builder.color((0.4, 1.0), (0, 0.12)), builder.texture("plaster"), gloss)
    else:
        front = Material(np.ones(3) * rng.uniform(0.4, 1), builder.texture("wood"), 0.5 * gloss)
    dark = rng.random() < 0.5
    stone = builder.texture("speckle", "speckle", "marble", "plaster", "wood")
    worktop = Material(
        builder.color((0.12, 0.35) if dark else (0.6, 1), (0, 0.2)), stone, float(rng.uniform(0.1, 0.9))
    )
    return KitchenStyle(
        depth=rng.uniform(0.56, 0.66),
        height=rng.uniform(0.85, 0.95),
        plate=rng.uniform(0.02, 0.05),
        overhang=rng.uniform(0.01, 0.05),
        plinth=rng.uniform(0.07, 0.17),
        front=front,
        worktop=worktop,
        base=metal(builder) if rng.random() < 0.4 else (BLACK if rng.random() < 0.5 else front),
        handle=metal(builder),
        grip=builder.choice(("bar", "bar", "bar", "knob", "edge", "none")),
        is_panelled=rng.random() < 0.25,
    )


def base_row(builder: SceneBuilder, style: KitchenStyle, length: float) -> list[Piece]:
    """Units side by side with one worktop; at most one sink and one hob."""
    rng = builder.rng
    widths = _unit_widths(rng, length)
    edges = np.cumsum([-length / 2, *widths])
    wide = [i for i, width in enumerate(widths) if width > 0.55]
    rng.shuffle(wide)
    sink = wide.pop() if wide and rng.random() < 0.65 else -1
    hob = wide.pop() if wide and rng.random() < 0.6 else -1
    machines = {i for i in wide if rng.random() < 0.25}
    under = style.height - style.plate
    carcass: list[Shape] = []
    fronts: list[Shape] = []
    handles: list[Shape] = []
    pieces: list[Piece] = []
    for i, width in enumerate(widths):
        x = float(edges[i] + width / 2)
        top = under - (_BASIN if i == sink else 0)
        carcass.append(
            box((width, style.depth - _FRONT, top - style.plinth), (x, _FRONT / 2, (top + style.plinth) / 2))
        )
        if i in machines or (i == hob and rng.random() < 0.7):
            pieces.append(_built_in(builder, style, x, width, is_oven=i == hob))
            continue
        rows = 1 if i == sink else int(rng.choice([1, 1, 1, 2, 3, 4]))
        columns = 2 if width > 0.75 and rows == 1 else 1
        _grid_of_fronts(style, (x, width), (style.plinth, under), columns, rows, fronts, handles)
    if hob >= 0:
        pieces.append(_hob(builder, style, float(edges[hob] + widths[hob] / 2), widths[hob]))
    basin = None
    if sink >= 0:
        middle = float(edges[sink] + widths[sink] / 2)
        basin = (middle, min(widths[sink] - 0.08, 0.5), style.depth * 0.62)
        pieces.append(_sink(builder, style, *basin))
    base = box((length, style.depth - 0.1, style.plinth), (0, 0.05, style.plinth / 2))
    cabinet = [
        Part(join(*carcass), style.front if rng.random() < 0.5 else WHITE),
        Part(base, style.base),
        Part(_worktop(style, length, basin), style.worktop),
    ]
    cabinet += [
        Part(join(*shapes), material)
        for shapes, material in ((fronts, style.front), (handles, style.handle))
        if shapes
    ]
    return [("cabinet", cabinet), *pieces]


def wall_row(builder: SceneBuilder, style: KitchenStyle, length: float, low: float, high: float) -> list[Piece]:
    """Wall cabinets with doors, or a board that carries things; the back is at y = 0."""
    rng = builder.rng
    if rng.random() < 0.3:
        material = style.front if rng.random() < 0.5 else wood(builder)
        return [("shelf", [Part(box((length, 0.26, 0.03), (0, -0.13, low), 1.0), material)])]
    depth = rng.uniform(0.3, 0.38)
    fronts: list[Shape] = []
    handles: list[Shape] = []
    widths = _unit_widths(rng, length)
    edges = np.cumsum([-length / 2, *widths])
    for edge, width in zip(edges, widths, strict=False):
        _grid_of_fronts(style, (float(edge + width / 2), width), (low, high), 1, 1, fronts, handles)
    body = box((length, depth - _FRONT, high - low), (0, -(depth - _FRONT) / 2, (low + high) / 2))
    shift = (0, style.depth / 2 - depth, 0)  # the fronts were laid out for the deeper base units
    parts = [Part(body, WHITE), Part(join(*fronts).moved(shift), style.front)]
    if handles:
        parts.append(Part(join(*handles).moved(shift), style.handle))
    return [("cabinet", parts)]


def tall_unit(builder: SceneBuilder, style: KitchenStyle, width: float, height: float) -> Piece:
    """A larder, or a refrigerator of its own colour."""
    rng = builder.rng
    is_fridge = rng.random() < 0.6
    body = style.front
    if is_fridge and rng.random() < 0.7:
        steel = Material(np.ones(3) * rng.uniform(0.3, 0.7), builder.texture("metal"), 0.6)
        body = WHITE if rng.random() < 0.5 else steel
    split = height * rng.uniform(0.3, 0.65)
    fronts: list[Shape] = []
    handles: list[Shape] = []
    for low, high in ((0.08, split), (split, height)):
        _grid_of_fronts(style, (0, width), (low, high), 1, 1, fronts, handles)
    shell = box((width, style.depth - _FRONT, height), (0, _FRONT / 2, height / 2))
    parts = [Part(shell, body), Part(join(*fronts), body)]
    if handles:
        parts.append(Part(join(*handles), style.handle))
    return "appliance" if is_fridge else "cabinet", parts


def hood(builder: SceneBuilder, width: float, low: float, high: float) -> Piece:
    """An extractor over a hob; the back is at y = 0."""
    material = metal(builder) if builder.rng.random() < 0.7 else WHITE
    canopy = box((width, 0.45, 0.07), (0, -0.225, low + 0.035))
    return "appliance", [Part(join(canopy, box((0.28, 0.26, high - low), (0, -0.13, (low + high) / 2))), material)]


def leaning_print(builder: SceneBuilder) -> Piece:
    """A leaflet, tablet or cutting board that leans on the wall behind a worktop; its foot is at the origin."""
    rng = builder.rng
    width, height, lean = rng.uniform(0.14, 0.32), rng.uniform(0.18, 0.42), rng.uniform(0.1, 0.4)
    sheet = box((width, rng.uniform(0.003, 0.02), height), (0, 0, height / 2)).moved(rotation=rotation_x(-lean))
    material = printed(builder, "cover", "page", "page", "package") if rng.random() < 0.8 else wood(builder)
    return "object", [Part(sheet, material)]


def _unit_widths(rng: np.random.Generator, length: float) -> list[float]:
    """Widths of the trade that together give the length; the last one takes what is left."""
    widths: list[float] = []
    repeated = float(rng.choice(_UNIT_WIDTHS)) if rng.random() < 0.5 else None
    while sum(widths) < length - 0.3:
        widths.append(min(repeated or float(rng.choice(_UNIT_WIDTHS)), length - sum(widths)))
    rest = length - sum(widths)
    if rest > 0:
        widths[-1] += rest
    return widths


def _grid_of_fronts(
    style: KitchenStyle,
    across: tuple[float, float],
    upright: tuple[float, float],
    columns: int,
    rows: int,
    fronts: list[Shape],
    handles: list[Shape],
) -> None:
    """Doors or drawers in an opening given by (centre x, width) and (low z, high z)."""
    (center, width), (low, high) = across, upright
    cell_x, cell_z = width / columns, (high - low) / rows
    y = _FRONT / 2 - style.depth / 2
    for column in range(columns):
        for row in range(rows):
            x, z = center + ((column + 0.5) / columns - 0.5) * width, low + (row + 0.5) * cell_z
            w, h = cell_x - _GAP, cell_z - _GAP
            fronts.append(box((w, _FRONT, h), (x, y, z), 1.0))
            if style.is_panelled and min(w, h) > 0.2:
                fronts += [box((w, 0.012, 0.06), (x, y - 0.016, z + s * (h - 0.06) / 2), 1.0) for s in (-1, 1)]
                fronts += [box((0.06, 0.012, h), (x + s * (w - 0.06) / 2, y - 0.016, z), 1.0) for s in (-1, 1)]
            handles += _grips(style, x, z, w, h, side=1 if column % 2 == 0 else -1)


def _grips(style: KitchenStyle, x: float, z: float, width: float, height: float, side: int) -> list[Shape]:
    y = -style.depth / 2 - 0.03
    if style.grip == "none":
        return []
    if style.grip == "edge":
        return [box((width, 0.035, 0.012), (x, -style.depth / 2, z + height / 2 - 0.006))]
    if style.grip == "knob":
        spot = np.array([x + side * (width / 2 - 0.05), y + 0.03, z + (0.3 if height > 0.3 else 0) * height])
        return [tube(spot, spot - np.array([0, 0.03, 0]), 0.014, segments=8)]
    span = min(0.5 * width, 0.32)
    at = z + height / 2 - 0.05
    posts = [box((0.01, 0.035, 0.01), (x + s * span * 0.42, y + 0.015, at)) for s in (-1, 1)]
    return [box((span, 0.012, 0.014), (x, y, at)), *posts]


def _worktop(style: KitchenStyle, length: float, basin: tuple[float, float, float] | None) -> Shape:
    """The plate, with a hole for a basin (centre x, width, depth)."""
    depth = style.depth + style.overhang
    y, z = -style.overhang / 2, style.height - style.plate / 2
    if basin is None:
        return box((length, depth, style.plate), (0, y, z), 0.8)
    middle, width, hole = basin
    left, right = middle - width / 2 + length / 2, length / 2 - middle - width / 2
    strip = (depth - hole) / 2
    return join(
        box((left, depth, style.plate), (-length / 2 + left / 2, y, z), 0.8),
        box((right, depth, style.plate), (length / 2 - right / 2, y, z), 0.8),
        *(box((width, strip, style.plate), (middle, y + s * (depth - strip) / 2, z), 0.8) for s in (-1, 1)),
    )


def _sink(builder: SceneBuilder, style: KitchenStyle, x: float, width: float, depth: float) -> Piece:
    rng = builder.rng
    steel = Material(np.ones(3) * rng.uniform(0.35, 0.7), builder.texture("metal"), 0.7)
    material = steel if rng.random() < 0.75 else (WHITE if rng.random() < 0.5 else style.worktop)
    y = -style.overhang / 2
    tub = open_box((width, depth, _BASIN), 0.008).moved((x, y, style.height - _BASIN + 0.004))
    back = np.array([x, y + depth / 2 + 0.03, style.height])
    bend = back + np.array([0, 0, rng.uniform(0.12, 0.35)])
    spout = bend + np.array([0, -rng.uniform(0.12, 0.22), rng.uniform(-0.05, 0.05)])
    tap = join(tube(back, bend, 0.014, segments=8), tube(bend, spout, 0.012, segments=8))
    return "sanitary", [Part(tub, material), Part(tap, metal(builder))]


def _hob(builder: SceneBuilder, style: KitchenStyle, x: float, width: float) -> Piece:
    rng = builder.rng
    z = style.height
    plate = box((width - 0.02, 0.51, 0.008), (x, -0.01, z + 0.004))
    steel = rng.random() < 0.35
    spots = [(x + a * width * 0.23, b * 0.12 - 0.01, r) for a, b, r in ((-1, -1, 0.09), (1, -1, 0.07), (-1, 1, 0.07))]
    spots.append((x + width * 0.23, 0.11, 0.09))
    high = 0.03 if steel else 0.0015  # the grates of gas burners, or rings printed on glass
    rings = [tube((a, b, z + 0.008), (a, b, z + 0.008 + high), r, segments=16) for a, b, r in spots]
    ink = BLACK if steel else Material((0.25, 0.25, 0.26), -1, 0.5)
    return "appliance", [Part(plate, metal(builder) if steel else GLASS), Part(join(*rings), ink)]


def _built_in(builder: SceneBuilder, style: KitchenStyle, x: float, width: float, is_oven: bool) -> Piece:
    """An oven behind glass, or a dishwasher or washing machine with a strip of controls."""
    rng = builder.rng
    low, high = style.plinth, style.height - style.plate
    y = _FRONT / 2 - style.depth / 2
    steel = Material(np.ones(3) * rng.uniform(0.3, 0.75), builder.texture("metal"), 0.6)
    body = steel if rng.random() < 0.5 else (WHITE if rng.random() < 0.6 else BLACK)
    strip = rng.uniform(0.09, 0.13)
    parts = [
        Part(box((width - _GAP, _FRONT, high - low - strip - _GAP), (x, y, (low + high - strip) / 2), 1.0), body),
        Part(
            box((width - _GAP, _FRONT, strip - _GAP), (x, y, high - strip / 2)), body if rng.random() < 0.5 else BLACK
        ),
    ]
    if is_oven:
        pane = box((width * 0.86, 0.006, (high - low) * 0.55), (x, y - 0.013, low + (high - low) * 0.42))
        knobs = [
            tube(
                (x + k * width, y, high - strip / 2), (x + k * width, y - 0.035, high - strip / 2), 0.018, segments=10
            )
            for k in (-0.36, -0.2, 0.2, 0.36)
        ]
        parts += [Part(pane, GLASS), Part(join(*knobs), metal(builder))]
    bar = box((width * 0.75, 0.018, 0.018), (x, y - 0.045, high - strip - 0.04))
    ends = [box((0.015, 0.045, 0.015), (x + s * width * 0.34, y - 0.02, high - strip - 0.04)) for s in (-1, 1)]
    parts.append(Part(join(bar, *ends), style.handle))
    return "appliance", parts
