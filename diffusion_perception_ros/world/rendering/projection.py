"""What both renderers share: the camera's projection, places of lights, shadow maps fitted to what the camera sees.

Clip coordinates follow OpenGL, with one difference: image rows grow downwards in memory and in clip space alike, so
that nothing has to be flipped when an image is read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.scene import DirectionalLight, PointLight


Float64 = npt.NDArray[np.float64]

NEAR, FAR = 0.05, 500.0
"""Metres: nothing nearer or farther than this is drawn."""
MAX_LIGHTS = 4
OCCLUSION_RADIUS = {False: 0.45, True: 0.7}
"""Metres, indoors and outdoors."""
SHADOW_FIT_STRIDE = 8
"""Every n-th sample of the image takes part in fitting the shadow maps."""
LAMP_HALF_ANGLE = np.radians(75.0)
"""Widest cone of one lamp's shadow map; what lies outside of it is lit."""
SHADOW_REACH = 30.0
"""Metres from the camera within which shadows are kept sharp."""
SUN_OCCLUDER_REACH = 120.0
"""Metres towards the sun within which things cast a shadow on what is seen."""


def sample_grid(intrinsics: Intrinsics, supersample: int) -> Intrinsics:
    """The camera of the grid that is really drawn: `supersample` (1 or 2) samples per pixel and axis.

    With 2, the samples of odd row and column sit exactly on the pixel centres: ground truth is read from them.
    """
    if supersample == 1:
        return intrinsics
    return Intrinsics(
        2 * intrinsics.width + 1,
        2 * intrinsics.height + 1,
        2 * intrinsics.fx,
        2 * intrinsics.fy,
        2 * intrinsics.cx + 1,
        2 * intrinsics.cy + 1,
    )


def clip_from_camera(camera: Intrinsics) -> Float64:
    """(4, 4) projection of the optical frame that sends the centre of pixel (u, v) to the centre of sample (u, v)."""
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.fx / camera.width, 2 * (camera.cx + 0.5) / camera.width - 1
    matrix[1, 1], matrix[1, 2] = 2 * camera.fy / camera.height, 2 * (camera.cy + 0.5) / camera.height - 1
    matrix[2, 2], matrix[2, 3] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = 1.0
    return matrix


def camera_from_world(world_from_camera: Float64) -> Float64:
    """Inverse of a rigid (4, 4) pose."""
    rotation, translation = world_from_camera[:3, :3], world_from_camera[:3, 3]
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = rotation.T, -rotation.T @ translation
    return inverse


def project(camera: Intrinsics, points: Float64) -> Float64:
    """(…, 2) pixels of points (…, 3) in the optical frame; meaningless nearer than `NEAR` and behind the camera."""
    z = np.where(points[..., 2] > NEAR, points[..., 2], 1.0)
    u = camera.fx * points[..., 0] / z + camera.cx
    v = camera.fy * points[..., 1] / z + camera.cy
    return np.stack([u, v], axis=-1)


def tent_filter(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(2H+1, 2W+1, 3) samples to (H, W, 3) pixels, weighted 1 2 1 along each axis about the pixel's centre."""
    rows = (samples[:-1:2] + 2 * samples[1::2] + samples[2::2]) * 0.25
    return np.asarray((rows[:, :-1:2] + 2 * rows[:, 1::2] + rows[:, 2::2]) * 0.25)


def place_lights(lights: Sequence[PointLight | DirectionalLight], view: Float64) -> Float64:
    """(lights, 4) in the optical frame: a lamp's position and 1, or the direction towards the sun and 0."""
    places = np.zeros((len(lights), 4))
    for index, light in enumerate(lights):
        if isinstance(light, DirectionalLight):
            places[index, :3] = view[:3, :3] @ light.direction
        else:
            places[index] = view @ (*light.position, 1.0)
    return places


def seen_points(camera: Intrinsics, depth: npt.NDArray[np.float32]) -> Float64:
    """A thinned-out set (N, 3) of the points seen, optical frame; far ones only where nothing is near."""
    stride = SHADOW_FIT_STRIDE
    z = depth[::stride, ::stride].astype(np.float64)
    v, u = np.mgrid[0 : camera.height : stride, 0 : camera.width : stride]
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=-1)
    points = points[z > 0]
    nearby = points[points[:, 2] < SHADOW_REACH]
    return nearby if len(nearby) else points


@dataclass(frozen=True)
class ShadowView:
    """Where a shadow map is taken from."""

    clip_from_frame: Float64
    """(4, 4) from the frame of the points that were fitted to the light's clip space."""
    texel: float
    """Width of a texel: metres for the sun, metres per metre of distance for a lamp."""


def fit_shadow(light: PointLight | DirectionalLight, place: Float64, points: Float64, size: int) -> ShadowView:
    """The view from a light that covers the points (N, 3) that are seen, N ≥ 1.

    Args:
        place: position of a lamp, or direction towards the sun, in the frame of the points.
        size: width of the shadow map in texels.
    """
    if isinstance(light, DirectionalLight):
        return _fit_sun(place, points, size)
    return _fit_lamp(place, points, size)


def _fit_lamp(position: Float64, points: Float64, size: int) -> ShadowView:
    rays = points - position
    distance = np.linalg.norm(rays, axis=1)
    rays = rays / np.maximum(distance, 1e-6)[:, None]
    axis = rays.mean(axis=0)
    length = np.linalg.norm(axis)
    axis = axis / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
    half_angle = np.arccos(np.clip((rays @ axis).min(), -1.0, 1.0)) * 1.05
    tangent = np.tan(np.clip(half_angle, 0.1, LAMP_HALF_ANGLE))
    near, far = 0.05, max(float(distance.max()) * 1.1, 1.0)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = 1 / tangent
    projection[2, 2], projection[2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    projection[3, 2] = 1.0
    return ShadowView(projection @ _view_along(axis, position), 2 * tangent / size)


def _fit_sun(direction: Float64, points: Float64, size: int) -> ShadowView:
    view = _view_along(-direction, np.zeros(3))
    seen = points @ view[:3, :3].T
    low, high = seen.min(axis=0), seen.max(axis=0)
    centre, extent = (low + high) / 2, max(float((high - low)[:2].max()) * 0.52, 0.5)
    front, back = low[2] - SUN_OCCLUDER_REACH, high[2] + 1.0
    projection = np.diag([1 / extent, 1 / extent, 2 / (back - front), 1.0])
    projection[:3, 3] = -centre[0] / extent, -centre[1] / extent, -(back + front) / (back - front)
    return ShadowView(projection @ view, 2 * extent / size)


def _view_along(axis: Float64, position: Float64) -> Float64:
    """(4, 4) into a frame at `position` whose z is `axis`."""
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    x = np.cross(other, axis)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(axis, x), axis])
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = rotation, -rotation @ position
    return view
