"""Procedural furniture: tables, beds, cabinets and filled shelves."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Item, Material, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import BLACK, cloth, metal, plastic, printed, wood_or_paint
from diffusion_perception_ros.world.items.shapes import Shape, box, cushion, ellipse, extrude, join, sphere, tube


def table(builder: SceneBuilder) -> Item:
    """A dining table, desk or coffee table; square legs, tubes, panels or one column."""
    rng = builder.rng
    low = rng.random() < 0.25
    width, depth = rng.uniform(0.7, 1.3 if low else 2.2), rng.uniform(0.5, 1.0)
    height, thick = rng.uniform(0.35, 0.5) if low else rng.uniform(0.7, 0.78), rng.uniform(0.018, 0.06)
    top, frame = wood_or_paint(builder), wood_or_paint(builder) if rng.random() < 0.6 else metal(builder)
    is_round = rng.random() < 0.2
    if is_round:
        plate = extrude(ellipse(width / 2, width / 2 if rng.random() < 0.7 else depth / 2), thick, 1.0)
        plate = plate.moved((0, 0, height - thick))
    else:
        plate = box((width, depth, thick), (0, 0, height - thick / 2), 1.0)
    under = height - thick
    if is_round or rng.random() < 0.1:
        legs = [
            tube((0, 0, 0.02), (0, 0, under), 0.04),
            tube((0, 0, 0), (0, 0, 0.03), min(width, depth) * 0.32, segments=24),
        ]
    elif rng.random() < 0.15:
        legs = [box((0.03, depth * 0.9, under), (side * width * 0.45, 0, under / 2), 1.0) for side in (-1, 1)]
    else:
        legs = _legs(rng, width, depth, under)
        if rng.random() < 0.6:  # apron
            rail = rng.uniform(0.06, 0.12)
            legs += [
                box((width * 0.86, 0.02, rail), (0, side * depth * 0.42, under - rail / 2), 1.0) for side in (-1, 1)
            ]
            legs += [
                box((0.02, depth * 0.84, rail), (side * width * 0.43, 0, under - rail / 2), 1.0) for side in (-1, 1)
            ]
    parts = [Part(plate, top), Part(join(*legs), frame)]
    if not low and not is_round and rng.random() < 0.3:  # a desk with a drawer unit
        parts += _fronts(builder, (0.4, depth * 0.85, under - 0.05), (width / 2 - 0.25, 0, 0.05), 1, 3)
    return item_of("table", parts, height)


def bed(builder: SceneBuilder) -> Item:
    """A single or double bed with its headboard at the wall."""
    rng = builder.rng
    width, length, top = rng.choice([0.9, 1.4, 1.6, 1.8]), rng.uniform(1.9, 2.1), rng.uniform(0.42, 0.6)
    frame, sheet, cover = wood_or_paint(builder), cloth(builder), cloth(builder)
    board = rng.uniform(0.6, 1.2)
    wooden = join(
        box((width + 0.06, length, 0.2), (0, 0, top - 0.25), 1.0),
        box((width + 0.06, 0.05, board), (0, length / 2 + 0.02, board / 2), 1.0),
        *(
            box((0.06, 0.06, top - 0.3), (x * width / 2, y * (length / 2 - 0.05), (top - 0.3) / 2))
            for x in (-1, 1)
            for y in (-1, 1)
        ),
    )
    blanket_length = length * rng.uniform(0.5, 0.8)
    parts = [
        Part(wooden, frame),
        Part(cushion((width, length - 0.05, 0.2), (0, 0, top - 0.1)), sheet),
        Part(cushion((width + 0.08, blanket_length, 0.16), (0, (blanket_length - length) / 2, top - 0.04)), cover),
    ]
    pillows = 2 if width > 1.2 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * width / 2
        parts.append(Part(cushion((0.6, 0.4, 0.14), (x, length / 2 - 0.28, top + 0.06)).moved(), cloth(builder)))
    return item_of("bed", parts, top)


def cabinet(builder: SceneBuilder) -> Item:
    """A chest of drawers, sideboard, wardrobe or filing cabinet."""
    rng = builder.rng
    kind = builder.choice(("chest", "sideboard", "wardrobe", "filing"))
    width, height, columns, rows = {
        "chest": (rng.uniform(0.5, 1.2), rng.uniform(0.7, 1.2), int(rng.integers(1, 3)), int(rng.integers(3, 6))),
        "sideboard": (rng.uniform(1, 2), rng.uniform(0.5, 0.9), int(rng.integers(2, 5)), int(rng.integers(1, 3))),
        "wardrobe": (rng.uniform(0.8, 2), rng.uniform(1.8, 2.15), int(rng.integers(2, 4)), 1),
        "filing": (rng.uniform(0.4, 0.5), rng.uniform(0.6, 1.4), 1, int(rng.integers(2, 5))),
    }[kind]
    depth = rng.uniform(0.4, 0.62)
    return item_of("cabinet", _fronts(builder, (width, depth, height), (0, 0, 0), columns, rows), height)


def kitchen_row(builder: SceneBuilder, length: float) -> Item:
    """Base cabinets of doors and drawers under one worktop."""
    rng = builder.rng
    depth, height = rng.uniform(0.55, 0.65), rng.uniform(0.85, 0.95)
    strong = rng.random() < 0.5
    color = builder.color((0.3, 0.9), (0.4, 0.95) if strong else (0, 0.2))
    front = Material(color, builder.texture("plaster", "plaster", "wood"), rng.uniform(0, 0.8))
    stone = builder.texture("marble", "speckle", "wood", "plaster")
    worktop = Material(builder.color((0.05, 1), (0, 0.2)), stone, rng.uniform(0.1, 0.8))
    count = max(2, int(length / 0.6))
    unit = length / count
    doors, handles = [], []
    for x in ((i + 0.5) * unit - length / 2 for i in range(count)):
        drawers = int(rng.choice([1, 1, 2, 3]))
        part = (height - 0.14) / drawers
        bar, offset = ((unit * 0.4, 0.02, 0.014), 0) if drawers > 1 else ((0.014, 0.02, 0.16), unit * 0.38)
        for z in (0.1 + (k + 0.5) * part for k in range(drawers)):
            doors.append(box((unit - 0.006, 0.02, part - 0.006), (x, 0.03 - depth / 2, z), 1.0))
            handles.append(box(bar, (x + offset, -depth / 2, z + part * 0.3)))
    parts = [
        Part(box((length, depth - 0.08, height - 0.04), (0, 0.02, height / 2)), BLACK),
        Part(join(*doors), front),
        Part(join(*handles), metal(builder)),
        Part(box((length, depth + 0.02, 0.04), (0, 0, height - 0.02), 0.8), worktop),
    ]
    return item_of("cabinet", parts, height)


def _fronts(
    builder: SceneBuilder, size: tuple[float, float, float], base: tuple[float, float, float], columns: int, rows: int
) -> list[Part]:
    """A body with a grid of doors or drawers, each with a handle or knob."""
    rng = builder.rng
    width, depth, height = size
    offset = np.asarray(base, float)
    body, front = wood_or_paint(builder), wood_or_paint(builder)
    plinth = rng.uniform(0.03, 0.1)
    parts = [Part(box((width, depth - 0.02, height), (0, 0.01, height / 2), 1.0).moved(offset), body)]
    cell = np.array([width / columns, (height - plinth - 0.02) / rows])
    knob = rng.random() < 0.35
    doors, handles = [], []
    for column in range(columns):
        for row in range(rows):
            x, z = (column + 0.5) * cell[0] - width / 2, plinth + (row + 0.5) * cell[1]
            doors.append(box((cell[0] - 0.008, 0.02, cell[1] - 0.008), (x, -depth / 2 + 0.01, z), 1.0))
            tall = cell[1] > cell[0]
            at = np.array(
                [
                    x + (0.4 * cell[0] * (1 if column % 2 == 0 else -1) if tall else 0),
                    -depth / 2 - 0.015,
                    z + (0 if tall else 0.2 * cell[1]),
                ]
            )
            bar = (0.014, 0.02, 0.14) if tall else (min(0.4 * cell[0], 0.2), 0.02, 0.014)
            handles.append(sphere(0.015, at, 8) if knob else box(bar, at))
    return [*parts, Part(join(*doors).moved(offset), front), Part(join(*handles).moved(offset), metal(builder))]


def shelf(builder: SceneBuilder) -> Item:
    """A bookcase or rack with books, boxes and jars on its boards."""
    rng = builder.rng
    width, depth, height = rng.uniform(0.5, 1.4), rng.uniform(0.25, 0.45), rng.uniform(0.8, 2.1)
    levels, thick = max(2, int(height / rng.uniform(0.28, 0.45))), 0.022
    frame = wood_or_paint(builder) if rng.random() < 0.8 else metal(builder)
    boards = [box((width, depth, thick), (0, 0, z), 1.0) for z in np.linspace(thick, height - thick / 2, levels + 1)]
    boards += [box((thick, depth, height), (side * (width - thick) / 2, 0, height / 2), 1.0) for side in (-1, 1)]
    if rng.random() < 0.7:
        boards.append(box((width, 0.01, height), (0, depth / 2, height / 2), 1.0))
    parts = [Part(join(*boards), frame)]
    gap = (height - 2 * thick) / levels
    for level in range(levels):
        parts += _row_of_things(builder, width - 2 * thick, depth, thick * 1.5 + level * gap, gap - 0.05)
    return item_of("shelf", parts, height)


def _row_of_things(builder: SceneBuilder, width: float, depth: float, z: float, clear: float) -> list[Part]:
    """Books in blocks of a few colours, boxes and jars along a board; part of the shelf's own instance."""
    rng = builder.rng
    groups: list[list[Shape]] = [[] for _ in range(4)]
    style = builder.choice(("books", "books", "boxes", "mixed", "empty"))
    x = -width / 2 + rng.uniform(0, 0.1)
    while style != "empty" and x < width / 2 - 0.05:
        is_book = style == "books" or (style == "mixed" and rng.random() < 0.6)
        w = rng.uniform(0.012, 0.05) if is_book else rng.uniform(0.08, 0.3)
        h, d = clear * rng.uniform(0.6, 0.95), depth * rng.uniform(0.5, 0.9)
        if x + w > width / 2:
            break
        center = (x + w / 2, depth * 0.02 + (d - depth) * rng.uniform(0.1, 0.45), z + h / 2)
        groups[int(rng.integers(len(groups)))].append(box((w * 0.96, d, h), center))
        x += w + (rng.uniform(0.05, 0.3) if rng.random() < 0.08 else 0.001)
    makers = (
        lambda: printed(builder, "cover", "package"),
        lambda: plastic(builder),
        lambda: printed(builder, "cardboard", "cover"),
    )
    return [Part(join(*shapes), makers[int(rng.integers(len(makers)))]()) for shapes in groups if shapes]


def _legs(rng: np.random.Generator, width: float, depth: float, height: float) -> list[Shape]:
    size, is_round = rng.uniform(0.03, 0.08), rng.random() < 0.35
    inset, taper = rng.uniform(0.02, 0.08), rng.uniform(0.5, 1)
    legs = []
    for x in (-width / 2 + inset, width / 2 - inset):
        for y in (-depth / 2 + inset, depth / 2 - inset):
            if is_round:
                legs.append(tube((x, y, 0), (x, y, height), size / 2 * taper, size / 2, 10))
            else:
                legs.append(box((size, size, height), (x, y, height / 2), 1.0))
    return legs
