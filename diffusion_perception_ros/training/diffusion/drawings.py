"""Entities and people as drawings, and back: one colour per entity, one colour per joint."""

from __future__ import annotations

import itertools
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion_perception_ros.inference import color_coding
from diffusion_perception_ros.inference.card import ColorClustering, Joint, KeypointsOutput
from diffusion_perception_ros.sample import JOINTS, FloatImage, UInt16Image


Colouring = Literal["random", "position"]
"""`random`: DICEPTION; for networks that draw samples. `position`: after the place of an entity's centre, as Painter
does (arXiv:2212.02499, Sec. 3.2); for networks that answer with a mean, which of random colours is grey."""

DARKEST = 0.35
"""Least brightest channel of an entity's colour, the background being black."""
_LEVELS = (0.0, 0.5, 1.0)
JOINT_COLOURS = tuple(
    (red, green, blue)
    for red, green, blue in itertools.product(_LEVELS, repeat=3)
    if max(red, green, blue) == 1.0 and min(red, green, blue) < 1.0
)[: len(JOINTS)]
"""RGB in [0, 1] of the joints in the order of `JOINTS`, at least 0.5 apart. DICEPTION draws all joints red:
its keypoints have no names, ours have."""
LIMBS = tuple(
    (JOINTS.index(first), JOINTS.index(second))
    for first, second in (
        *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
            ("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"),
            ("eye", "ear"),
        )),
        ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
        ("nose", "left_eye"), ("nose", "right_eye"),
    )
)  # fmt: skip
LIMB_COLOUR = (0.25, 0.25, 0.25)
JOINT_RADIUS = 0.015
"""Of a joint's disc, as a share of the picture's longer side; at least 1.5 pixels."""
JOINT_DISTANCE = 0.24
"""Pixels nearer to a joint's colour than this belong to it: less than half of what colours are apart."""
POSE = KeypointsOutput(
    tensor="pose",
    joints=tuple(Joint(name=name, color=colour) for name, colour in zip(JOINTS, JOINT_COLOURS, strict=True)),
    color_distance=JOINT_DISTANCE,
)
"""How a robot reads the drawing."""


def entity_colours(instances: Tensor, colouring: Colouring, generator: torch.Generator) -> Tensor:
    """(N, 3, H, W) RGB in [0, 1] of ids (N, H, W); black where there is no entity."""
    drawings = []
    for ids in instances.cpu().long():
        present, places = torch.unique(ids, return_inverse=True)
        if colouring == "random":
            colours = torch.rand(len(present), 3, generator=generator)
            colours[:, 0] = torch.where(colours.amax(1) < DARKEST, 1.0 - colours[:, 0], colours[:, 0])
        else:
            colours = _colours_of_places(places, len(present))
        colours[present == 0] = 0.0
        drawings.append(colours[places].permute(2, 0, 1))
    return torch.stack(drawings).to(instances.device)


def _colours_of_places(places: Tensor, count: int) -> Tensor:
    """Red grows with the centre's place to the right, green downwards, blue with the root of the area."""
    height, width = places.shape
    flat = places.reshape(-1)
    area = torch.bincount(flat, minlength=count).clamp(min=1)
    right = torch.arange(width, dtype=torch.float32).expand(height, width).reshape(-1)
    down = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width).reshape(-1)
    u = torch.bincount(flat, right, count) / area / width
    v = torch.bincount(flat, down, count) / area / height
    size = (area / flat.numel()).sqrt()
    return DARKEST + (1.0 - DARKEST) * torch.stack([u, v, size], 1).float()


def entities_of(drawing: FloatImage) -> UInt16Image:
    """(H, W) ids from a drawing (3, H, W) RGB in [0, 1], as a robot finds them (`ColorClustering`)."""
    return color_coding.entities(drawing, ColorClustering(), (drawing.shape[2], drawing.shape[1]))


def draw_people(people: npt.NDArray[np.float32], height: int, width: int) -> FloatImage:
    """(3, H, W) RGB in [0, 1]: limbs grey on black, each joint a disc of its own colour; hidden joints, too.

    Args:
        people: (P, 17, 3), see `Sample.keypoints`.
    """
    drawing = np.zeros((height, width, 3), np.float32)
    radius = max(1.5, JOINT_RADIUS * max(height, width))
    for joints in people:
        for first, second in LIMBS:
            if joints[first, 2] > 0 and joints[second, 2] > 0:
                start, end = (np.rint(joints[number, :2]).astype(int).tolist() for number in (first, second))
                cv2.line(drawing, start, end, LIMB_COLOUR, max(1, round(radius)))
    v, u = np.mgrid[:height, :width]
    for joints in people:
        for (x, y, visibility), colour in zip(joints, JOINT_COLOURS, strict=True):
            if visibility > 0:
                drawing[np.hypot(u - x, v - y) <= radius] = colour
    return np.ascontiguousarray(drawing.transpose(2, 0, 1))


def joints_of(drawing: FloatImage) -> npt.NDArray[np.float32]:
    """(K, 4): u, v, confidence in [0, 1], number of the joint in `JOINTS`; from a drawing (3, H, W) in [0, 1]."""
    return color_coding.keypoints(drawing, POSE, (drawing.shape[2], drawing.shape[1]))
