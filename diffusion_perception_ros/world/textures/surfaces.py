"""Textures of surfaces: plaster, wood, stone, cloth, ground, metal, foliage."""

from __future__ import annotations

import cv2
import numpy as np

from diffusion_perception_ros.world.textures.tools import (
    SIZE,
    Image,
    Rng,
    hsv,
    masonry,
    mix,
    random_color,
    tileable_noise,
    unit_grid,
)


def plaster(rng: Rng) -> Image:
    """Almost plain: most walls and many table tops."""
    grain: Image = tileable_noise(rng, 4) * rng.uniform(0.02, 0.12) + rng.normal(0, rng.uniform(0, 0.02), (SIZE, SIZE))
    return random_color(rng, (0, 0.12), (0.8, 1.0)) * (1 - grain)[..., None]


def wood(rng: Rng) -> Image:
    """Boards or a plain top, the grain along u."""
    boards = int(rng.choice([1, 1, 2, 3, 4, 6, 8]))
    y, x = unit_grid()
    row = np.floor(y * boards).astype(int)
    shade = rng.uniform(0.75, 1.1, boards)[row]
    grain = np.rot90(tileable_noise(rng, 8, 4, stretch=8))
    rings = 0.5 + 0.5 * np.sin(
        2 * np.pi * (np.rot90(tileable_noise(rng, 4, 3, stretch=4)) * rng.uniform(2, 6) + row * 0.37)
    )
    light = hsv(rng.uniform(0.03, 0.11), rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.95))
    image: Image = mix(light, light * rng.uniform(0.5, 0.85), 0.45 * grain + 0.4 * rings) * shade[..., None]
    if boards > 1:
        joints = (y * boards) % 1 < 0.03
        if rng.random() < 0.6:  # boards of finite length
            joints |= np.abs((x + row * rng.uniform(0.2, 0.8)) % 1) < 0.008
        image[joints] *= rng.uniform(0.4, 0.8)
    return image


def tiles(rng: Rng) -> Image:
    """Square tiles with joints."""
    count = int(rng.integers(1, 7))
    value, joints = masonry(rng, count, count, 0, rng.uniform(1, 2.5))
    image = random_color(rng, (0, 0.5), (0.3, 1)) * (1 - rng.uniform(0.03, 0.3) * value)[..., None]
    image = image * (1 - 0.15 * tileable_noise(rng))[..., None]
    image[joints] = random_color(rng, (0, 0.1), (0.3, 0.95))
    return image


def checker(rng: Rng) -> Image:
    """Two alternating colours."""
    count = int(rng.choice([2, 4, 6]))
    y, x = unit_grid()
    odd = ((np.floor(y * count) + np.floor(x * count)) % 2).astype(float)
    return (
        mix(random_color(rng, (0, 0.5), (0.2, 1)), random_color(rng, (0, 0.5), (0.2, 1)), odd)
        * (1 - 0.15 * tileable_noise(rng))[..., None]
    )


def bricks(rng: Rng) -> Image:
    """A brick wall, in its own or a painted colour."""
    rows = int(rng.choice([6, 8, 10, 12]))
    value, joints = masonry(rng, max(2, rows // 3), rows, 0.5, rng.uniform(1, 2))
    painted = rng.random() < 0.3
    base = (
        random_color(rng, (0, 0.2), (0.6, 1))
        if painted
        else hsv(rng.uniform(0, 0.09), rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.75))
    )
    image = base * (1 - rng.uniform(0.05, 0.4) * value - 0.15 * tileable_noise(rng, 8))[..., None]
    image[joints] = base * 0.75 if painted else hsv(0.1, 0.1, rng.uniform(0.4, 0.85))
    return image


def slabs(rng: Rng) -> Image:
    """Pavement: concrete or stone slabs."""
    rows = int(rng.integers(2, 7))
    value, joints = masonry(rng, int(rng.integers(2, 6)), rows, rng.choice([0, 0.5]), rng.uniform(1, 2))
    image = hsv(rng.uniform(0.05, 0.14), rng.uniform(0, 0.2), rng.uniform(0.45, 0.8)) * np.ones((SIZE, SIZE, 1))
    image *= (1 - 0.25 * value - 0.3 * tileable_noise(rng, 16))[..., None]
    image[joints] *= rng.uniform(0.45, 0.8)
    return image


def stripes(rng: Rng) -> Image:
    """Wallpaper and cloth."""
    y, x = unit_grid()
    along = (x if rng.random() < 0.7 else y) * int(rng.integers(2, 14)) % 1
    colors = [random_color(rng, (0, 0.6), (0.25, 1)) for _ in range(3)]
    second = rng.uniform(0.55, 0.95)
    image = np.where((along < 0.5)[..., None], colors[0], np.where((along < second)[..., None], colors[1], colors[2]))
    return image * (1 - 0.12 * tileable_noise(rng))[..., None]


def fabric(rng: Rng) -> Image:
    """Woven cloth."""
    y, x = unit_grid()
    threads = int(rng.choice([16, 32]))
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * x * threads) + 0.25 * np.sin(2 * np.pi * y * threads)
    return (
        random_color(rng, (0, 0.8), (0.15, 0.95))
        * ((0.8 + 0.25 * weave) * (1 - 0.25 * tileable_noise(rng)))[..., None]
    )


def carpet(rng: Rng) -> Image:
    """Short pile, mottled, now and then with a pattern of stripes."""
    image = (
        random_color(rng, (0, 0.6), (0.15, 0.8))
        * (0.75 + rng.normal(0, 0.12, (SIZE, SIZE)) + 0.3 * tileable_noise(rng, 8))[..., None]
    )
    if rng.random() < 0.35:
        _, x = unit_grid()
        band = np.sin(2 * np.pi * x * int(rng.integers(4, 24)) + 3 * tileable_noise(rng, 2, 2)) > rng.uniform(
            -0.3, 0.7
        )
        image = mix(image, image * random_color(rng, (0, 0.5), (0.3, 1.2)), band.astype(float))
    return image


def marble(rng: Rng) -> Image:
    """Veined stone."""
    _, x = unit_grid()
    veins = np.abs(np.sin(2 * np.pi * (tileable_noise(rng) * rng.uniform(1, 4) + x * int(rng.integers(0, 3)))))
    return mix(
        random_color(rng, (0, 0.2), (0.6, 1)),
        random_color(rng, (0, 0.4), (0.1, 0.8)),
        (1 - veins) ** rng.uniform(3, 9),
    )


def speckle(rng: Rng) -> Image:
    """Terrazzo and linoleum."""
    image = random_color(rng, (0, 0.3), (0.3, 0.95)) * (1 - 0.2 * tileable_noise(rng))[..., None]
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
    return mix(green, dry, patches) * (0.4 + 0.9 * blades)[..., None]


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
    _, x = unit_grid()
    folds = 0.6 + 0.4 * np.sin(2 * np.pi * (x * int(rng.integers(5, 12)) + 0.3 * tileable_noise(rng, 2, 2)))
    return random_color(rng, (0, 0.8), (0.3, 1)) * folds[..., None]


def roof(rng: Rng) -> Image:
    """Rows of tiles or slates."""
    value, _ = masonry(rng, 8, 12, 0.5, 1)
    y, _ = unit_grid()
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
