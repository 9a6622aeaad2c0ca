"""Predictions as images for eyes: colour maps, legends and overlays, all (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.inference.native import Allocate
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


INVALID = (128, 128, 128)
"""Colour of pixels without a value."""

_RAMP = cast(UInt8Image, cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO))[:, 0, ::-1]
"""(256, 3) RGB of the perceptually uniform 'inferno', from black over red to yellow."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def depth_limits(depth: FloatImage) -> tuple[float, float]:
    """Range worth a colour: the 2nd and 98th percentile of the finite values, (0, 1) if there are none."""
    sample = depth[::4, ::4] if depth.size > 40_000 else depth
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (2, 98)))
    return low, max(high, low + 1e-6)


def colorize_depth(
    depth: FloatImage,
    low: float | None = None,
    high: float | None = None,
    near_is_high: bool = False,
    allocate: Allocate = np.empty,
) -> UInt8Image:
    """Depth as 'inferno': near is bright and warm (yellow), far and +Inf dark, NaN grey.

    Args:
        depth: (H, W), metres or relative.
        low: Value of the near end, default `depth_limits`.
        high: Value of the far end, default `depth_limits`.
        near_is_high: For disparity, where larger is nearer; the meaning of the colours stays.
        allocate: Gives the memory of the result.
    """
    if low is None or high is None:
        limits = depth_limits(depth)
        low, high = limits[0] if low is None else low, limits[1] if high is None else high
    ramp = _RAMP if near_is_high else _RAMP[::-1]
    library = native.load()
    if library is not None and native.is_plain(depth):
        colored = cast(UInt8Image, allocate((*depth.shape, 3), np.uint8))
        library.color_depth(
            depth, low, 255.0 / max(high - low, 1e-9), np.vstack([ramp, [INVALID]]).astype(np.uint8), colored
        )
        return colored
    farness = (depth - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-9))
    index = np.nan_to_num(np.clip(farness, 0.0, 255.0)).round().astype(np.uint8)
    image = _apply(index, ramp)
    image[np.isnan(depth)] = INVALID
    return image


def colorize_unit(values: FloatImage) -> UInt8Image:
    """Confidence or probability in [0, 1] as 'inferno': 1 is yellow, 0 black, NaN grey."""
    return colorize_depth(values, 0.0, 1.0, near_is_high=True)


def colorize_normals(normals: FloatImage, allocate: Allocate = np.empty) -> UInt8Image:
    """Unit normals of the optical frame (x right, y down, z forward) as RGB = (n * 0.5 + 0.5) * 255; NaN is grey.

    Red grows to the right, green downwards, blue away from the camera: a surface that faces the camera is
    (128, 128, 0), a floor (128, 0, 128).
    """
    library = native.load()
    if library is not None and native.is_plain(normals):
        colored = cast(UInt8Image, allocate(normals.shape, np.uint8))
        library.to_bytes(normals, 127.5, 127.5, float(INVALID[0]), colored)
        return colored
    scaled = cv2.addWeighted(normals, 127.5, normals, 0.0, 127.5)
    invalid = np.isnan(normals[..., 2])
    image = np.nan_to_num(scaled, nan=128.0).round().astype(np.uint8)
    if invalid.any():
        image[invalid] = INVALID
    return image


def unit_bytes(values: FloatImage | None, allocate: Allocate = np.empty) -> UInt8Image | None:
    """[0, 1] as 0 to 255, NaN as 0; None stays None."""
    if values is None:
        return None
    library = native.load()
    if library is not None and native.is_plain(values):
        levels = cast(UInt8Image, allocate(values.shape, np.uint8))
        library.to_bytes(values, 255.0, 0.0, 0.0, levels)
        return levels
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def colorize_labels(
    ids: UInt8Image | UInt16Image, labels: Iterable[Label], allocate: Allocate = np.empty
) -> UInt8Image:
    """Class ids in the colours of their labels; ids without a label are black."""
    table = np.zeros((int(np.iinfo(ids.dtype).max) + 1, 3), np.uint8)
    for label in labels:
        table[label.id] = label.color
    library = native.load()
    if library is not None and native.is_plain(ids):
        colored = cast(UInt8Image, allocate((*ids.shape, 3), np.uint8))
        library.color_labels(ids, table, colored)
        return colored
    return _apply(ids, table)


def colorize_instances(ids: UInt16Image) -> UInt8Image:
    """Instance ids in well separated colours, the same for the same id; 0 is black."""
    count = int(ids.max(initial=0)) + 1
    numbers = np.arange(count)
    hsv = np.empty((count, 1, 3), np.uint8)
    hsv[:, 0, 0] = numbers * 0.618034 % 1.0 * 180  # golden ratio: neighbouring ids are far apart on the colour circle
    hsv[:, 0, 1] = 255 - numbers // 2 % 3 * 60
    hsv[:, 0, 2] = 255 - numbers % 2 * 70
    table = cast(UInt8Image, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))[:, 0]
    table[0] = 0
    return _apply(ids, table)


def full_color_length(flow: FloatImage) -> float:
    """Pixels of a vector that gets the full colour: the 98th percentile of the finite lengths, at least 1."""
    length = np.hypot(flow[..., 0], flow[..., 1])
    finite = length[np.isfinite(length)]
    return max(1.0, float(np.percentile(finite, 98))) if finite.size else 1.0


def colorize_flow(flow: FloatImage, longest: float | None = None) -> UInt8Image:
    """Optical flow (H, W, 2) in pixels: hue is the direction (right red, down green-yellow), none white, NaN grey.

    Args:
        flow: Right and down.
        longest: Pixels that give the full colour, default `full_color_length`.
    """
    length, angle = cv2.cartToPolar(np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1]))
    if longest is None:
        longest = full_color_length(flow)
    hsv = np.full((*length.shape, 3), 255, np.uint8)
    hsv[..., 0] = np.nan_to_num(angle * (90 / np.pi)).astype(np.uint8)
    hsv[..., 1] = np.nan_to_num(np.clip(length / longest, 0, 1) * 255).astype(np.uint8)
    image = cast(UInt8Image, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    image[~np.isfinite(length)] = INVALID
    return image


def flow_wheel(size: int) -> UInt8Image:
    """The colours of `colorize_flow` by direction and length: a square of `size` pixels, the longest at its rim."""
    steps = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    return colorize_flow(np.stack(np.meshgrid(steps, steps), axis=-1), 1.0)


def draw_keypoints(rgb: UInt8Image, keypoints: FloatImage, radius: int | None = None) -> UInt8Image:
    """The image with a dot on each keypoint (N, 3 or 4): u, v in pixels, confidence; unsure ones are darker.

    Args:
        radius: Pixels, by default what suits the whole image on a screen.
    """
    image = rgb.copy()
    if radius is None:
        radius = max(2, round(max(rgb.shape[:2]) / 160))
    for u, v, confidence in keypoints[:, :3]:
        centre, strength = (round(float(u)), round(float(v))), 0.4 + 0.6 * float(confidence)
        cv2.circle(image, centre, radius + 1, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, centre, radius, (255 * strength, 220 * strength, 0), cv2.FILLED, cv2.LINE_AA)
    return image


def grey_image(values: FloatImage) -> UInt8Image:
    """(H, W) in [0, 1] as a grey image: an alpha matte as editors show it."""
    return cast(UInt8Image, cv2.merge([np.round(values * 255).astype(np.uint8)] * 3))


def draw_mask(rgb: UInt8Image, mask: FloatImage) -> UInt8Image:
    """The image, darkened outside of the mask (H, W) in [0, 1], with a yellow outline at 0.5."""
    inside = (mask >= 0.5).astype(np.uint8)
    image = np.where(inside[..., None] > 0, rgb, rgb // 3)
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(rgb.shape[:2]) / 400))
    return cast(UInt8Image, cv2.drawContours(image, outlines, -1, (255, 220, 0), thickness))


def property_image(values: FloatImage, prediction_space: str) -> UInt8Image:
    """Albedo, shading, … (H, W, 3) in [0, 1] as an image; linear light becomes sRGB (IEC 61966-2-1)."""
    if prediction_space == "linear":
        values = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** np.float32(1 / 2.4) - 0.055)
    return np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)


def overlay(rgb: UInt8Image, color: UInt8Image, opacity: float = 0.5) -> UInt8Image:
    """`color` over the image; where `color` is black the image stays as it is."""
    blended = cv2.addWeighted(color, opacity, rgb, 1.0 - opacity, 0.0)
    untouched = cv2.inRange(color, (0, 0, 0), (0, 0, 0))
    return cast(UInt8Image, cv2.copyTo(rgb, untouched, blended))


def legend(labels: Sequence[Label], height: int, background: tuple[int, int, int] = (255, 255, 255)) -> UInt8Image:
    """A strip of `height` rows with a swatch and the name of each label, in as many columns as that takes."""
    row, swatch = 22, 14
    rows = max(1, height // row)
    columns = [labels[start : start + rows] for start in range(0, len(labels), rows)]
    strips = []
    for column in columns:
        widest = max(cv2.getTextSize(label.name, _FONT, 0.45, 1)[0][0] for label in column)
        strip = np.full((height, swatch + widest + 20, 3), background, np.uint8)
        for index, label in enumerate(column):
            top = index * row + 4
            cv2.rectangle(strip, (6, top), (6 + swatch, top + swatch), label.color, cv2.FILLED)
            cv2.rectangle(strip, (6, top), (6 + swatch, top + swatch), (90, 90, 90))
            cv2.putText(strip, label.name, (12 + swatch, top + 12), _FONT, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
        strips.append(strip)
    return np.hstack(strips) if strips else np.full((height, 0, 3), background, np.uint8)


def scale_bar(low: float, high: float, unit: str, height: int, near_is_high: bool = False) -> UInt8Image:
    """A strip of `height` rows: the colours of `colorize_depth` with their values, near at the top."""
    width = 74
    strip = np.full((height, width, 3), 255, np.uint8)
    bar = max(1, height - 24)
    strip[12 : 12 + bar, 6:22] = _RAMP[np.linspace(255, 0, bar).round().astype(np.intp)][:, None]
    values = np.linspace(high, low, 5) if near_is_high else np.linspace(low, high, 5)
    for value, y in zip(values, np.linspace(12, 11 + bar, 5), strict=True):
        text = f"{value:.2g} {unit}".strip()
        cv2.putText(strip, text, (26, int(y) + 4), _FONT, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return strip


def present_labels(ids: UInt8Image | UInt16Image, labels: Iterable[Label], least: float = 0.001) -> list[Label]:
    """Labels that cover at least the share `least` of the image, the largest first."""
    counts = np.bincount(ids.ravel(), minlength=int(np.iinfo(ids.dtype).max) + 1)
    shown = [label for label in labels if label.id < len(counts) and counts[label.id] >= least * ids.size]
    return sorted(shown, key=lambda label: -int(counts[label.id]))


def _apply(index: npt.NDArray[np.unsignedinteger], table: UInt8Image) -> UInt8Image:
    """`table[index]`; OpenCV's table look-up is faster, but takes bytes only."""
    if index.dtype == np.uint8 and len(table) == 256:
        return cast(UInt8Image, cv2.LUT(cv2.merge([index] * 3), np.ascontiguousarray(table)[None]))
    return cast(UInt8Image, table[index])
