"""Sun and sky."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.scene import DirectionalLight
from diffusion_perception_ros.world.textures.tools import hsv


def sun(
    builder: SceneBuilder,
) -> tuple[DirectionalLight, tuple[float, float, float], tuple[float, float, float], float]:
    """Sunlight, ambient light, the sky's colour and its cloud cover, which belong together."""
    rng, config = builder.rng, builder.config.light
    elevation, azimuth = np.radians(rng.uniform(*config.sun_elevation_deg)), rng.uniform(0, 2 * np.pi)
    direction = (
        float(np.cos(elevation) * np.cos(azimuth)),
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
    )
    clouds = float(np.clip(rng.normal(0.4, 0.35), 0, 1))
    sky = hsv(rng.uniform(0.54, 0.62), rng.uniform(0.1, 0.6) * (1 - 0.8 * clouds), rng.uniform(0.85, 1)) ** 2.2
    if rng.random() < 0.12:
        sky = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.4), 1) ** 2.2
    strength = (1 - 0.85 * clouds) * rng.uniform(1.5, 4)
    color = hsv(rng.uniform(0.07, 0.13), 0.35 * (1 - np.sin(elevation)) + 0.05, 1) * strength
    ambient = (0.5 * sky + 0.5) * rng.uniform(0.35, 0.8)
    return (
        DirectionalLight(direction, (float(color[0]), float(color[1]), float(color[2]))),
        (float(ambient[0]), float(ambient[1]), float(ambient[2])),
        (float(sky[0]), float(sky[1]), float(sky[2])),
        clouds,
    )
