"""The moment before an image: camera and objects stood a little elsewhere. Exact optical flow between the two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, Intrinsics
from diffusion_perception_ros.world.config import SensorConfig
from diffusion_perception_ros.world.labels import CLASS_ID
from diffusion_perception_ros.world.rendering.image import RenderedImage
from diffusion_perception_ros.world.rendering.projection import NEAR, camera_from_world, project
from diffusion_perception_ros.world.rendering.renderer import Renderer
from diffusion_perception_ros.world.scene import Scene


Float64 = npt.NDArray[np.float64]

CAMERA_STANDS = 0.15
"""Share of the pairs in which the camera stands still."""
CAMERA_TURN_DEG = 1.0
"""Standard deviation of the camera's rotation between the images, degrees about each axis."""
CAMERA_STEP = 0.02
"""Standard deviation of its step along each axis, as a share of the median depth: near things are watched closely."""
OBJECT_MOVES = 0.35
"""Share of the movable objects that move."""
OBJECT_TURN_DEG = 5.0
OBJECT_STEP = 0.04
"""Standard deviation of an object's step along the ground, as a share of its distance from the camera."""
_MOVABLE = ("person", "animal", "car", "truck", "cycle", "chair", "box", "container", "object")
_CLOSER = 0.5
"""A median depth that falls below this share within one step means that the camera was inside something."""


def previous_view(
    scene: Scene, image: RenderedImage, renderer: Renderer, rng: np.random.Generator
) -> tuple[RenderedImage, FloatImage]:
    """The view of a moment ago, and the flow (H, W, 2) from every pixel of `image` to its place in that view.

    Args:
        image: the scene as it is now.
    """
    motions = _object_motions(scene, image, rng)
    seen = image.depth[np.isfinite(image.depth)]
    pose = scene.camera.world_from_camera
    if rng.random() >= CAMERA_STANDS:
        pose = pose @ _step(rng, CAMERA_TURN_DEG, CAMERA_STEP * float(np.median(seen)))
    before = renderer.render(_moved(scene, motions, pose))
    if np.median(before.depth) < _CLOSER * np.median(image.depth):
        pose = scene.camera.world_from_camera
        before = renderer.render(_moved(scene, motions, pose))
    return before, flow_between(scene, image, motions, pose)


def fixed_sensor(config: SensorConfig, rng: np.random.Generator) -> SensorConfig:
    """One camera out of a range of cameras, so that both images of a pair are taken by the same; channels alike."""
    values: dict[str, object] = {}
    for name in SensorConfig.model_fields:
        value = getattr(config, name)
        if isinstance(value, tuple):
            drawn = int(rng.integers(value[0], value[1] + 1)) if name == "jpeg_quality" else rng.uniform(*value)
            values[name] = (drawn, drawn)
        else:
            values[name] = float(rng.random() < value)
    return config.model_copy(update=values)


def flow_between(scene: Scene, image: RenderedImage, motions: dict[int, Float64], pose: Float64) -> FloatImage:
    """(H, W, 2) pixels (right, down) to where each point was, also where it was hidden or outside of the image.

    Args:
        motions: instance id → (4, 4) that takes its points, in the world, to where they were.
        pose: (4, 4), of the camera as it was.

    Returns:
        NaN where the point was behind the camera.
    """
    camera = scene.camera.intrinsics
    rays = _rays(camera)
    sky = ~np.isfinite(image.depth)
    depth = np.where(sky, 1.0, image.depth).astype(np.float64)
    now, before = scene.camera.world_from_camera, camera_from_world(pose)
    world = (rays * depth[..., None]) @ now[:3, :3].T + now[:3, 3]
    for instance, motion in motions.items():
        moved = image.instances == instance
        world[moved] = world[moved] @ motion[:3, :3].T + motion[:3, 3]
    points = world @ before[:3, :3].T + before[:3, 3]
    points[sky] = rays[sky] @ (before[:3, :3] @ now[:3, :3]).T  # infinitely far: only rotation moves it
    flow = project(camera, points) - project(camera, rays)
    flow[points[..., 2] <= NEAR] = np.nan
    return flow.astype(np.float32)


def _object_motions(scene: Scene, image: RenderedImage, rng: np.random.Generator) -> dict[int, Float64]:
    motions = {}
    movable = np.isin(image.semantic, [CLASS_ID[name] for name in _MOVABLE])
    for instance in np.unique(image.instances[movable & (image.instances > 0)]):
        if rng.random() < OBJECT_MOVES:
            corners = scene.triangles.positions[scene.triangles.instance == instance].reshape(-1, 3)
            distance = float(np.median(image.depth[image.instances == instance]))
            step, turn = rng.normal(0, OBJECT_STEP * distance, 2), np.radians(rng.normal(0, OBJECT_TURN_DEG))
            motion, centre = np.eye(4), corners.mean(axis=0, dtype=np.float64)
            motion[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            motion[:3, 3] = centre - motion[:3, :3] @ centre + (*step, 0.0)
            motions[int(instance)] = motion
    return motions


def _step(rng: np.random.Generator, degrees: float, metres: float) -> Float64:
    """(4, 4), a small random motion in the camera's own frame."""
    turn = np.radians(rng.normal(0, degrees, 3))
    angle = float(np.linalg.norm(turn))
    x, y, z = turn / max(angle, 1e-9)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    step = np.eye(4)
    step[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    step[:3, 3] = rng.normal(0, metres, 3)
    return step


def _moved(scene: Scene, motions: dict[int, Float64], pose: Float64) -> Scene:
    """The scene as it was; the one of now stays as it is."""
    triangles = scene.triangles
    if motions:
        triangles = replace(triangles, positions=triangles.positions.copy(), normals=triangles.normals.copy())
        for instance, motion in motions.items():
            rows = triangles.instance == instance
            rotation = motion[:3, :3].astype(np.float32)
            triangles.positions[rows] = triangles.positions[rows] @ rotation.T + motion[:3, 3].astype(np.float32)
            triangles.normals[rows] = triangles.normals[rows] @ rotation.T
    return replace(scene, triangles=triangles, camera=replace(scene.camera, world_from_camera=pose))


def _rays(camera: Intrinsics) -> Float64:
    """(H, W, 3), z = 1."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    return np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
