"""A bank of procedural textures: surfaces, prints and cut-out foliage, 128x128 sRGB + alpha, all tileable or framed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt


SIZE = 128
Image = npt.NDArray[np.float64]
Rng = np.random.Generator

_BANK_SEED = 7


def hsv(hue: float, saturation: float, value: float) -> npt.NDArray[np.float64]:
    """(3,) RGB of a hue in turns, saturation and value in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def tileable_noise(rng: Rng, base: int = 4, octaves: int = 5, stretch: int = 1, gain: float = 0.55) -> Image:
    """(128, 128) fractal noise in [0, 1] that repeats without a seam; `stretch` > 1 draws it out along v."""
    total = np.zeros((SIZE, SIZE))
    for octave in range(octaves):
        cells = base * 2**octave
        if cells > SIZE:
            break
        grid = rng.random((max(1, cells // stretch), cells)).astype(np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        scale_y, scale_x = SIZE / grid.shape[0], SIZE / grid.shape[1]
        big = cv2.resize(wrapped, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC)
        top, left = int(2 * scale_y), int(2 * scale_x)
        total += gain**octave * big[top : top + SIZE, left : left + SIZE]
    total -= total.min()
    return total / max(total.max(), 1e-9)


def _grid() -> tuple[Image, Image]:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    return y, x


def _mix(first: Image, second: Image, weight: Image) -> Image:
    return first + (second - first) * weight[..., None]


def _color(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Image:
    return hsv(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def plaster(rng: Rng) -> Image:
    """Almost plain: most walls and many table tops."""
    grain = tileable_noise(rng, 4) * rng.uniform(0.02, 0.12) + rng.normal(0, rng.uniform(0, 0.02), (SIZE, SIZE))
    return _color(rng, (0, 0.12), (0.8, 1.0)) * (1 - grain)[..., None]


def wood(rng: Rng) -> Image:
    """Boards or a plain top, the grain along u."""
    boards = int(rng.choice([1, 1, 2, 3, 4, 6, 8]))
    y, x = _grid()
    row = np.floor(y * boards).astype(int)
    shade = rng.uniform(0.75, 1.1, boards)[row]
    grain = np.rot90(tileable_noise(rng, 8, 4, stretch=8))
    rings = 0.5 + 0.5 * np.sin(
        2 * np.pi * (np.rot90(tileable_noise(rng, 4, 3, stretch=4)) * rng.uniform(2, 6) + row * 0.37)
    )
    light = hsv(rng.uniform(0.03, 0.11), rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.95))
    image = _mix(light, light * rng.uniform(0.5, 0.85), 0.45 * grain + 0.4 * rings) * shade[..., None]
    if boards > 1:
        joints = (y * boards) % 1 < 0.03
        if rng.random() < 0.6:  # boards of finite length
            joints |= np.abs((x + row * rng.uniform(0.2, 0.8)) % 1) < 0.008
        image[joints] *= rng.uniform(0.4, 0.8)
    return image


def _cells(rng: Rng, columns: int, rows: int, shift: float, joint: float) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Random value per cell of a wall of stones, and where the joints are."""
    y, x = _grid()
    row = np.floor(y * rows).astype(int)
    along = x * columns + shift * (row % 2)
    column = np.floor(along).astype(int) % columns
    edge = joint * rows / SIZE
    joints = ((y * rows) % 1 < edge) | (along % 1 < joint * columns / SIZE)
    return rng.random((rows, columns))[row, column], joints


def tiles(rng: Rng) -> Image:
    """Square tiles with joints."""
    count = int(rng.integers(1, 7))
    value, joints = _cells(rng, count, count, 0, rng.uniform(1, 2.5))
    image = _color(rng, (0, 0.5), (0.3, 1)) * (1 - rng.uniform(0.03, 0.3) * value)[..., None]
    image = image * (1 - 0.15 * tileable_noise(rng))[..., None]
    image[joints] = _color(rng, (0, 0.1), (0.3, 0.95))
    return image


def checker(rng: Rng) -> Image:
    """Two alternating colours."""
    count = int(rng.choice([2, 4, 6]))
    y, x = _grid()
    odd = ((np.floor(y * count) + np.floor(x * count)) % 2).astype(float)
    return (
        _mix(_color(rng, (0, 0.5), (0.2, 1)), _color(rng, (0, 0.5), (0.2, 1)), odd)
        * (1 - 0.15 * tileable_noise(rng))[..., None]
    )


def bricks(rng: Rng) -> Image:
    """A brick wall, in its own or a painted colour."""
    rows = int(rng.choice([6, 8, 10, 12]))
    value, joints = _cells(rng, max(2, rows // 3), rows, 0.5, rng.uniform(1, 2))
    painted = rng.random() < 0.3
    base = (
        _color(rng, (0, 0.2), (0.6, 1))
        if painted
        else hsv(rng.uniform(0, 0.09), rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.75))
    )
    image = base * (1 - rng.uniform(0.05, 0.4) * value - 0.15 * tileable_noise(rng, 8))[..., None]
    image[joints] = base * 0.75 if painted else hsv(0.1, 0.1, rng.uniform(0.4, 0.85))
    return image


def slabs(rng: Rng) -> Image:
    """Pavement: concrete or stone slabs."""
    rows = int(rng.integers(2, 7))
    value, joints = _cells(rng, int(rng.integers(2, 6)), rows, rng.choice([0, 0.5]), rng.uniform(1, 2))
    image = hsv(rng.uniform(0.05, 0.14), rng.uniform(0, 0.2), rng.uniform(0.45, 0.8)) * np.ones((SIZE, SIZE, 1))
    image *= (1 - 0.25 * value - 0.3 * tileable_noise(rng, 16))[..., None]
    image[joints] *= rng.uniform(0.45, 0.8)
    return image


def stripes(rng: Rng) -> Image:
    """Wallpaper and cloth."""
    y, x = _grid()
    along = (x if rng.random() < 0.7 else y) * int(rng.integers(2, 14)) % 1
    colors = [_color(rng, (0, 0.6), (0.25, 1)) for _ in range(3)]
    second = rng.uniform(0.55, 0.95)
    image = np.where((along < 0.5)[..., None], colors[0], np.where((along < second)[..., None], colors[1], colors[2]))
    return image * (1 - 0.12 * tileable_noise(rng))[..., None]


def fabric(rng: Rng) -> Image:
    """Woven cloth."""
    y, x = _grid()
    threads = int(rng.choice([16, 32]))
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * x * threads) + 0.25 * np.sin(2 * np.pi * y * threads)
    return _color(rng, (0, 0.8), (0.15, 0.95)) * ((0.8 + 0.25 * weave) * (1 - 0.25 * tileable_noise(rng)))[..., None]


def carpet(rng: Rng) -> Image:
    """Short pile, mottled, now and then with a pattern of stripes."""
    image = (
        _color(rng, (0, 0.6), (0.15, 0.8))
        * (0.75 + rng.normal(0, 0.12, (SIZE, SIZE)) + 0.3 * tileable_noise(rng, 8))[..., None]
    )
    if rng.random() < 0.35:
        _, x = _grid()
        band = np.sin(2 * np.pi * x * int(rng.integers(4, 24)) + 3 * tileable_noise(rng, 2, 2)) > rng.uniform(
            -0.3, 0.7
        )
        image = _mix(image, image * _color(rng, (0, 0.5), (0.3, 1.2)), band.astype(float))
    return image


def marble(rng: Rng) -> Image:
    """Veined stone."""
    _, x = _grid()
    veins = np.abs(np.sin(2 * np.pi * (tileable_noise(rng) * rng.uniform(1, 4) + x * int(rng.integers(0, 3)))))
    return _mix(_color(rng, (0, 0.2), (0.6, 1)), _color(rng, (0, 0.4), (0.1, 0.8)), (1 - veins) ** rng.uniform(3, 9))


def speckle(rng: Rng) -> Image:
    """Terrazzo and linoleum."""
    image = _color(rng, (0, 0.3), (0.3, 0.95)) * (1 - 0.2 * tileable_noise(rng))[..., None]
    chips = cv2.blur(rng.random((SIZE, SIZE)), (2, 2)) > rng.uniform(0.65, 0.85)
    image[chips] *= rng.uniform(0.5, 0.9)
    return image


def asphalt(rng: Rng) -> Image:
    """Road surface."""
    grey = rng.uniform(0.25, 0.6) * (1 - 0.3 * tileable_noise(rng, 2) + rng.normal(0, 0.07, (SIZE, SIZE)))
    return grey[..., None] * hsv(rng.uniform(0, 1), 0.05, 1)


def soil(rng: Rng) -> Image:
    """Earth, sand and gravel."""
    relief = tileable_noise(rng, 8, 5, gain=0.8)
    return (
        hsv(rng.uniform(0.05, 0.13), rng.uniform(0.15, 0.6), rng.uniform(0.35, 0.85))
        * (0.45 + 0.7 * relief)[..., None]
    )


def grass(rng: Rng) -> Image:
    """Lawn and meadow."""
    blades = tileable_noise(rng, 16, 4, gain=0.9)
    green = hsv(rng.uniform(0.15, 0.33), rng.uniform(0.35, 0.8), rng.uniform(0.3, 0.65))
    dry = hsv(rng.uniform(0.09, 0.16), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.7))
    patches = np.clip(tileable_noise(rng, 2) * 2 - rng.uniform(0.8, 1.8), 0, 1)
    return _mix(green, dry, patches) * (0.4 + 0.9 * blades)[..., None]


def metal(rng: Rng) -> Image:
    """Brushed metal or dented paint."""
    streaks = np.rot90(tileable_noise(rng, 32, 3, stretch=16))
    return hsv(rng.uniform(0.5, 0.7), rng.uniform(0, 0.1), rng.uniform(0.5, 0.85)) * (0.85 + 0.2 * streaks)[..., None]


def bark(rng: Rng) -> Image:
    """Tree trunks, the ridges along v."""
    ridges = tileable_noise(rng, 16, 3, stretch=4)
    return (
        hsv(rng.uniform(0.04, 0.12), rng.uniform(0.15, 0.5), rng.uniform(0.25, 0.6)) * (0.4 + 0.8 * ridges)[..., None]
    )


def curtain(rng: Rng) -> Image:
    """Cloth in vertical folds."""
    _, x = _grid()
    folds = 0.6 + 0.4 * np.sin(2 * np.pi * (x * int(rng.integers(5, 12)) + 0.3 * tileable_noise(rng, 2, 2)))
    return _color(rng, (0, 0.8), (0.3, 1)) * folds[..., None]


def _write_lines(image: Image, rng: Rng, left: int, right: int, top: int, bottom: int, ink: Image) -> None:
    """Lines of make-believe text."""
    height = int(rng.integers(2, 4))
    for y in range(top, bottom - height, height + int(rng.integers(2, 4))):
        x = left
        while x < right - 3:
            word = int(rng.integers(3, 14))
            image[y : y + height, x : min(x + word, right)] = ink
            x += word + 2


def _write_title(image: Image, rng: Rng, ink: Image) -> None:
    letters = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVXYZaeiost0123456789"), int(rng.integers(3, 8))))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    scale = rng.uniform(0.6, 1.6)
    origin = (int(rng.integers(4, 40)), int(rng.integers(25, 115)))
    cv2.putText(canvas, letters, origin, int(rng.integers(0, 5)), scale, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    image[:] = _mix(image, np.broadcast_to(ink, image.shape), canvas / 255)


def _blob(image: Image, rng: Rng) -> None:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    center = tuple(int(v) for v in rng.integers(10, 118, 2))
    axes = tuple(int(v) for v in rng.integers(5, 45, 2))
    if rng.random() < 0.5:
        cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        box = cv2.boxPoints((center, axes, float(rng.choice([0, 0, 0, 45, rng.uniform(0, 90)]))))
        cv2.fillPoly(canvas, [box.astype(np.int32)], 255, cv2.LINE_AA)
    color = _color(rng, (0, 1), (0.1, 1)) * (0.6 + 0.6 * tileable_noise(rng, 4, 3))[..., None]
    image[:] = _mix(image, color, canvas / 255)


def package(rng: Rng) -> Image:
    """The printed side of a food box, can or bottle."""
    image = np.ones((SIZE, SIZE, 3)) * _color(rng, (0.1, 1), (0.4, 1))
    if rng.random() < 0.6:
        edge = int(rng.integers(20, 108))
        image[edge:] = _color(rng, (0, 1), (0.3, 1))
    for _ in range(int(rng.integers(1, 5))):
        _blob(image, rng)
    for _ in range(int(rng.integers(1, 3))):
        _write_title(image, rng, _color(rng, (0, 1), (0, 1)) if rng.random() < 0.5 else np.ones(3))
    if rng.random() < 0.5:
        top = int(rng.integers(60, 100))
        _write_lines(
            image, rng, 10, int(rng.integers(50, 118)), top, min(top + 24, 124), hsv(0, 0, rng.choice([0.1, 1.0]))
        )
    return image


def cardboard(rng: Rng) -> Image:
    """A shipping carton with tape, labels and print."""
    brown = hsv(rng.uniform(0.07, 0.1), rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.8))
    image = brown * (0.92 + 0.1 * tileable_noise(rng, 16, 3))[..., None]
    if rng.random() < 0.5:
        image[:, 56:72] = _mix(image[:, 56:72], np.ones(3) * brown * rng.uniform(0.7, 1.3), np.full((SIZE, 16), 0.7))
    if rng.random() < 0.5:
        x, y, w, h = (int(v) for v in rng.integers([8, 8, 24, 18], [60, 80, 60, 40]))
        image[y : y + h, x : x + w] = rng.uniform(0.8, 1)
        _write_lines(image, rng, x + 3, x + w - 3, y + 3, y + h - 2, hsv(0, 0, 0.15))
    if rng.random() < 0.5:
        _write_title(image, rng, brown * 0.35)
    return image


def page(rng: Rng) -> Image:
    """A printed sheet, newspaper or magazine page."""
    image = np.ones((SIZE, SIZE, 3)) * hsv(0.12, rng.uniform(0, 0.12), rng.uniform(0.85, 1))
    columns = int(rng.integers(1, 4))
    for column in range(columns):
        left, right = 8 + column * 114 // columns, 4 + (column + 1) * 114 // columns
        _write_lines(image, rng, left, right, int(rng.integers(8, 50)), 120, hsv(0, 0, rng.uniform(0.1, 0.5)))
    if rng.random() < 0.5:
        x, y, w, h = (int(v) for v in rng.integers([6, 6, 30, 20], [50, 60, 70, 55]))
        image[y : y + h, x : x + w] = (
            _color(rng, (0, 0.8), (0.2, 1)) * (0.4 + 0.8 * tileable_noise(rng, 4))[..., None]
        )[:h, :w]
    return image


def cover(rng: Rng) -> Image:
    """A book or magazine cover, a poster, a painting."""
    image = np.ones((SIZE, SIZE, 3)) * _color(rng, (0, 0.8), (0.1, 1))
    if rng.random() < 0.5:
        image *= (0.5 + 0.7 * tileable_noise(rng, 2))[..., None]
    for _ in range(int(rng.integers(0, 7))):
        _blob(image, rng)
    if rng.random() < 0.7:
        _write_title(image, rng, _color(rng, (0, 0.6), (0, 1)))
    return image


def landscape(rng: Rng) -> Image:
    """What is outside a window: sky, hills, trees, house fronts."""
    y, x = _grid()
    sky = hsv(rng.uniform(0.52, 0.64), rng.uniform(0.05, 0.45), 1)
    image = _mix(sky, np.ones(3), np.clip(0.7 * y + tileable_noise(rng, 2) - 0.5, 0, 1))
    horizon = rng.uniform(0.4, 0.8)
    for layer in range(3):
        ridge = horizon + 0.1 * layer - 0.2 * tileable_noise(rng, 2)[int(rng.integers(SIZE))]
        color = hsv(rng.uniform(0.1, 0.4), rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.55))
        image = np.where((y > ridge[None])[..., None], color * (0.5 + 0.7 * tileable_noise(rng, 8))[..., None], image)
    if rng.random() < 0.4:
        left, top, width = rng.uniform(0, 0.7), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.5)
        house = (x > left) & (x < left + width) & (y > top)
        image = np.where(house[..., None], _color(rng, (0, 0.4), (0.4, 0.9)), image)
        panes = house & ((x - left) * 9 % 1 > 0.5) & ((y - top) * 9 % 1 > 0.5)
        image[panes] = 0.2
    return image


def facade(rng: Rng) -> Image:
    """One window bay of a house front; repeats over the front."""
    wall = plaster(rng) * _color(rng, (0, 0.4), (0.4, 1)) if rng.random() < 0.6 else bricks(rng)
    glass = _mix(
        hsv(0.58, 0.3, rng.uniform(0.1, 0.3)), hsv(0.58, 0.2, rng.uniform(0.3, 0.8)), tileable_noise(rng, 2, 3)
    )
    left, top = int(rng.integers(16, 40)), int(rng.integers(16, 40))
    right, bottom = SIZE - left, SIZE - int(rng.integers(12, 36))
    frame = np.ones(3) * rng.choice([0.9, 0.9, 0.25])
    wall[top - 4 : bottom + 4, left - 4 : right + 4] = frame
    wall[top:bottom, left:right] = glass[top:bottom, left:right]
    if rng.random() < 0.7:
        wall[top:bottom, 62:66] = frame
    if rng.random() < 0.5:
        middle = (2 * top + bottom) // 3
        wall[middle : middle + 3, left:right] = frame
    if rng.random() < 0.3:
        wall[bottom + 4 : bottom + 9, left - 8 : right + 8] = 0.7
    return wall


def roof(rng: Rng) -> Image:
    """Rows of tiles or slates."""
    value, _ = _cells(rng, 8, 12, 0.5, 1)
    y, _ = _grid()
    shade = 0.6 + 0.4 * ((y * 12) % 1)
    return (
        hsv(rng.choice([0.02, 0.04, 0.6]), rng.uniform(0.05, 0.6), rng.uniform(0.25, 0.7))
        * (shade * (1 - 0.25 * value))[..., None]
    )


def foliage(rng: Rng) -> Image:
    """Leaves with gaps between them (RGBA)."""
    image = np.zeros((SIZE, SIZE, 4))
    base = hsv(rng.uniform(0.17, 0.36), rng.uniform(0.35, 0.85), rng.uniform(0.4, 0.75))
    if rng.random() < 0.12:
        base = hsv(rng.uniform(0.0, 0.14), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8))
    length, width = rng.uniform(7, 16), rng.uniform(2.5, 6)
    for _ in range(int(rng.integers(110, 190))):
        x, y = rng.uniform(10, 118, 2)
        color = np.clip(base * rng.uniform(0.45, 1.4), 0, 1)
        cv2.ellipse(image, ((x, y), (length, width), float(rng.uniform(0, 180))), (*color, 1.0), -1)
    return image


_KINDS: dict[str, tuple[Callable[[Rng], Image], int]] = {
    "plaster": (plaster, 24),
    "wood": (wood, 48),
    "tiles": (tiles, 24),
    "checker": (checker, 10),
    "bricks": (bricks, 16),
    "slabs": (slabs, 16),
    "stripes": (stripes, 16),
    "fabric": (fabric, 24),
    "carpet": (carpet, 28),
    "marble": (marble, 16),
    "speckle": (speckle, 16),
    "asphalt": (asphalt, 10),
    "soil": (soil, 12),
    "grass": (grass, 14),
    "metal": (metal, 10),
    "bark": (bark, 8),
    "curtain": (curtain, 10),
    "package": (package, 72),
    "cardboard": (cardboard, 24),
    "page": (page, 24),
    "cover": (cover, 48),
    "landscape": (landscape, 24),
    "facade": (facade, 32),
    "roof": (roof, 8),
    "foliage": (foliage, 16),
}


@lru_cache(maxsize=1)
def texture_bank() -> tuple[npt.NDArray[np.uint8], dict[str, range]]:
    """All layers (n, 128, 128, 4) uint8 and which of them are of which kind; the same in every process."""
    layers = []
    kinds = {}
    for kind, (paint, count) in _KINDS.items():
        kinds[kind] = range(len(layers), len(layers) + count)
        for index in range(count):
            seed = [_BANK_SEED, *kind.encode(), index]  # own stream each, so that new kinds leave old layers alone
            image = np.clip(paint(np.random.default_rng(seed)), 0, 1)
            if image.shape[2] == 3:
                image = np.dstack([image, np.ones((SIZE, SIZE))])
            layers.append(np.round(255 * image).astype(np.uint8))
    return np.stack(layers), kinds
