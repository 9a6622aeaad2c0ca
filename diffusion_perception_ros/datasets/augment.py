"""Random views and camera effects that keep ground truth exact.

Geometry (crop, resize, flip) moves every map and the intrinsics together; colour changes touch the picture only.
Everything is drawn from the `numpy.random.Generator` that is handed in.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from diffusion_perception_ros.sample import JOINTS, FloatImage, Sample, UInt8Image


def _increasing(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"a range goes from low to high, got {limits}")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_increasing)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

_MAPS = ("depth", "normals", "semantic", "instances", "previous", "flow", "alpha", "amodal")
_AVERAGED = ("previous", "alpha")
"""Maps that are filtered when they are made smaller, as the picture is."""
_OTHER_SIDE = {"left": "right", "right": "left"}
_MIRROR_JOINTS = [JOINTS.index("_".join(_OTHER_SIDE.get(word, word) for word in joint.split("_"))) for joint in JOINTS]
"""Which joint shows in the mirror where a joint was."""
_SMOOTH = 0.02
"""Relative difference up to which interpolated and nearest inverse depth are taken for the same surface."""


class AugmentationConfig(BaseModel):
    """Ranges that a random view and camera are drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: Probability = 0.5
    zoom: Range = (0.6, 1.0)
    """Side of the crop as a share of the largest one that fits: smaller values are longer lenses."""
    aspect: float = Field(default=0.1, ge=0.0, le=0.5)
    """Largest relative change of the pixel aspect ratio."""
    shift: float = Field(default=0.06, ge=0.0, le=1.0)
    """Largest distance of the crop's centre from the picture's, as a share of the picture. Kept small because normals
    refer to the optical axis, which a far off-centre crop hides."""
    previous_shift: float = Field(default=0.03, ge=0.0, le=0.5)
    """Largest shift of the picture before along each axis, as a share of the width; the flow follows. Else a network
    learns by heart which motion belongs to which picture."""
    gain: Range = (0.75, 1.25)
    dark: Probability = 0.06
    dark_gain: Range = (0.25, 0.6)
    """Exposure of a picture made dark."""
    contrast: Range = (0.7, 1.3)
    gamma: Range = (0.75, 1.35)
    saturation: Range = (0.3, 1.5)
    grey: Probability = 0.05
    white_balance: float = Field(default=0.12, ge=0.0, le=0.9)
    """Largest relative change of a colour channel."""
    blur: Probability = 0.3
    blur_sigma: Range = (0.4, 1.4)
    """Pixels."""
    noise: Probability = 0.5
    noise_sigma: Range = (1.0, 10.0)
    """Grey levels of 255."""
    jpeg: Probability = 0.3
    jpeg_quality: Range = (25, 90)


def random_view(
    sample: Sample, width: int, height: int, rng: np.random.Generator, config: AugmentationConfig
) -> Sample:
    """A random crop, zoom, slight change of aspect and flip of the sample, as width x height pixels."""
    full_height, full_width = sample.rgb.shape[:2]
    aspect = width / height * float(np.exp(rng.uniform(-config.aspect, config.aspect)))
    zoom = rng.uniform(*config.zoom)
    crop_width = max(2, round(zoom * min(full_width, full_height * aspect)))
    crop_height = max(2, round(zoom * min(full_height, full_width / aspect)))
    left = _random_start(full_width, crop_width, config.shift, rng)
    top = _random_start(full_height, crop_height, config.shift, rng)
    view = resize_sample(crop_sample(sample, left, top, crop_width, crop_height), width, height)
    view = flip_sample(view) if rng.random() < config.flip else view
    if view.previous is None:
        return view
    most = round(config.previous_shift * width)
    return shift_previous(view, *(int(pixels) for pixels in rng.integers(-most, most, 2, endpoint=True)))


def shift_previous(sample: Sample, right: int, down: int) -> Sample:
    """The picture before as a camera that was turned a little further would have seen it; border pixels repeat."""
    assert sample.previous is not None
    height, width = sample.previous.shape[:2]
    motion = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
    moved = cv2.warpAffine(
        np.ascontiguousarray(sample.previous),
        motion,
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    flow = None if sample.flow is None else sample.flow + np.array((right, down), np.float32)
    return dataclasses.replace(sample, previous=moved, flow=flow)  # type: ignore[arg-type]  # stays uint8


def _random_start(full: int, window: int, shift: float, rng: np.random.Generator) -> int:
    centred = (full - window) / 2
    return int(np.clip(round(centred + rng.uniform(-shift, shift) * full), 0, full - window))


def crop_sample(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
    """The window that starts at pixel (left, top), of every map and of the camera."""
    window = (slice(top, top + height), slice(left, left + width))
    camera = sample.intrinsics
    return dataclasses.replace(
        sample,
        rgb=sample.rgb[window],
        intrinsics=None if camera is None else camera.cropped(left, top, width, height),
        keypoints=_moved_joints(sample, (1.0, 1.0), (-left, -top), width, height),
        **{name: getattr(sample, name)[window] for name in _present(sample)},
    )


def flip_sample(sample: Sample) -> Sample:
    """The mirror image: x changes sign in normals and flow, a left elbow becomes a right one."""
    maps = {name: _mirrored(getattr(sample, name)) for name in _present(sample)}
    for name in ("normals", "flow"):
        if name in maps:
            maps[name][..., 0] *= -1.0
    height, width = sample.rgb.shape[:2]
    joints = _moved_joints(sample, (-1.0, 1.0), (width - 1.0, 0.0), width, height)
    return dataclasses.replace(
        sample,
        rgb=_mirrored(sample.rgb),
        intrinsics=None if sample.intrinsics is None else sample.intrinsics.flipped(),
        keypoints=None if joints is None else joints[:, _MIRROR_JOINTS],
        **maps,
    )


def _moved_joints(
    sample: Sample, factor: tuple[float, float], offset: tuple[float, float], width: int, height: int
) -> FloatImage | None:
    """Keypoints in a picture of width x height pixels; a joint that left it is absent, and so is who has none left."""
    if sample.keypoints is None:
        return None
    joints = sample.keypoints.copy()
    joints[..., :2] = joints[..., :2] * np.array(factor, np.float32) + np.array(offset, np.float32)
    inside = ((joints[..., :2] > -0.5) & (joints[..., :2] < (width - 0.5, height - 0.5))).all(-1)
    joints[~(inside & (joints[..., 2] > 0))] = 0.0
    return joints[joints[..., 2].any(1)]


def _mirrored(array: Any) -> Any:
    return cv2.flip(np.ascontiguousarray(array), 1)


def resize_sample(sample: Sample, width: int, height: int) -> Sample:
    """Every map and the camera at another size.

    Labels and normals take the nearest pixel. Inverse depth is linear on every plane, so it is interpolated inside a
    surface (exact for planes) and taken from the nearest pixel where depth jumps (nothing is invented in between).
    """
    size = (width, height)
    if sample.rgb.shape[1::-1] == size:
        return dataclasses.replace(sample)
    sx, sy = width / sample.rgb.shape[1], height / sample.rgb.shape[0]
    maps: dict[str, Any] = {
        name: cv2.resize(
            np.ascontiguousarray(getattr(sample, name)),
            size,
            interpolation=cv2.INTER_AREA if name in _AVERAGED else cv2.INTER_NEAREST_EXACT,
        )
        for name in _present(sample)
        if name != "depth"
    }
    if "flow" in maps:
        maps["flow"] *= np.array((sx, sy), np.float32)
    if sample.depth is not None:
        maps["depth"] = _resize_depth(sample.depth, size)
    camera = sample.intrinsics
    return dataclasses.replace(
        sample,
        rgb=cv2.resize(sample.rgb, size, interpolation=cv2.INTER_AREA),  # type: ignore[arg-type]
        intrinsics=None if camera is None else camera.resized(width, height),
        keypoints=_moved_joints(sample, (sx, sy), ((sx - 1) / 2, (sy - 1) / 2), width, height),
        **maps,
    )


def _resize_depth(depth: FloatImage, size: tuple[int, int]) -> FloatImage:
    with np.errstate(divide="ignore"):
        inverse = 1.0 / depth
        nearest = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST_EXACT)
        linear = cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR)
        same_surface = np.abs(linear - nearest) <= _SMOOTH * nearest  # false for NaN: unknown pixels stay unknown
        return (1.0 / np.where(same_surface, linear, nearest)).astype(np.float32)


def _present(sample: Sample) -> list[str]:
    return [name for name in _MAPS if getattr(sample, name) is not None]


def recoloured(sample: Sample, rng: np.random.Generator, config: AugmentationConfig) -> Sample:
    """The sample with `random_colours`, alike in the picture before it: one camera took both."""
    if sample.previous is None:
        return dataclasses.replace(sample, rgb=random_colours(sample.rgb, rng, config))
    both = random_colours(np.concatenate([sample.rgb, sample.previous]), rng, config)
    return dataclasses.replace(sample, rgb=both[: len(sample.rgb)], previous=both[len(sample.rgb) :])


def random_colours(rgb: UInt8Image, rng: np.random.Generator, config: AugmentationConfig) -> UInt8Image:
    """The picture as another camera in other light would take it, in the order of a camera: lens, light, sensor, JPEG.

    Args:
        rgb: (H, W, 3) uint8.
    """
    if rng.random() < config.blur:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(*config.blur_sigma))  # type: ignore[assignment]
    rgb = _tone(_colour(rgb, rng, config), rng, config)
    if rng.random() < config.noise:
        noise = rng.standard_normal(rgb.shape, np.float32) * rng.uniform(*config.noise_sigma)
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = round(rng.uniform(*config.jpeg_quality))
        _, packed = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
        rgb = cv2.imdecode(packed, cv2.IMREAD_COLOR)  # type: ignore[assignment]  # same channel order in and out
    return rgb


def _colour(rgb: UInt8Image, rng: np.random.Generator, config: AugmentationConfig) -> UInt8Image:
    """Saturation and white balance, as one 3x3 colour matrix."""
    saturation = 0.0 if rng.random() < config.grey else rng.uniform(*config.saturation)
    matrix = np.full((3, 3), (1.0 - saturation) / 3.0) + saturation * np.eye(3)
    if saturation > 0.0:
        matrix *= 1.0 + rng.uniform(-config.white_balance, config.white_balance, (3, 1))
    return cv2.transform(rgb, matrix)  # type: ignore[return-value]


def _tone(rgb: UInt8Image, rng: np.random.Generator, config: AugmentationConfig) -> UInt8Image:
    """Exposure, contrast about mid-grey and gamma, as one look-up table."""
    levels = np.arange(256) / 255.0
    gain = rng.uniform(*(config.dark_gain if rng.random() < config.dark else config.gain))
    levels = (levels * gain - 0.5 * gain) * rng.uniform(*config.contrast) + 0.5 * gain
    levels = np.clip(levels, 0.0, 1.0) ** rng.uniform(*config.gamma)
    return cv2.LUT(rgb, np.round(levels * 255.0).astype(np.uint8))  # type: ignore[return-value]
