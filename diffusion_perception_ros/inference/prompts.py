"""What a person or a program asks a model for: points, or the visible part of an object, as graph inputs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard, PointsInput
from diffusion_perception_ros.inference.tensor import FloatTensor


@dataclass(frozen=True)
class Prompts:
    """Checked prompts for one image."""

    points: npt.NDArray[np.float64] | None = None
    """(N, 3): u and v in pixels of the image, 1 = inside the object, 0 = outside."""
    mask: npt.NDArray[np.bool_] | None = None
    """(H, W), where the object can be seen."""


def check_prompts(
    card: ModelCard, points: npt.ArrayLike | None, mask: npt.ArrayLike | None, width: int, height: int
) -> Prompts:
    """Checks prompts against the model and the image of width x height.

    Raises:
        InputError: the model takes no such prompt, too many points, outside of the image, or of another shape.
    """
    return Prompts(
        None if points is None else _check_points(card, points, width, height),
        None if mask is None else _check_mask(card, mask, width, height),
    )


def points_tensor(prompt: PointsInput, points: npt.NDArray[np.float64] | None, width: int, height: int) -> FloatTensor:
    """(1, most, 3): coordinates as shares of the image's sides, in the card's order, and labels; unused slots are 0.

    Args:
        prompt: The card's description.
        points: (N, 3) in pixels, None = no points.
        width: Of the image.
        height: Of the image.
    """
    tensor = np.zeros((1, prompt.most, 3), np.float32)
    if points is not None:
        # Pixel centres are at integer coordinates.
        across, down = (points[:, 0] + 0.5) / width, (points[:, 1] + 0.5) / height
        first, second = (across, down) if prompt.order == "xy" else (down, across)
        tensor[0, : len(points)] = np.stack([first, second, points[:, 2]], axis=1)
    return tensor


def mask_tensor(mask: npt.NDArray[np.bool_] | None, width: int, height: int) -> FloatTensor:
    """(1, 1, height, width) of a graph's image, 1 where the object can be seen; zeros without a mask."""
    if mask is None:
        return np.zeros((1, 1, height, width), np.float32)
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized[None, None].astype(np.float32)


def _check_points(card: ModelCard, points: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.float64]:
    if card.points is None:
        raise InputError(f"model '{card.name}' takes no point prompts")
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not 1 <= len(array) <= card.points.most:
        raise InputError(
            f"model '{card.name}' takes 1 to {card.points.most} points as rows of u, v, label; "
            f"got the shape {array.shape}"
        )
    inside = (array[:, :2] >= -0.5) & (array[:, :2] <= np.array([width, height]) - 0.5)
    if not inside.all():  # also where a coordinate is not a number
        u, v = array[~inside.all(axis=1)][0, :2]
        raise InputError(f"the point ({u:g}, {v:g}) lies outside of the image of {width}x{height} pixels")
    if not np.isin(array[:, 2], (0.0, 1.0)).all():
        raise InputError("the label of a point is 1 (inside the object) or 0 (outside)")
    return array


def _check_mask(card: ModelCard, mask: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.bool_]:
    if card.prompt_mask is None:
        raise InputError(f"model '{card.name}' takes no mask as a prompt")
    array = np.asarray(mask)
    if array.shape != (height, width):
        raise InputError(f"the prompt's mask has the shape {array.shape}, the image is {width}x{height}")
    return array > 0
