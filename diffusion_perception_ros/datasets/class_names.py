"""Class names of published datasets → ids of the model's labels, for training on several datasets together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import UNLABELLED, UInt8Image
from diffusion_perception_ros.world.labels import CLASS_ID


NYU40: tuple[str | None, ...] = (
    None,  # 0 is unlabelled
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "shelf",  # bookshelf
    "picture",
    "table",  # counter
    "curtain",  # blinds
    "table",  # desk
    "shelf",
    "curtain",
    "cabinet",  # dresser
    "object",  # pillow
    None,  # mirror: its depth is that of the glass, its picture that of the room
    "floor",  # floor mat
    "object",  # clothes
    "ceiling",
    "object",  # books
    "appliance",  # refrigerator
    "screen",  # television
    "object",  # paper
    "object",  # towel
    "curtain",  # shower curtain
    "box",
    "picture",  # whiteboard
    "person",
    "cabinet",  # night stand
    "sanitary",  # toilet
    "sanitary",  # sink
    "lamp",
    "sanitary",  # bathtub
    "container",  # bag
    None,  # other structure
    "cabinet",  # other furniture
    "object",  # other property
)
"""NYUv2's 40 classes, index = id (Hypersim uses them), by name of our label; None where we have no word for it."""

VKITTI2: Mapping[tuple[int, int, int], str | None] = {
    (210, 0, 200): "ground",  # Terrain
    (90, 200, 255): "sky",
    (0, 199, 0): "vegetation",  # Tree
    (90, 240, 0): "vegetation",
    (140, 140, 140): "building",
    (100, 60, 100): "road",
    (250, 100, 255): "object",  # GuardRail
    (255, 255, 0): "object",  # TrafficSign
    (200, 200, 0): "object",  # TrafficLight
    (255, 130, 0): "object",  # Pole
    (80, 80, 80): "object",  # Misc
    (160, 60, 60): "truck",
    (255, 127, 80): "car",
    (0, 139, 139): "car",  # Van
    (0, 0, 0): None,  # Undefined
}
"""Virtual KITTI 2's colours (its `colors.txt`) by name of our label."""


def nyu40_semantic(ids: npt.NDArray[np.integer]) -> UInt8Image:
    """(H, W) NYU40 ids, -1 or 0 unlabelled → (H, W) ids of `world.labels`, `UNLABELLED` where there is none."""
    table = np.array([UNLABELLED if name is None else CLASS_ID[name] for name in NYU40], np.uint8)
    known = (ids >= 0) & (ids < len(table))
    return np.where(known, table[np.where(known, ids, 0)], np.uint8(UNLABELLED))


def vkitti2_semantic(colours: UInt8Image) -> UInt8Image:
    """(H, W, 3) RGB of a class picture → (H, W) ids of `world.labels`, `UNLABELLED` for colours that are no class."""
    codes = _code(colours.astype(np.int64))
    result = np.full(codes.shape, UNLABELLED, np.uint8)
    for colour, name in VKITTI2.items():
        if name is not None:
            result[codes == _code(np.array(colour))] = CLASS_ID[name]
    return result


def _code(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    code: npt.NDArray[np.int64] = (colours[..., 0] << 16) + (colours[..., 1] << 8) + colours[..., 2]
    return code
