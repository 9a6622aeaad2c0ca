"""Where things can stand: a room's floor plan, and surfaces that carry small things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, SceneBuilder
from diffusion_perception_ros.world.items.shapes import rotation_x, rotation_z


@dataclass
class FloorPlan:
    """A rectangular floor around the origin and the axis-aligned footprints on it."""

    width: float
    depth: float
    _taken: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def is_free(self, x: float, y: float, half_x: float, half_y: float, margin: float = 0.0) -> bool:
        """Whether a footprint is inside the floor and touches no other."""
        if abs(x) + half_x > self.width / 2 + 1e-6 or abs(y) + half_y > self.depth / 2 + 1e-6:
            return False
        return all(
            abs(x - cx) >= half_x + hx + margin or abs(y - cy) >= half_y + hy + margin
            for cx, cy, hx, hy, _ in self._taken
        )

    def take(self, x: float, y: float, half_x: float, half_y: float, height: float = 1.0) -> None:
        """Mark a footprint as used by something of this height."""
        self._taken.append((x, y, half_x, half_y, height))

    @property
    def footprints(self) -> npt.NDArray[np.float64]:
        """(n, 5): center x, y, half extents x, y and height."""
        return np.array(self._taken, dtype=float).reshape(-1, 5)


def half_extents(item: Item, yaw: float) -> tuple[float, float]:
    """Half of the axis-aligned footprint of an item turned by `yaw`."""
    c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
    width, depth = item.size[:2]
    return (width * c + depth * s) / 2, (width * s + depth * c) / 2


def place_freely(
    builder: SceneBuilder, plan: FloorPlan, item: Item, margin: float = 0.03, tries: int = 6
) -> tuple[float, float, float] | None:
    """Stand an item somewhere on the floor; its (x, y, yaw), or None where there was no room."""
    rng = builder.rng
    for _ in range(tries):
        yaw = rng.uniform(0, 2 * np.pi) if rng.random() < 0.6 else rng.integers(4) * np.pi / 2
        half_x, half_y = half_extents(item, yaw)
        if 2 * half_x > plan.width or 2 * half_y > plan.depth:
            return None
        x = rng.uniform(half_x - plan.width / 2, plan.width / 2 - half_x)
        y = rng.uniform(half_y - plan.depth / 2, plan.depth / 2 - half_y)
        if plan.is_free(x, y, half_x, half_y, margin):
            plan.take(x, y, half_x, half_y, item.size[2])
            builder.place(item, (x, y, 0), yaw)
            return x, y, yaw
    return None


@dataclass(frozen=True)
class Top:
    """A horizontal surface that carries things: center, yaw and half extents."""

    center: tuple[float, float, float]
    yaw: float
    half_width: float
    half_depth: float


def top_of(item: Item, position: npt.ArrayLike, yaw: float) -> Top | None:
    """The surface on top of a placed item, if it is one."""
    if not 0.25 < item.top_height < 1.4:
        return None
    x, y, z = np.asarray(position, float)
    return Top((x, y, z + item.top_height), yaw, item.size[0] * 0.46, item.size[1] * 0.45)


def scatter_on(
    builder: SceneBuilder,
    top: Top,
    count: int,
    make: Callable[[SceneBuilder], Item],
    stacking: float = 0.0,
    lying: float = 0.15,
) -> int:
    """Stand up to `count` things on a surface without overlap; returns how many found a place.

    With probability `stacking` one more thing goes on top of a flat one, with `lying` a tall one lies on its side.
    """
    rng = builder.rng
    taken: list[tuple[float, float, float]] = []
    rotation = rotation_z(top.yaw)
    placed = 0
    for _ in range(count):
        item = make(builder)
        yaw = rng.uniform(0, 2 * np.pi)
        lies = rng.random() < lying and item.size[2] > 1.4 * item.size[1]
        radius = 0.45 * (np.hypot(item.size[0], item.size[2]) if lies else np.hypot(*item.size[:2]))
        reach = np.array([top.half_width, top.half_depth]) - 0.8 * radius
        if reach.min() < 0 or radius > 0.8:
            continue
        for _ in range(4):
            x, y = rng.uniform(-reach, reach)
            if all(np.hypot(x - cx, y - cy) > radius + r for cx, cy, r in taken):
                break
        else:
            continue
        taken.append((x, y, radius))
        position = rotation @ np.array([x, y, 0]) + top.center
        tilt = rotation_x(np.pi / 2) if lies else None
        if lies:  # its front or back becomes the base, the length lies along y
            position = position + rotation_z(yaw) @ np.array([0, item.size[2] / 2, item.size[1] / 2])
        builder.place(item, position, yaw, tilt=tilt)
        placed += 1
        if item.top_height > 0 and not lies and rng.random() < stacking:
            upper = make(builder)
            if max(upper.size[:2]) < 1.3 * max(item.size[:2]):
                builder.place(upper, position + np.array([0, 0, item.top_height]), yaw + rng.uniform(-0.4, 0.4))
                placed += 1
    return placed
