"""Smooth camera paths through a furnished room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.items.shapes import rotation_z
from diffusion_perception_ros.world.scene import look_at
from diffusion_perception_ros.world.scenes import cameras
from diffusion_perception_ros.world.scenes.placement import FloorPlan
from diffusion_perception_ros.world.scenes.rooms import Room


SPEED = 0.35
"""Metres per second, about that of an indoor robot."""
_MAX_LENGTH = 3.0
_HEIGHT_M = (0.9, 1.5)
_CANDIDATES = 300


def drive_through(builder: SceneBuilder, room: Room, frames: int, fps: float) -> list[npt.NDArray[np.float64]]:
    """Poses (4, 4) of the optical frame along a gentle, free curve: the best of several; shorter in crowded rooms."""
    eyes, targets = _path(builder, room.plan, room.height, frames, SPEED * frames / fps)
    return [look_at(eye, target) for eye, target in zip(eyes, targets, strict=True)]


def _path(
    builder: SceneBuilder, plan: FloorPlan, ceiling: float, frames: int, length: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Eyes and targets, each (frames, 3)."""
    rng = builder.rng
    time = np.linspace(0, 1, frames)[:, None]
    ease = time * time * (3 - 2 * time)
    checked = (0, frames // 4, frames // 2, 3 * frames // 4, frames - 1)
    best, path = -np.inf, None
    for attempt in range(_CANDIDATES):
        if attempt % 10 == 0:
            eye, target = cameras.room_view(builder, plan, _HEIGHT_M, ceiling)
            target[2] = rng.uniform(0.5, 0.9)
        reach = min(length, _MAX_LENGTH) * 0.5 ** (attempt / 100)
        heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.8, 0.8)
        along = np.array([np.cos(heading), np.sin(heading), 0.0]) * reach
        across = np.array([-np.sin(heading), np.cos(heading), 0.0]) * reach * bend
        eyes = eye + along * (ease - 0.5) + across * (ease - ease**2)
        eyes[:, 2] += 0.01 * np.sin(2 * np.pi * time[:, 0] * 3)  # the floor is not quite even
        targets = target + np.array([*rng.normal(0, 0.7, 2), 0.0]) * (ease - 0.5)
        if not all(plan.is_free(x, y, 0.15, 0.15) for x, y, _ in eyes[:: max(1, frames // 20)]):
            continue
        if np.linalg.norm(targets - eyes, axis=-1).min() < 0.8:
            continue
        score = min(
            cameras.view_score(eyes[i], targets[i], plan) - _walled(eyes[i], targets[i], plan) for i in checked
        )
        if score > best:
            best, path = score, (eyes, targets)
    if path is not None:
        return path
    return np.broadcast_to(eye, (frames, 3)), target + np.array([0.6, 0.6, 0.0]) * (ease - 0.5)


def _walled(eye: npt.NDArray[np.float64], target: npt.NDArray[np.float64], plan: FloorPlan) -> float:
    """How much of the view's width something near fills: 0 to 5."""
    ahead = (target - eye) / np.hypot(*(target - eye)[:2]) * (1, 1, 0)
    rays = (rotation_z(angle) @ ahead for angle in np.radians([-30, -15, 0, 15, 30]))
    return float(sum(not cameras.is_clear(plan, eye, eye + 1.6 * ray) for ray in rays))
