"""Light outdoors: sun and sky, or lamps at night."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.scene import Camera, DirectionalLight, PointLight
from diffusion_perception_ros.world.textures.tools import hsv


Color = tuple[float, float, float]
OutdoorLight = tuple[list[PointLight | DirectionalLight], Color, Color, float]
"""Lights, ambient light, the sky's colour and its cloud cover."""


def night(builder: SceneBuilder, camera: Camera) -> OutdoorLight:
    """Street lamps about the camera, at times the robot's own light, and hardly anything from the sky."""
    rng, pose = builder.rng, camera.world_from_camera
    lights: list[PointLight | DirectionalLight] = []
    for _ in range(int(rng.integers(1, 4))):
        x, y, _ = (float(value) for value in pose[:3, 3] + pose[:3, 2] * rng.uniform(0, 25) + rng.normal(0, 4, 3))
        red, green, blue = (hsv(rng.uniform(0.06, 0.16), rng.uniform(0.05, 0.6), 1) * rng.uniform(20, 90)).tolist()
        lights.append(PointLight((x, y, float(pose[2, 3] + rng.uniform(2.5, 7))), (red, green, blue)))
    if rng.random() < 0.6:
        x, y, z = (pose[:3, 3] + pose[:3, 0] * rng.uniform(-0.4, 0.4) + pose[:3, 1] * rng.uniform(-0.3, 0.3)).tolist()
        strength = rng.uniform(3, 25)
        lights.insert(0, PointLight((x, y, z), (strength, strength, strength)))
    sky = hsv(rng.uniform(0.55, 0.7), rng.uniform(0.2, 0.7), rng.uniform(0.02, 0.25)) ** 2.2
    ambient = (sky + 0.02) * rng.uniform(0.3, 1.5)
    return lights, (*ambient.tolist(),), (*sky.tolist(),), float(rng.uniform(0, 1))


def sun(builder: SceneBuilder) -> OutdoorLight:
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
        [DirectionalLight(direction, (float(color[0]), float(color[1]), float(color[2])))],
        (float(ambient[0]), float(ambient[1]), float(ambient[2])),
        (float(sky[0]), float(sky[1]), float(sky[2])),
        clouds,
    )
