"""Cameras: lenses drawn from the configuration, and viewpoints in rooms that show something."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.scene import Camera, look_at
from diffusion_perception_ros.world.scenes.placement import FloorPlan


View = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Eye and target."""
Proposal = Callable[[], View]
"""Gives another view of a scene each time it is called."""

_CANDIDATES = 48


def sample_intrinsics(builder: SceneBuilder, width: int, height: int) -> Intrinsics:
    """A lens within the configured field of view; square pixels, the principal point near the middle."""
    rng, camera = builder.rng, builder.config.camera
    focal = width / 2 / np.tan(np.radians(rng.uniform(*camera.hfov_deg)) / 2)
    shift = rng.uniform(-camera.center_jitter, camera.center_jitter, 2) * width
    return Intrinsics(width, height, focal, focal, (width - 1) / 2 + shift[0], (height - 1) / 2 + shift[1])


def aim(builder: SceneBuilder, width: int, height: int, eye: npt.ArrayLike, target: npt.ArrayLike) -> Camera:
    """A camera with a random lens and a little roll at `eye`, looking at `target`; at times it is held askew."""
    rng, lens = builder.rng, builder.config.camera
    askew = lens.askew_share > 0 and rng.random() < lens.askew_share
    roll = np.radians(rng.uniform(*(lens.askew_roll_deg if askew else lens.roll_deg)))
    return Camera(sample_intrinsics(builder, width, height), look_at(eye, target, roll))


def first_clear(plan: FloorPlan, propose: Callable[[], View], tries: int = 16) -> View:
    """The first proposed view that no furniture blocks, else the last one."""
    for _ in range(tries):
        view = propose()
        if is_clear(plan, *view):
            break
    return view


def is_clear(plan: FloorPlan, eye: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> bool:
    """Whether the way from the eye nearly to the target keeps out of everything that stands on the floor."""
    things = plan.footprints
    points = eye + np.linspace(0, 0.85, 9)[:, None] * (target - eye)
    offset = np.abs(points[:, None, :2] - things[:, :2])
    is_inside = (offset < things[:, 2:4] + 0.05).all(axis=-1) & (points[:, 2:] < things[:, 4] + 0.05)
    return not is_inside.any()


def room_view(builder: SceneBuilder, plan: FloorPlan, height_range: tuple[float, float], ceiling: float) -> View:
    """Eye and target of the best of several free viewpoints: most things seen at a fair distance, none too near."""
    rng = builder.rng
    clearance = builder.config.camera.clearance_m
    things = plan.footprints
    best, view = -np.inf, None
    for _ in range(_CANDIDATES):
        x = rng.uniform(-0.5, 0.5) * (plan.width - 2 * clearance)
        y = rng.uniform(-0.5, 0.5) * (plan.depth - 2 * clearance)
        z = min(rng.uniform(*height_range), ceiling - 0.25)
        if not plan.is_free(x, y, clearance, clearance):
            continue
        if len(things) and rng.random() < 0.6:
            goal = things[int(rng.integers(len(things)))]
            target = np.array([goal[0], goal[1], rng.uniform(0, 1) * goal[4]])
        else:
            target = np.array(
                [rng.uniform(-0.45, 0.45) * plan.width, rng.uniform(-0.45, 0.45) * plan.depth, rng.uniform(0, 1.4)]
            )
        eye = np.array([x, y, z])
        reach = np.hypot(*(target - eye)[:2])
        if reach < 0.7:
            continue
        if z < 0.5:  # a low camera looks about level: the floor stays in view
            target[2] = z + np.clip(target[2] - z, -0.3 * reach, 0.18 * reach)
        score = view_score(eye, target, plan) + rng.random() * 2.5
        if score > best:
            best, view = score, (eye, target)
    return view or _corner_view(plan, height_range, ceiling)


def view_score(eye: npt.NDArray[np.float64], target: npt.NDArray[np.float64], plan: FloorPlan) -> float:
    """Number of things seen at a fair distance; things close before the camera count against it."""
    things = plan.footprints
    if not len(things):
        return 0.0
    offset = things[:, :2] - eye[:2]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    ahead = (target - eye)[:2] / np.hypot(*(target - eye)[:2])
    cosine = offset @ ahead / np.maximum(distance, 1e-6)
    seen = (cosine > 0.82) & (distance > 0.6) & (distance < 6)
    gap = distance - np.hypot(things[:, 2], things[:, 3])
    blocking = (cosine > 0.75) & (gap < 0.35) & (things[:, 4] > 0.6 * eye[2])
    return float(seen.sum() - 2.0 * blocking.sum())


def view_along(builder: SceneBuilder, plan: FloorPlan, height_range: tuple[float, float], ceiling: float) -> View:
    """Down the length (y) of a corridor, from anywhere in it."""
    rng = builder.rng
    x, y = rng.uniform(-0.3, 0.3) * plan.width, rng.uniform(-0.48, 0.3) * plan.depth
    eye = np.array([x, y, min(rng.uniform(*height_range), ceiling - 0.25)])
    ahead = rng.uniform(2, 8)
    return eye, eye + np.array([rng.normal(0, 0.12) * ahead, ahead, rng.normal(-0.1, 0.12) * ahead])


def handheld_view(
    builder: SceneBuilder,
    plan: FloorPlan,
    ceiling: float,
    target: npt.NDArray[np.float64],
    distances: tuple[float, float],
    heights: tuple[float, float],
    direction: float,
    room_for: float = 0.2,
) -> View:
    """From a height and a horizontal distance, in about this direction (radians) from the target; inside the room."""
    rng = builder.rng
    limit = np.array([plan.width, plan.depth]) / 2 - room_for
    near, far = distances
    for _ in range(8):
        distance = near + (far - near) * rng.random() ** 1.3
        angle = direction + rng.normal(0, 0.3)
        spot = target[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        if (np.abs(spot) <= limit).all() and plan.is_free(spot[0], spot[1], 0.05, 0.05):
            break
    eye = np.array([*np.clip(spot, -limit, limit), min(rng.uniform(*heights), ceiling - 0.15)])
    if np.hypot(*(eye - target)[:2]) < 0.2:  # pressed against a wall: step aside rather than look straight down
        eye[:2] = np.clip(eye[:2] - 0.5 * np.sign(eye[:2]), -limit, limit)
    return eye, target


def _corner_view(plan: FloorPlan, height_range: tuple[float, float], ceiling: float) -> View:
    """Above a crowded floor: from a corner, over everything that stands there."""
    z = min(max(height_range[1], 1.6), ceiling - 0.25)
    return np.array([plan.width / 2 - 0.15, plan.depth / 2 - 0.15, z]), np.array([0.0, 0.0, 0.6])
