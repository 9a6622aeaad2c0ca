"""RGB image of any size → the graph's input tensor, as the model card says."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ImageInput, InputSize, ModelCard
from diffusion_perception_ros.inference.image_encodings import MAX_PIXELS
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.resampling import resample
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, UInt8Image


_INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}

LARGEST_INPUT_AREA = 1 << 22
"""Pixels of a graph's input that a caller may ask for."""


def check_image(rgb: UInt8Image) -> None:
    """Checks that `rgb` is an image that can be predicted on: uint8, (H, W, 3), not empty, at most `MAX_PIXELS`.

    Raises:
        InputError: it is not.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8:
        kind = rgb.dtype if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise InputError(f"an image must be a uint8 array, got {kind}")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f"an image must have the shape (height, width, 3), got {rgb.shape}")
    height, width = rgb.shape[:2]
    if height == 0 or width == 0:
        raise InputError(f"the image is empty: {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        raise InputError(
            f"the image has {width}x{height} pixels; predictions are limited to {MAX_PIXELS} pixels: shrink it first"
        )


def input_size_of(card: ModelCard, area: int | None) -> InputSize:
    """How images become the graph's input, with another `area` than the card's if that is given.

    Raises:
        InputError: the model's input does not go by its area, or this area is none.
    """
    rule = card.input.size
    if area is None:
        return rule
    if rule.rule != "area":
        raise InputError(f"the input of model '{card.name}' has the rule '{rule.rule}': it has no input_area")
    least = rule.multiple_of**2
    if not least <= area <= LARGEST_INPUT_AREA:
        raise InputError(f"input_area must be {least} to {LARGEST_INPUT_AREA} pixels, got {area}")
    return rule.model_copy(update={"area": area})


class Preprocessor:
    """Resizes and normalises images into one reused buffer: a result is valid until the next call."""

    def __init__(self, image: ImageInput, native: Native | None = None) -> None:
        """
        Args:
            image: What the card says about the input.
            native: Does the work where it can; None = OpenCV and NumPy do all of it.
        """
        self._native = native
        self._size = image.size
        mean, std = np.array(image.mean), np.array(image.std)
        self._scale = (1.0 / (255.0 * std)).astype(np.float32)
        self._shift = (-mean / std).astype(np.float32)
        self._tensor: FloatTensor = np.empty((1, 3, 0, 0), np.float32)

    def __call__(self, rgb: UInt8Image, rule: InputSize | None = None) -> FloatTensor:
        """(H, W, 3) uint8 → (1, 3, h, w) float32, (pixel / 255 - mean) / std; `rule` in place of the card's."""
        rule = rule or self._size
        (out_width, out_height), size = rule.placement(rgb.shape[1], rgb.shape[0])
        if self._tensor.shape[2:] != (out_height, out_width):
            self._tensor = np.empty((1, 3, out_height, out_width), np.float32)
        is_whole = size == (out_width, out_height) and rule.interpolation == "area"
        if self._native is not None and is_whole and _is_native(rgb, out_width, out_height):
            self._native.shrink_image(rgb, self._scale, self._shift, self._tensor[0])
            return self._tensor
        image = _resized(rgb, size, rule)[:out_height, :out_width]
        rows, columns = image.shape[:2]
        for channel, plane in enumerate(cv2.split(image)):
            target = self._tensor[0, channel, :rows, :columns]
            np.multiply(plane, self._scale[channel], out=target)
            np.add(target, self._shift[channel], out=target)
        if columns < out_width:
            self._tensor[..., :rows, columns:] = self._tensor[..., :rows, columns - 1 : columns]
        if rows < out_height:
            self._tensor[..., rows:, :] = self._tensor[..., rows - 1 : rows, :]
        return self._tensor


def _is_native(rgb: UInt8Image, out_width: int, out_height: int) -> bool:
    """Whether `Native.shrink_image` gives what OpenCV gives, which sums whole numbers where both factors are whole."""
    height, width = rgb.shape[:2]
    is_whole = width % out_width == 0 and height % out_height == 0
    return rgb.strides[1:] == (3, 1) and not is_whole and out_width < width and out_height < height


def _resized(rgb: UInt8Image, size: tuple[int, int], rule: InputSize) -> UInt8Image | FloatImage:
    """The image with `size` (width, height): bytes, or floats of 0 to 255 where they are not to be rounded."""
    height, width = rgb.shape[:2]
    if size == (width, height):
        return rgb
    if rule.interpolation == "bilinear_antialias" or rule.interpolation == "nearest_exact":
        resized = resample(rgb, *size, rule.interpolation)
        return np.rint(resized, out=resized) if rule.round_pixels else resized
    interpolation = _INTERPOLATION[rule.interpolation]
    if interpolation == cv2.INTER_AREA and (size[0] > width or size[1] > height):
        # OpenCV's area is not one where a side grows: first shrink the other side, then enlarge this one.
        smaller = min(size[0], width), min(size[1], height)
        rgb = cast(UInt8Image, cv2.resize(rgb, smaller, interpolation=cv2.INTER_AREA))
        interpolation = cv2.INTER_LINEAR
    return cast(UInt8Image, cv2.resize(rgb, size, interpolation=interpolation))
