"""One call from a seed to a scene."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.world import cameras, makers, nearfield, outdoor
from diffusion_perception_ros.world.assets import load_assets
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.furnish import THEMES, add_floor_clutter, furnish
from diffusion_perception_ros.world.halls import build_corridor, build_hall
from diffusion_perception_ros.world.rooms import (
    Room,
    add_lamps,
    add_openings,
    add_pictures,
    add_pipes,
    add_rug,
    build_shell,
    room_lights,
)
from diffusion_perception_ros.world.scene import Camera, Scene


_NEAR_FIELD = {
    "tabletop": nearfield.build_tabletop,
    "bin": nearfield.build_bin,
    "shelf": nearfield.build_shelf_front,
}


def sample_scene(seed: int, config: WorldConfig, width: int, height: int) -> Scene:
    """A random scene with a camera of `width` x `height` pixels; the same seed and configuration give the same scene.

    Raises:
        InputError: `config.meshes` holds no catalogue.
    """
    rng = np.random.default_rng(seed)
    weights = config.mixture.weights()
    share = np.array(list(weights.values())) / sum(weights.values())
    kind = str(rng.choice(list(weights), p=share))
    builder = SceneBuilder(rng, load_assets(config), config, makers.make)
    scene = (
        _outdoor(builder, kind, width, height)
        if kind in ("street", "nature")
        else _indoor(builder, kind, width, height)
    )
    scene.seed = seed
    scene.tags.insert(0, kind)
    return scene


def _indoor(builder: SceneBuilder, kind: str, width: int, height: int) -> Scene:
    rng, config = builder.rng, builder.config
    is_dark = rng.random() < config.room.dark_share
    if kind in ("corridor", "hall"):
        room = build_corridor(builder, is_dark) if kind == "corridor" else build_hall(builder, is_dark)
    else:
        room = _furnished_room(builder, is_dark, sparse=kind in _NEAR_FIELD)
    if kind in _NEAR_FIELD:
        camera = cameras.aim(builder, width, height, *_NEAR_FIELD[kind](builder, room))
    else:
        if kind == "low_camera":
            add_floor_clutter(builder, room, int(rng.integers(1, 10)))
        camera = _room_camera(builder, room, kind, width, height)
    lights, ambient = room_lights(builder, room)
    return Scene(
        builder.build(), builder.assets.textures, list(lights), ambient, camera, tags=["dark"] if is_dark else []
    )


def _furnished_room(builder: SceneBuilder, is_dark: bool, sparse: bool) -> Room:
    rng, config = builder.rng, builder.config.room
    room = build_shell(
        builder, rng.uniform(*config.side_m), rng.uniform(*config.side_m), rng.uniform(*config.height_m), is_dark
    )
    add_openings(builder, room, int(rng.integers(0, 4)), int(rng.integers(0, 3)))
    add_pictures(builder, room, int(rng.integers(0, 5)))
    if rng.random() < 0.35:
        add_rug(builder, room)
    if rng.random() < 0.25:
        add_pipes(builder, room)
    if rng.random() < 0.6:
        add_lamps(builder, room)
    density = rng.uniform(*config.density) * (0.4 if sparse else 1)
    furnish(builder, room, builder.choice(tuple(THEMES)), density)
    return room


def _room_camera(builder: SceneBuilder, room: Room, kind: str, width: int, height: int) -> Camera:
    lens = builder.config.camera
    heights = lens.low_height_m if kind == "low_camera" else lens.height_m
    eye, target = cameras.room_view(builder, room.plan, heights, room.height)
    return cameras.aim(builder, width, height, eye, target)


def _outdoor(builder: SceneBuilder, kind: str, width: int, height: int) -> Scene:
    build = outdoor.build_street if kind == "street" else outdoor.build_nature
    camera = cameras.aim(builder, width, height, *build(builder))
    light, ambient, sky, clouds = outdoor.sun(builder)
    return Scene(
        builder.build(),
        builder.assets.textures,
        [light],
        ambient,
        camera,
        sky_color=sky,
        clouds=clouds,
        is_outdoor=True,
    )
