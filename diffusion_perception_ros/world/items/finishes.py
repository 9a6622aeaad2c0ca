"""Common surface finishes: wood, paint, cloth, metal, plastic and prints."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import Material, SceneBuilder


def wood(builder: SceneBuilder) -> Material:
    """Varnished or raw wood, light to dark."""
    rng = builder.rng
    return Material(np.ones(3) * rng.uniform(0.35, 1), builder.texture("wood"), rng.choice([0, rng.uniform(0, 0.4)]))


def paint(builder: SceneBuilder) -> Material:
    """Lacquer or melamine: mostly white and grey, at times a strong colour."""
    rng = builder.rng
    if rng.random() < 0.55:
        color = builder.color((0.5, 1), (0, 0.12))
    elif rng.random() < 0.4:
        color = builder.color((0.03, 0.3), (0, 0.3))
    else:
        color = builder.color((0.3, 0.9), (0.3, 0.9))
    return Material(color, builder.texture("plaster"), rng.uniform(0, 0.5))


def wood_or_paint(builder: SceneBuilder) -> Material:
    """What most furniture is made of."""
    return wood(builder) if builder.rng.random() < 0.6 else paint(builder)


def cloth(builder: SceneBuilder) -> Material:
    """Upholstery, bedding, clothes."""
    texture = builder.texture("fabric", "fabric", "fabric", "plaster", "carpet", "stripes")
    return Material(builder.color((0.3, 1), (0, 0.6)), texture)


def metal(builder: SceneBuilder) -> Material:
    """Chrome, steel, black or coloured tubes."""
    rng = builder.rng
    grey = rng.choice([rng.uniform(0.02, 0.08), rng.uniform(0.3, 0.8)])
    return Material(np.ones(3) * grey, builder.texture("metal"), rng.uniform(0.3, 0.8))


def plastic(builder: SceneBuilder, gloss: float = 0.4) -> Material:
    """One colour, from white china to saturated plastic."""
    rng = builder.rng
    grey = np.ones(3) * rng.uniform(0.03, 0.9)
    return Material(grey if rng.random() < 0.35 else builder.color((0.2, 1), (0.1, 1)), -1, rng.uniform(0, gloss))


def printed(builder: SceneBuilder, *kinds: str) -> Material:
    """A picture of one of these kinds, hardly tinted."""
    rng = builder.rng
    return Material(np.ones(3) * rng.uniform(0.6, 1), builder.texture(*kinds), rng.uniform(0, 0.3))


BLACK = Material((0.02, 0.02, 0.02), -1, 0.3)
WHITE = Material((0.8, 0.8, 0.79), -1, 0.4)
RUBBER = Material((0.02, 0.02, 0.02))
GLASS = Material((0.03, 0.04, 0.05), -1, 0.9)
"""Seen from outside, panes are dark and mirror the light."""
