"""Textures with a picture: packages, cartons, pages, covers, views from windows and house fronts."""

from __future__ import annotations

import cv2
import numpy as np

from diffusion_perception_ros.world.textures.surfaces import bricks, plaster
from diffusion_perception_ros.world.textures.tools import (
    SIZE,
    Image,
    Rng,
    hsv,
    mix,
    random_color,
    tileable_noise,
    unit_grid,
)


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
    image[:] = mix(image, np.broadcast_to(ink, image.shape), canvas / 255)


def _blob(image: Image, rng: Rng) -> None:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    center = tuple(int(v) for v in rng.integers(10, 118, 2))
    axes = tuple(int(v) for v in rng.integers(5, 45, 2))
    if rng.random() < 0.5:
        cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        box = cv2.boxPoints((center, axes, float(rng.choice([0, 0, 0, 45, rng.uniform(0, 90)]))))
        cv2.fillPoly(canvas, [box.astype(np.int32)], 255, cv2.LINE_AA)
    color = random_color(rng, (0, 1), (0.1, 1)) * (0.6 + 0.6 * tileable_noise(rng, 4, 3))[..., None]
    image[:] = mix(image, color, canvas / 255)


def package(rng: Rng) -> Image:
    """The printed side of a food box, can or bottle."""
    image = np.ones((SIZE, SIZE, 3)) * random_color(rng, (0.1, 1), (0.4, 1))
    if rng.random() < 0.6:
        edge = int(rng.integers(20, 108))
        image[edge:] = random_color(rng, (0, 1), (0.3, 1))
    for _ in range(int(rng.integers(1, 5))):
        _blob(image, rng)
    for _ in range(int(rng.integers(1, 3))):
        _write_title(image, rng, random_color(rng, (0, 1), (0, 1)) if rng.random() < 0.5 else np.ones(3))
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
        image[:, 56:72] = mix(image[:, 56:72], np.ones(3) * brown * rng.uniform(0.7, 1.3), np.full((SIZE, 16), 0.7))
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
            random_color(rng, (0, 0.8), (0.2, 1)) * (0.4 + 0.8 * tileable_noise(rng, 4))[..., None]
        )[:h, :w]
    return image


def cover(rng: Rng) -> Image:
    """A book or magazine cover, a poster, a painting."""
    image = np.ones((SIZE, SIZE, 3)) * random_color(rng, (0, 0.8), (0.1, 1))
    if rng.random() < 0.5:
        image *= (0.5 + 0.7 * tileable_noise(rng, 2))[..., None]
    for _ in range(int(rng.integers(0, 7))):
        _blob(image, rng)
    if rng.random() < 0.7:
        _write_title(image, rng, random_color(rng, (0, 0.6), (0, 1)))
    return image


def landscape(rng: Rng) -> Image:
    """What is outside a window: sky, hills, trees, house fronts."""
    y, x = unit_grid()
    sky = hsv(rng.uniform(0.52, 0.64), rng.uniform(0.05, 0.45), 1)
    image = mix(sky, np.ones(3), np.clip(0.7 * y + tileable_noise(rng, 2) - 0.5, 0, 1))
    horizon = rng.uniform(0.4, 0.8)
    for layer in range(3):
        ridge = horizon + 0.1 * layer - 0.2 * tileable_noise(rng, 2)[int(rng.integers(SIZE))]
        color = hsv(rng.uniform(0.1, 0.4), rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.55))
        image = np.where((y > ridge[None])[..., None], color * (0.5 + 0.7 * tileable_noise(rng, 8))[..., None], image)
    if rng.random() < 0.4:
        left, top, width = rng.uniform(0, 0.7), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.5)
        house = (x > left) & (x < left + width) & (y > top)
        image = np.where(house[..., None], random_color(rng, (0, 0.4), (0.4, 0.9)), image)
        panes = house & ((x - left) * 9 % 1 > 0.5) & ((y - top) * 9 % 1 > 0.5)
        image[panes] = 0.2
    return image


def facade(rng: Rng) -> Image:
    """One window bay of a house front; repeats over the front."""
    wall = plaster(rng) * random_color(rng, (0, 0.4), (0.4, 1)) if rng.random() < 0.6 else bricks(rng)
    glass = mix(
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
