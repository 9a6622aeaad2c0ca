"""Inputs of a model's graphs: the camera picture, noise, the picture before, and point prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from diffusion_perception_ros.inference.card.base import StrictModel


LARGEST_SIDE = 16384
"""Pixels of a graph's input; a card that asks for more is damaged."""
LARGEST_AREA = 1 << 25
_MOST_EXCESS = 1.5
"""Times the `area` that a graph's input may have by rounding its sides."""


class InputSize(StrictModel):
    """How a picture of any size becomes the graph's input."""

    rule: Literal["fixed", "longest_side", "area"]
    """`fixed`: stretch to width x height. `longest_side`: keep the aspect, longest side = `longest_side`.
    `area`: keep the aspect, about `area` pixels. The last two round both sides to `multiple_of`; of an extreme aspect,
    where the short side would be less than that, the long side is cut down to what the rule allows."""
    width: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    height: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    longest_side: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    area: int | None = Field(default=None, gt=0, le=LARGEST_AREA)
    multiple_of: int = Field(default=1, gt=0, le=1024)
    interpolation: Literal["linear", "area", "cubic", "lanczos"] = "area"
    """Used for shrinking; enlarging with `area` is bilinear."""

    @model_validator(mode="after")
    def _fields_match_rule(self) -> InputSize:
        needed = {"fixed": {"width", "height"}, "longest_side": {"longest_side"}, "area": {"area"}}[self.rule]
        for name in ("width", "height", "longest_side", "area"):
            given = getattr(self, name) is not None
            if given != (name in needed):
                raise ValueError(f"size rule '{self.rule}' {'needs' if name in needed else 'has no use for'} '{name}'")
        for name in ("width", "height"):
            side = getattr(self, name)
            if side is not None and side % self.multiple_of:
                raise ValueError(f"{name} {side} is not a multiple of {self.multiple_of}")
        return self

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Graph input (width, height) for an image of width x height pixels, bounded by the rule for every aspect."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        if self.longest_side is not None:
            scale = self.longest_side / max(width, height)
        else:
            assert self.area is not None
            scale = (self.area / (width * height)) ** 0.5
        multiple = self.multiple_of
        columns = max(multiple, round(width * scale / multiple) * multiple)
        rows = max(multiple, round(height * scale / multiple) * multiple)
        if self.area is not None and columns * rows > _MOST_EXCESS * self.area:
            # A strip: its short side was rounded up by much, so that the long one is cut, whatever the aspect.
            longest = max(multiple, self.area // min(columns, rows) // multiple * multiple)
            columns, rows = min(columns, longest), min(rows, longest)
        return columns, rows


class ImageInput(StrictModel):
    """The graph's picture input: float32 NCHW RGB, (pixel / 255 - mean) / std."""

    tensor: str
    size: InputSize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @field_validator("std")
    @classmethod
    def _non_zero(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError(f"std must be positive, got {std}")
        return std


class NoiseInput(StrictModel):
    """Standard normal noise, an input of stochastic models: float32 (1 or ensemble size, channels, h, w)."""

    tensor: str
    """With `graphs` it is `noisy_latent`."""
    channels: int = Field(gt=0, le=4096)
    downscale: int = Field(gt=0, le=1024)
    """The noise has the picture input's size divided by this."""
    seed: int = Field(default=0, ge=0)
    mode: Literal["fixed", "carry", "random"] = "fixed"
    """From picture to picture: `fixed` is the noise of `seed` every time (steady video). `carry` mixes a tenth of the
    last picture's clean latent into it (0.9 noise + 0.1 latent; Lotus, video path of `app.py`). `random` is new every
    time."""
    latent_tensor: str | None = None
    """Output of a fused graph that holds the clean latent, for `carry`. With `graphs` the sampler knows it."""


class SecondImageInput(StrictModel):
    """The camera picture before this one, prepared in the same way, for optical flow."""

    tensor: str


class PointsInput(StrictModel):
    """Point prompts, float32 (1, most, 3): two coordinates in [0, 1] of the picture, then 1 = inside, 0 = outside.

    Slots without a point are zeros.
    """

    tensor: str
    most: int = Field(gt=0, le=4096)
    order: Literal["xy", "yx"]
    """Which coordinate comes first, x = column."""


class PromptMaskInput(StrictModel):
    """Where the object can be seen, float32 (1, 1, H, W) in the picture input's size: 1 there, 0 elsewhere.

    For amodal segmentation.
    """

    tensor: str
