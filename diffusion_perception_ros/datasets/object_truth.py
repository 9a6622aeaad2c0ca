"""Ground truth of optical flow, opacity, people and prompts, from the files that a folder's manifest names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.datasets.coco_people import read_people
from diffusion_perception_ros.datasets.flow_files import read_flow
from diffusion_perception_ros.datasets.label_files import read_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture, read_values
from diffusion_perception_ros.sample import FloatImage


SECOND_PICTURES = ("rgb_next", "rgb_previous")
"""Fields that name the picture where the flow leads to."""


def add_flow(sample: EvaluationSample, fields: Mapping[str, Any]) -> None:
    """Sets `flow` and `previous`, the picture that it leads to.

    Raises:
        InputError: a file cannot be used, or none or two second pictures are named.
    """
    path = Path(fields["flow"])
    named = [key for key in SECOND_PICTURES if key in fields]
    if len(named) != 1:
        raise InputError(
            f"the flow {path} leads from its picture to another one: name that one as rgb_next or rgb_previous, not "
            f"{'both' if named else 'none'}"
        )
    second = read_picture(Path(fields[named[0]]))
    _check_size(second, sample.rgb, f"the second picture {fields[named[0]]}")
    flow = read_flow(path)
    _check_size(flow, sample.rgb, str(path))
    length = np.linalg.norm(flow, axis=2)
    known = np.isfinite(length)
    if not known.any():
        raise InputError(f"{path} has no pixel with a known vector")
    if np.median(length[known]) > np.hypot(*length.shape):
        raise InputError(
            f"{path} has vectors of {np.median(length[known]):.0f} pixels (median), longer than the picture: it is in "
            "another encoding than that of its file type"
        )
    sample.flow, sample.previous = flow, second


def add_alpha(sample: EvaluationSample, fields: Mapping[str, Any]) -> None:
    """Sets `alpha`.

    Raises:
        InputError: the file cannot be used.
    """
    path = Path(fields["alpha"])
    alpha = read_alpha(path)
    _check_size(alpha, sample.rgb, str(path))
    sample.alpha = alpha


def read_alpha(path: Path) -> FloatImage:
    """(H, W) opacity in [0, 1] of a picture with 8 or 16 bits: grey, colours that are equal, or a fourth channel.

    Raises:
        InputError: missing, unreadable, coloured, or with values that do not reach from 0 to the highest.
    """
    stored = read_values(path)
    if stored.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} is not an opacity: 8 or 16 bits per pixel are needed, it has {stored.dtype}")
    if stored.ndim == 3 and stored.shape[2] == 4:
        stored = stored[..., 3]
    elif stored.ndim == 3:
        if (stored != stored[..., :1]).any():
            raise InputError(f"{path} is not an opacity: it has colours, one grey channel is needed")
        stored = stored[..., 0]
    if stored.max(initial=0) == 1:
        raise InputError(
            f"{path} has the values 0 and 1 only: opacity goes up to {np.iinfo(stored.dtype).max}, multiply them"
        )
    return (stored / np.float32(np.iinfo(stored.dtype).max)).astype(np.float32)


def add_prompts(sample: EvaluationSample, fields: Mapping[str, Any]) -> None:
    """Sets `prompt_answer`, and `prompt_points` and `prompt_mask` where they are given.

    Raises:
        InputError: a file or a point cannot be used.
    """
    sample.prompt_answer = _read_object(fields["prompt_answer"], sample)
    if "prompt_mask" in fields:
        sample.prompt_mask = _read_object(fields["prompt_mask"], sample)
        if not (sample.prompt_mask & sample.prompt_answer).any():
            raise InputError(
                f"{fields['prompt_mask']} and {fields['prompt_answer']} have no pixel in common: the first is the "
                "seen part of the object, the second the whole of it"
            )
    try:
        points = [(float(u), float(v), int(label)) for u, v, label in fields.get("prompt_points", ())]
    except (TypeError, ValueError) as error:
        raise InputError(f"the prompt_points of {sample.name} are not rows of u, v, label: {error}") from error
    sample.prompt_points = tuple(points)


def _read_object(path: Path, sample: EvaluationSample) -> npt.NDArray[np.bool_]:
    mask = read_mask(path, sample.rgb.shape) > 0
    if not mask.any():
        raise InputError(f"{path} is empty: the object's pixels are those that are not 0")
    return mask


def add_keypoints(sample: EvaluationSample, fields: Mapping[str, Any]) -> None:
    """Sets `keypoints` to the people of the picture, which is found by its file name or by `image_id`.

    Raises:
        InputError: the file cannot be used, or the picture is not in it, or with another size.
    """
    path = Path(fields["keypoints"])
    people, (width, height) = read_people(path, Path(fields["rgb"]).name, fields.get("image_id"))
    if (height, width) != sample.rgb.shape[:2]:
        size = f"{sample.rgb.shape[1]}x{sample.rgb.shape[0]}"
        raise InputError(f"{path} says that {fields['rgb']} is {width}x{height}, but it is {size}")
    sample.keypoints = people


def _check_size(values: npt.NDArray[Any], rgb: npt.NDArray[Any], name: str) -> None:
    if values.shape[:2] != rgb.shape[:2]:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (values, rgb)]
        raise InputError(f"{name} is {sizes[0]} but its picture is {sizes[1]}")


TRUTH_READERS: dict[str, Callable[[EvaluationSample, Mapping[str, Any]], None]] = {
    "flow": add_flow,
    "alpha": add_alpha,
    "keypoints": add_keypoints,
    "prompt_answer": add_prompts,
}
"""Field of an item → what reads it."""
TRUTH_FILES = (*TRUTH_READERS, *SECOND_PICTURES, "prompt_mask")
"""Fields of an item that are paths."""
