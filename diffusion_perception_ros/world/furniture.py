"""Procedural furniture: tables, chairs, sofas, beds, cabinets and filled shelves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Part, SceneBuilder, item_of
from diffusion_perception_ros.world.finishes import BLACK, cloth, metal, plastic, printed, wood, wood_or_paint
from diffusion_perception_ros.world.shapes import Shape, box, extrude, join, rotation_x, sphere, tube


def table(builder: SceneBuilder) -> Item:
    """A dining table, desk or coffee table; square legs, tubes, panels or one column."""
    rng = builder.rng
    low = rng.random() < 0.25
    width, depth = rng.uniform(0.7, 1.3 if low else 2.2), rng.uniform(0.5, 1.0)
    height, thick = rng.uniform(0.35, 0.5) if low else rng.uniform(0.7, 0.78), rng.uniform(0.018, 0.06)
    top, frame = wood_or_paint(builder), wood_or_paint(builder) if rng.random() < 0.6 else metal(builder)
    is_round = rng.random() < 0.2
    if is_round:
        plate = extrude(_ellipse(width / 2, width / 2 if rng.random() < 0.7 else depth / 2), thick, 1.0)
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


def chair(builder: SceneBuilder) -> Item:
    """A wooden chair, an office chair on castors, an armchair or a stool."""
    kind = builder.rng.choice(["chair", "office", "armchair", "stool"], p=[0.5, 0.2, 0.2, 0.1])
    return {"chair": _side_chair, "office": _office_chair, "armchair": _armchair, "stool": _stool}[kind](builder)


def _side_chair(builder: SceneBuilder) -> Item:
    rng = builder.rng
    width, depth, seat = rng.uniform(0.38, 0.5), rng.uniform(0.38, 0.48), rng.uniform(0.42, 0.48)
    back, frame = rng.uniform(0.8, 1.05), wood(builder) if rng.random() < 0.6 else metal(builder)
    leg, lean = rng.uniform(0.022, 0.045), rng.uniform(0.0, 0.14)
    pieces = []
    for x in (-width / 2 + leg, width / 2 - leg):
        pieces.append(box((leg, leg, seat), (x, -depth / 2 + leg, seat / 2), 1.0))
        pieces.append(_post((x, depth / 2 - leg, 0), (x, depth / 2 - leg, seat), leg))
        pieces.append(_post((x, depth / 2 - leg, seat), (x, depth / 2 - leg + lean, back), leg))
    style = builder.choice(("slats", "bars", "panel"))
    low, high = seat + 0.14, back - 0.04
    count = int(rng.integers(2, 6)) if style != "panel" else 1
    for i in range(count):
        share = (i + 0.5) / count
        if style == "bars":
            x = (share - 0.5) * (width - 2 * leg)
            pieces.append(_post((x, depth / 2 - leg + lean * 0.2, low), (x, depth / 2 - leg + lean, high), leg * 0.6))
        else:
            z, size = low + share * (high - low), (high - low) / count * (0.55 if count > 1 else 1)
            pieces.append(
                box((width - leg, 0.02, size), (0, depth / 2 - leg + lean * (z - seat) / (back - seat), z), 1.0)
            )
    if style == "bars":
        pieces += [
            box((width - leg, 0.03, 0.05), (0, depth / 2 - leg + lean * share, z))
            for share, z in ((0.2, low), (1, high))
        ]
    cushion = cloth(builder) if rng.random() < 0.6 else frame
    plate = Part(box((width, depth, 0.03), (0, 0, seat), 1.5), cushion)
    return item_of("chair", [Part(join(*pieces), frame), plate], seat)


def _office_chair(builder: SceneBuilder) -> Item:
    rng = builder.rng
    seat, width = rng.uniform(0.42, 0.52), rng.uniform(0.44, 0.52)
    frame = BLACK if rng.random() < 0.7 else metal(builder)
    base = [tube((0, 0, 0.08), (0, 0, seat - 0.05), 0.025)]
    for angle in np.arange(5) * 2 * np.pi / 5:
        end = (0.3 * np.cos(angle), 0.3 * np.sin(angle), 0.06)
        base += [tube((0, 0, 0.1), end, 0.022, 0.014, 6), sphere(0.03, (end[0], end[1], 0.03), 8)]
    base.append(box((0.06, 0.02, 0.3), (0, width / 2 + 0.02, seat + 0.12)))
    if rng.random() < 0.6:
        for side in (-1, 1):
            base.append(box((0.05, 0.25, 0.03), (side * (width / 2 + 0.04), 0, seat + 0.22)))
            base.append(box((0.03, 0.04, 0.22), (side * (width / 2 + 0.04), 0.05, seat + 0.11)))
    back = rng.uniform(0.35, 0.65)
    soft = join(
        _cushion((width, width, 0.09), (0, 0, seat)),
        _cushion((width * 0.95, 0.08, back), (0, width / 2 + 0.03, seat + 0.15 + back / 2)),
    )
    return item_of("chair", [Part(join(*base), frame), Part(soft, cloth(builder))], seat)


def _armchair(builder: SceneBuilder) -> Item:
    item = _seating(builder, 1)
    return Item("chair", item.size, item.parts, item.top_height)


def _stool(builder: SceneBuilder) -> Item:
    rng = builder.rng
    height, radius = rng.choice([0.45, 0.65, 0.75]), rng.uniform(0.15, 0.2)
    legs = []
    for angle in np.pi / 4 + np.arange(4) * np.pi / 2:
        c, s = np.cos(angle), np.sin(angle)
        legs.append(tube((radius * c, radius * s, 0), (0.6 * radius * c, 0.6 * radius * s, height), 0.014, segments=6))
    plate = extrude(_ellipse(radius, radius), 0.04, 2.0).moved((0, 0, height - 0.04))
    frame = wood(builder) if rng.random() < 0.5 else metal(builder)
    return item_of(
        "chair", [Part(join(*legs), frame), Part(plate, cloth(builder) if rng.random() < 0.5 else frame)], height
    )


def sofa(builder: SceneBuilder) -> Item:
    """Two to four seats with arms and cushions."""
    return _seating(builder, int(builder.rng.integers(2, 5)))


def _seating(builder: SceneBuilder, seats: int) -> Item:
    rng = builder.rng
    seat_width, depth, seat = rng.uniform(0.5, 0.7), rng.uniform(0.75, 0.95), rng.uniform(0.38, 0.46)
    arm, arm_height, back = rng.uniform(0.1, 0.24), rng.uniform(0.5, 0.65), rng.uniform(0.72, 0.95)
    inside = seats * seat_width
    width = inside + 2 * arm
    body = [box((width, depth, seat - 0.14), (0, 0, 0.06 + (seat - 0.14) / 2), 1.5)]
    body += [
        _cushion((arm, depth, arm_height - 0.06), (side * (inside + arm) / 2, 0, 0.06 + arm_height / 2))
        for side in (-1, 1)
    ]
    body.append(_cushion((inside, 0.2, back - 0.1), (0, depth / 2 - 0.1, 0.1 + back / 2)))
    soft = []
    for i in range(seats):
        x = (i + 0.5) * seat_width - inside / 2
        soft.append(_cushion((seat_width - 0.01, depth - 0.2, 0.16), (x, -0.08, seat - 0.04)))
        soft.append(
            _cushion((seat_width - 0.03, 0.16, back - seat), (x, depth / 2 - 0.24, seat + (back - seat) / 2 + 0.02))
        )
    fabric = cloth(builder)
    parts = [Part(join(*body), fabric), Part(join(*soft), fabric if rng.random() < 0.7 else cloth(builder))]
    for _ in range(int(rng.integers(0, 4))):
        pillow = _cushion((0.4, 0.12, 0.4)).moved(rotation=rotation_x(rng.uniform(-0.5, -0.2)))
        x = rng.uniform(-0.4, 0.4) * inside
        parts.append(Part(pillow.moved((x, depth / 2 - 0.42, seat + 0.22), rng.uniform(-0.4, 0.4)), cloth(builder)))
    legs = [
        box((0.05, 0.05, 0.06), (sx * (width / 2 - 0.06), sy * (depth / 2 - 0.06), 0.03))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return item_of("sofa", [*parts, Part(join(*legs), wood(builder))], seat)


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
        Part(_cushion((width, length - 0.05, 0.2), (0, 0, top - 0.1)), sheet),
        Part(_cushion((width + 0.08, blanket_length, 0.16), (0, (blanket_length - length) / 2, top - 0.04)), cover),
    ]
    pillows = 2 if width > 1.2 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * width / 2
        parts.append(Part(_cushion((0.6, 0.4, 0.14), (x, length / 2 - 0.28, top + 0.06)).moved(), cloth(builder)))
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


def _ellipse(a: float, b: float, count: int = 32) -> npt.NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([a * np.cos(angle), b * np.sin(angle)], axis=-1)


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


def _post(start: tuple[float, float, float], end: tuple[float, float, float], size: float) -> Shape:
    return tube(start, end, size * 0.6, segments=6)


def _cushion(size: tuple[float, float, float], center: tuple[float, float, float] = (0, 0, 0)) -> Shape:
    """A box with swollen, rounded faces: a superellipsoid."""
    ball = sphere(1.0, segments=16)
    power = 0.45
    positions = np.sign(ball.positions) * np.abs(ball.positions) ** power
    normals = np.sign(ball.positions) * np.abs(ball.positions) ** (2 - power) / np.asarray(size, np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    half = np.asarray(size, np.float32) / 2
    flat = np.abs(ball.positions).argmax(axis=-1)[..., None] == 2  # seen from above or from the side
    uvs = np.where(flat, positions[..., :2] * half[:2], positions[..., [0, 2]] * half[[0, 2]]) * 2
    corners = positions * half + np.asarray(center, np.float32)
    return Shape(*(np.asarray(values, np.float32) for values in (corners, normals, uvs)))
