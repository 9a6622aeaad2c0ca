"""A camera that stands still and somebody who walks through its image: exact ground truth of a moving object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.world.assets import load_assets
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.clip import SENSOR
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.items import makers
from diffusion_perception_ros.world.items.people import person
from diffusion_perception_ros.world.rendering.renderer import Renderer, create_renderer
from diffusion_perception_ros.world.rendering.sensor import capture
from diffusion_perception_ros.world.sampling import furnished_room
from diffusion_perception_ros.world.scene import Camera, Scene, look_at
from diffusion_perception_ros.world.scenes import cameras
from diffusion_perception_ros.world.scenes.rooms import room_lights


SPEED = 1.0
"""Metres per second: an easy walk."""
DISTANCE = 2.2
"""Metres from the camera to the path, which runs across the view."""
_EYE_HEIGHT = 1.3
_ROOM_SIDE = (5.0, 6.0)
_HFOV_DEG = 70.0


def render_crossing(
    seed: int, frames: int, rate: float = 15.0, width: int = 640, height: int = 480
) -> Iterator[tuple[Sample, int]]:
    """Samples in order, with the id that the walking person has in `instances`.

    The person glides along a straight line across the image, halfway through it at half of the frames; nothing else
    but the sensor's noise and its automatic exposure changes.

    Raises:
        InputError: the catalogue of meshes cannot be read.
    """
    scene, walker = _scene(seed, width, height)
    pose = scene.camera.world_from_camera
    moving = scene.triangles.instance == walker
    standing = scene.triangles.positions
    renderer: Renderer = create_renderer(width, height, supersample=2)
    try:
        for number in range(frames):
            travelled = SPEED * (number - (frames - 1) / 2) / rate
            positions = standing.copy()
            positions[moving] += (travelled * pose[:3, 0]).astype(np.float32)
            # New triangles, because a renderer keeps those that it has seen.
            moved = replace(scene, triangles=replace(scene.triangles, positions=positions))
            sample = capture(
                renderer.render(moved),
                scene.camera.intrinsics,
                np.random.default_rng([seed, number]),
                SENSOR,
                stamp=number / rate,
                name=f"frame {number}",
            )
            yield sample, walker
    finally:
        renderer.release()


def _scene(seed: int, width: int, height: int) -> tuple[Scene, int]:
    """A furnished room with a person in the middle of the view, and the person's instance id."""
    config = WorldConfig()
    room_config = config.room.model_copy(update={"side_m": _ROOM_SIDE, "people_share": 0.0})
    camera_config = config.camera.model_copy(update={"hfov_deg": (_HFOV_DEG, _HFOV_DEG), "center_jitter": 0.0})
    config = config.model_copy(update={"room": room_config, "camera": camera_config})
    builder = SceneBuilder(np.random.default_rng(seed), load_assets(config), config, makers.make)
    walker = builder.place(person(builder, "walk"), (0.0, 0.0, 0.0), yaw=np.pi / 2)
    assert walker is not None
    room = furnished_room(builder, is_dark=False)
    eye = np.array([0.0, -DISTANCE, _EYE_HEIGHT])
    camera = Camera(cameras.sample_intrinsics(builder, width, height), look_at(eye, (0.0, 0.0, 1.0)))
    lights, ambient = room_lights(builder, room)
    scene = Scene(
        builder.build(), builder.assets.textures, list(lights), ambient, camera, seed=seed, tags=["crossing"]
    )
    return scene, walker.instance
