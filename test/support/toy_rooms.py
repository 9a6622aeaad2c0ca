"""Rooms with boxes, ray cast in numpy: a world small enough that training on it shows within a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_perception_ros.datasets.shards import ShardWriter
from diffusion_perception_ros.sample import Intrinsics, Sample
from diffusion_perception_ros.world.labels import CLASS_ID


SIDES = ("wall", "wall", "ceiling", "floor", "wall", "wall")


def toy_room(seed: int, width: int = 64, height: int = 64) -> Sample:
    """A camera inside a room of random size and colours that holds two boxes; exact depth, normals, classes, ids."""
    rng = np.random.default_rng(seed)
    focal = rng.uniform(0.8, 1.3) * width
    camera = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, float)], -1)
    floor = rng.uniform(0.6, 1.6)
    room = np.array(
        [[-rng.uniform(1, 3), -rng.uniform(0.8, 1.6), -1.0], [rng.uniform(1, 3), floor, rng.uniform(2, 6)]]
    )
    depth, side = _room_hit(rays, room)
    classes = np.array([CLASS_ID[name] for name in SIDES])[side]
    instances = np.zeros(depth.shape, np.uint16)
    for number in (1, 2):
        size = rng.uniform(0.2, 0.7, 3)
        centre = np.array([rng.uniform(-1, 1), floor - size[1] / 2, rng.uniform(1.2, 0.8 * room[1, 2])])
        hit, hit_side = _box_hit(rays, np.stack([centre - size / 2, centre + size / 2]))
        nearer = hit < depth
        depth = np.where(nearer, hit, depth)
        side = np.where(nearer, hit_side + 6 * number, side)
        classes = np.where(nearer, CLASS_ID["box"], classes)
        instances[nearer] = number
    axis, negative = side % 6 // 2, side % 2 == 0
    # A room is seen from inside: its low side faces up the axis; a box is seen from outside.
    sign = np.where(negative == (side < 6), 1.0, -1.0)
    normals = np.eye(3)[axis] * sign[..., None]
    light = rng.normal(size=3)
    shade = 0.6 + 0.4 * (normals @ (light / np.linalg.norm(light)))
    rgb = rng.uniform(60, 250, (18, 3))[side] * (shade / (1 + 0.05 * depth))[..., None]
    rgb += rng.normal(0, 4, rgb.shape)
    return Sample(
        rgb=np.clip(rgb, 0, 255).astype(np.uint8),
        depth=depth.astype(np.float32),
        normals=normals.astype(np.float32),
        semantic=classes.astype(np.uint8),
        instances=instances,
        intrinsics=camera,
        name=f"toy {seed}",
    )


def toy_pair(seed: int, side: int = 64) -> Sample:
    """A toy room that was seen before by a camera a little to the side, with one box cut out and one half hidden."""
    sample = toy_room(seed, side, side)
    rng = np.random.default_rng(seed)
    shift = int(rng.choice((-8, 8)))
    sample.previous = np.roll(sample.rgb, shift, axis=1)
    sample.flow = np.broadcast_to(np.float32((shift, 0)), (side, side, 2)).copy()
    boxes = [number for number in (1, 2) if (sample.instances == number).sum() > 20]
    chosen = boxes[0] if boxes else 0
    sample.alpha = (sample.instances > 0).astype(np.float32)
    sample.amodal = np.where(sample.instances == chosen, chosen, 0).astype(np.uint16)
    people = np.zeros((len(boxes), 17, 3), np.float32)
    for row, number in zip(people, boxes, strict=True):  # "people": boxes with a nose
        v, u = np.nonzero(sample.instances == number)
        row[0] = u.mean(), v.mean(), 2
    sample.keypoints = people
    return sample


def write_toy_shard(folder: Path, seeds: range, width: int = 64, height: int = 64) -> Path:
    """A finished shard of toy rooms below `folder`; returns `folder`."""
    writer = ShardWriter(folder / f"{seeds.start:05d}", len(seeds), height, width)
    for seed in seeds:
        writer.append(toy_room(seed, width, height), seed)
    writer.finish()
    return folder


def _slabs(rays: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Depth at which each ray meets the two planes of each axis: (2, H, W, 3)."""
    with np.errstate(divide="ignore"):
        return box[:, None, None, :] / rays[None]


def _room_hit(rays: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    planes = _slabs(rays, room)
    planes = np.where(planes > 0, planes, np.inf).transpose(1, 2, 3, 0).reshape(*rays.shape[:2], 6)
    return planes.min(-1), planes.argmin(-1)


def _box_hit(rays: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    planes = _slabs(rays, box)
    enter, leave = planes.min(0), planes.max(0)
    axis = enter.argmax(-1)
    near = enter.max(-1)
    hit = (near < leave.min(-1)) & (near > 0)
    side = 2 * axis + np.take_along_axis(planes.argmin(0), axis[..., None], -1)[..., 0]
    return np.where(hit, near, np.inf), side
