"""What arms see: bare table tops, and things on a table from the wrist, past the gripper."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.builder import Item, Material, SceneBuilder
from diffusion_perception_ros.world.items.finishes import metal, plastic
from diffusion_perception_ros.world.items.objects import small_thing
from diffusion_perception_ros.world.items.shapes import box, sphere, tube
from diffusion_perception_ros.world.scene import look_at
from diffusion_perception_ros.world.scenes.cameras import Proposal, View
from diffusion_perception_ros.world.scenes.nearfield import add_plain_table, add_table, look_down
from diffusion_perception_ros.world.scenes.placement import Top, half_extents, scatter_on
from diffusion_perception_ros.world.scenes.rooms import Room


def build_bare_top(builder: SceneBuilder, room: Room) -> Proposal:
    """A large table, mostly white, pale or of light wood, with nothing or next to nothing on it."""
    rng = builder.rng
    width, depth, height = rng.uniform(0.9, 3.0), rng.uniform(0.6, 1.5), rng.uniform(0.45, 1.0)
    yaw = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.15)
    half_x, half_y = half_extents(Item("table", (width, depth, height)), yaw)
    slack = np.maximum(np.array([room.plan.width / 2 - half_x, room.plan.depth / 2 - half_y]), 0)
    x, y = (float(value) for value in rng.uniform(-slack, slack))
    room.plan.take(x, y, half_x, half_y, height)
    color = builder.color((0.75, 1), (0, 0.12)) if rng.random() < 0.75 else builder.color((0.1, 0.8), (0, 0.6))
    finish = builder.texture("plaster", "plaster", "plaster", "wood", "speckle", "fabric", "metal")
    surface = Material(color, finish, rng.choice([0, rng.uniform(0, 0.6)]))
    add_plain_table(builder, (x, y, height), width, depth, yaw, surface)
    top = Top((x, y, height), yaw, width * 0.48, depth * 0.47)
    scatter_on(builder, top, int(rng.choice([0, 0, 1, 2, 4])), lambda b: small_thing(b, 0.3), lying=0.3)
    return lambda: look_down(builder, room, top, (0.35, 1.6), (12.0, 75.0))


def build_arm(builder: SceneBuilder, room: Room) -> Proposal:
    """Things on a table and a gripper over them; the first view and half of the others are from its wrist."""
    rng = builder.rng
    top = add_table(builder, room, (0.6, 2.0), (0.5, 1.1), (0.4, 1.0))
    scatter_on(builder, top, int(rng.integers(1, 16)), lambda b: small_thing(b, 0.35), stacking=0.3, lying=0.3)
    eye, target = look_down(builder, room, top, (0.15, 0.6), (25.0, 85.0))
    _add_arm(builder, room, look_at(eye, target))
    is_first = iter([True])

    def propose() -> View:
        if next(is_first, False):
            return eye, target
        if rng.random() < 0.5:
            return eye + rng.normal(0, 0.015, 3), target + rng.normal(0, 0.03, 3)
        return look_down(builder, room, top, (0.4, 1.4), (15.0, 70.0))

    return propose


def _add_arm(builder: SceneBuilder, room: Room, wrist: npt.NDArray[np.float64]) -> None:
    """A two-finger gripper before and below the pose (4, 4) of a camera, and the links that carry it, behind it."""
    rng = builder.rng
    tag = builder.tag("object")
    housing = metal(builder) if rng.random() < 0.4 else plastic(builder)
    pads = plastic(builder) if rng.random() < 0.5 else Material((0.02, 0.02, 0.02))
    right, down, ahead = wrist[:3, 0], wrist[:3, 1], wrist[:3, 2]
    below, gap, reach = rng.uniform(0.1, 0.15), rng.uniform(0.03, 0.11), rng.uniform(0.08, 0.2)
    palm = wrist[:3, 3] + below * down + rng.uniform(0.03, 0.1) * ahead

    def put(size: tuple[float, float, float], at: npt.NDArray[np.float64], material: Material) -> None:
        builder.add(box(size).moved(at, rotation=wrist[:3, :3]), tag, material)

    put((gap + 0.05, rng.uniform(0.03, 0.07), 0.05), palm, housing)
    thick = rng.uniform(0.008, 0.022)
    for side in (-1, 1):
        finger = palm + side * (gap + thick) / 2 * right
        put((thick, rng.uniform(0.015, 0.03), reach), finger + (reach / 2 + 0.02) * ahead, housing)
        put((thick, rng.uniform(0.015, 0.03), 0.03), finger + (reach + 0.02) * ahead - side * 0.003 * right, pads)
    aside = float(rng.choice([-1, 1])) * rng.uniform(0.2, 0.4)  # the links pass the camera at one side
    elbow = palm + aside * right - rng.uniform(0.1, 0.3) * ahead + np.array([0.0, 0.0, rng.uniform(0.05, 0.25)])
    elbow[2] = min(elbow[2], room.height - 0.1)
    foot = elbow + np.array([*rng.normal(0, 0.4, 2), 0.0])
    foot[2] = 0.0
    radius = rng.uniform(0.025, 0.04)
    for start, end in ((palm - 0.03 * ahead, elbow), (elbow, foot)):
        builder.add(tube(start, end, radius, segments=14), tag, housing)
        builder.add(sphere(radius * 1.25, end, 12), tag, pads)
