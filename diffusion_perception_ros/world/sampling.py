"""One call from a seed to a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.assets import load_assets
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.items import makers
from diffusion_perception_ros.world.scene import Camera, DirectionalLight, PointLight, Scene
from diffusion_perception_ros.world.scenes import cameras, nearfield
from diffusion_perception_ros.world.scenes.daylight import night, sun
from diffusion_perception_ros.world.scenes.dining import build_dining
from diffusion_perception_ros.world.scenes.furnish import THEMES, add_floor_clutter, furnish
from diffusion_perception_ros.world.scenes.halls import build_corridor, build_crowd, build_hall
from diffusion_perception_ros.world.scenes.kitchens import build_kitchen
from diffusion_perception_ros.world.scenes.manipulation import build_arm, build_bare_top
from diffusion_perception_ros.world.scenes.nature import add_hills, build_nature, build_rough
from diffusion_perception_ros.world.scenes.parcels import build_parcels
from diffusion_perception_ros.world.scenes.paths import drive_through
from diffusion_perception_ros.world.scenes.rooms import (
    Room,
    add_lamps,
    add_openings,
    add_pictures,
    add_pipes,
    add_rug,
    build_shell,
    room_lights,
)
from diffusion_perception_ros.world.scenes.streets import build_street


_CLIP_SIDE_M = (4.5, 6.5)
_CLIP_HFOV_DEG = (65.0, 75.0)
_NEAR_FIELD = {
    "tabletop": nearfield.build_tabletop,
    "bin": nearfield.build_bin,
    "shelf": nearfield.build_shelf_front,
    "portrait": nearfield.build_portrait,
    "arm": build_arm,
}
_LARGE = {"corridor": build_corridor, "hall": build_hall, "crowd": build_crowd}
_OUTDOOR = {"street": build_street, "nature": build_nature, "rough": build_rough}
_SETTINGS = {
    "kitchen": (build_kitchen, ("kitchen", "dining", "living")),
    "dining": (build_dining, ("dining", "living", "living")),
    "bare_top": (build_bare_top, ("office", "office", "dining", "storage", "living", "mixed")),
    "desk": (nearfield.build_desk, ("office", "office", "storage", "mixed")),
    "parcels": (build_parcels, ("bedroom", "living", "storage", "office")),
}
"""What a room is built around, before doors and windows take the walls, and the themes that furnish the rest."""


_Cameras = Callable[[], Camera]
"""Gives another camera in the scene each time it is called."""


def sample_scene(seed: int, config: WorldConfig, width: int, height: int) -> Scene:
    """A random scene with a camera of `width` x `height` pixels; the same seed and configuration give the same scene.

    Raises:
        InputError: `config.meshes` holds no catalogue.
    """
    return sample_views(seed, config, width, height, 1)[0]


def sample_views(seed: int, config: WorldConfig, width: int, height: int, count: int) -> list[Scene]:
    """The scene of `sample_scene` and further views of it: the same triangles (one object), other cameras and light.

    Raises:
        InputError: `config.meshes` holds no catalogue.
    """
    rng = np.random.default_rng(seed)
    weights = config.mixture.weights()
    share = np.array(list(weights.values())) / sum(weights.values())
    kind = str(rng.choice(list(weights), p=share))
    builder = SceneBuilder(rng, load_assets(config), config, makers.make)
    build = _outdoor if kind in _OUTDOOR else _indoor
    scene, another_camera = build(builder, kind, width, height)
    scene.seed = seed
    scene.tags.insert(0, kind)
    scene.skeletons = builder.skeletons
    others = [replace(_relit(scene, rng), camera=another_camera(), seed=seed + (n << 40)) for n in range(1, count)]
    return [scene, *others]


def _relit(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same lights in the same places, some turned down or off, in other tints; never quite dark."""

    def tint() -> npt.NDArray[np.float64]:
        return np.asarray(np.exp(rng.normal(0, 0.5)) * rng.uniform(0.8, 1.2, 3))

    def dimmed(light: PointLight | DirectionalLight) -> PointLight | DirectionalLight:
        red, green, blue = (np.asarray(light.color) * tint() * (0.02 if rng.random() < 0.2 else 1.0)).tolist()
        return replace(light, color=(red, green, blue))

    red, green, blue = (np.asarray(scene.ambient) * tint()).tolist()
    return replace(scene, lights=[dimmed(light) for light in scene.lights], ambient=(red, green, blue))


def sample_clip(
    seed: int, config: WorldConfig, width: int, height: int, frames: int, fps: float = 15.0
) -> tuple[Scene, list[npt.NDArray[np.float64]]]:
    """A furnished room and the poses (4, 4) of a camera that drives through it; set `scene.camera` for each frame.

    Raises:
        ValueError: fewer than two frames, or a frame rate that is not positive.
        InputError: `config.meshes` holds no catalogue.
    """
    if frames < 2 or fps <= 0:
        raise ValueError(f"a clip needs at least two frames and a positive rate, got {frames} at {fps} Hz")
    room_config = config.room.model_copy(update={"side_m": _CLIP_SIDE_M, "people_share": 0.0})
    camera_config = config.camera.model_copy(update={"hfov_deg": _CLIP_HFOV_DEG, "center_jitter": 0.0})
    config = config.model_copy(update={"room": room_config, "camera": camera_config})
    builder = SceneBuilder(np.random.default_rng(seed), load_assets(config), config, makers.make)
    room = furnished_room(builder, is_dark=False)
    poses = drive_through(builder, room, frames, fps)
    camera = Camera(cameras.sample_intrinsics(builder, width, height), poses[0])
    lights, ambient = room_lights(builder, room)
    scene = Scene(builder.build(), builder.assets.textures, list(lights), ambient, camera, seed=seed, tags=["clip"])
    return scene, poses


def _indoor(builder: SceneBuilder, kind: str, width: int, height: int) -> tuple[Scene, _Cameras]:
    rng, config = builder.rng, builder.config.room
    is_dark = rng.random() < config.dark_share
    propose = None
    if kind in _LARGE:
        room = _LARGE[kind](builder, is_dark)
    elif kind in _NEAR_FIELD:
        room = _dressed_shell(builder, is_dark)
        propose = _NEAR_FIELD[kind](builder, room)
        furnish(builder, room, builder.choice(tuple(THEMES)), 0.4 * rng.uniform(*config.density))
    elif kind in _SETTINGS:
        build, themes = _SETTINGS[kind]
        is_dim = kind == "dining" and rng.random() < config.dim_dining_share
        room = _bare_shell(builder, is_dark)
        room.is_dark = is_dark or is_dim
        propose = build(builder, room)
        _dress(builder, room)
        furnish(builder, room, builder.choice(themes), 0.4 * rng.uniform(*config.density))
    else:
        room = furnished_room(builder, is_dark)
    if kind == "low_camera":
        add_floor_clutter(builder, room, int(rng.integers(1, 10)))

    def another_camera() -> Camera:
        if propose is None:
            return _room_camera(builder, room, kind, width, height)
        return cameras.aim(builder, width, height, *cameras.first_clear(room.plan, propose))

    camera = another_camera()
    lights, ambient = room_lights(builder, room)
    tags = ["dark"] if room.is_dark else []
    scene = Scene(builder.build(), builder.assets.textures, list(lights), ambient, camera, tags=tags)
    return scene, another_camera


def furnished_room(builder: SceneBuilder, is_dark: bool) -> Room:
    """A room of any theme, with everything in it."""
    room = _dressed_shell(builder, is_dark)
    furnish(builder, room, builder.choice(tuple(THEMES)), builder.rng.uniform(*builder.config.room.density))
    return room


def _dressed_shell(builder: SceneBuilder, is_dark: bool) -> Room:
    """An unfurnished room with windows, doors, pictures and lamps."""
    room = _bare_shell(builder, is_dark)
    _dress(builder, room)
    return room


def _bare_shell(builder: SceneBuilder, is_dark: bool) -> Room:
    rng, config = builder.rng, builder.config.room
    width, depth = rng.uniform(*config.side_m), rng.uniform(*config.side_m)
    return build_shell(builder, width, depth, rng.uniform(*config.height_m), is_dark)


def _dress(builder: SceneBuilder, room: Room) -> None:
    """Windows, doors, pictures, rugs, pipes and lamps."""
    rng = builder.rng
    add_openings(builder, room, int(rng.integers(0, 4)), int(rng.integers(0, 3)))
    add_pictures(builder, room, int(rng.integers(0, 5)))
    if rng.random() < 0.35:
        add_rug(builder, room)
    if rng.random() < 0.25:
        add_pipes(builder, room)
    if rng.random() < 0.6:
        add_lamps(builder, room)


def _room_camera(builder: SceneBuilder, room: Room, kind: str, width: int, height: int) -> Camera:
    lens = builder.config.camera
    heights = lens.low_height_m if kind == "low_camera" else lens.height_m
    if kind == "corridor" and builder.rng.random() < 0.7:
        eye, target = cameras.first_clear(
            room.plan, lambda: cameras.view_along(builder, room.plan, heights, room.height)
        )
    else:
        eye, target = cameras.room_view(builder, room.plan, heights, room.height)
    return cameras.aim(builder, width, height, eye, target)


def _outdoor(builder: SceneBuilder, kind: str, width: int, height: int) -> tuple[Scene, _Cameras]:
    rng, config = builder.rng, builder.config.outdoor
    propose = _OUTDOOR[kind](builder)
    if config.hills_share > 0 and rng.random() < config.hills_share:
        add_hills(builder)

    def another_camera() -> Camera:
        return cameras.aim(builder, width, height, *propose())

    camera = another_camera()
    is_night = config.night_share > 0 and rng.random() < config.night_share
    lights, ambient, sky, clouds = night(builder, camera) if is_night else sun(builder)
    scene = Scene(
        builder.build(),
        builder.assets.textures,
        lights,
        ambient,
        camera,
        sky_color=sky,
        clouds=clouds,
        is_outdoor=True,
        tags=["night"] if is_night else [],
    )
    return scene, another_camera
