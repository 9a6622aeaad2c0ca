"""Inputs of a model's graphs: the camera picture, noise, the picture before, and point prompts."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from diffusion_perception_ros.inference.card.base import StrictModel


LARGEST_SIDE = 16384
"""Pixels of a graph's input; a card that asks for more is damaged."""
LARGEST_AREA = 1 << 25
_MOST_EXCESS = 1.5
"""Times the `area` that a graph's input may have by rounding its sides."""


_LEAST_SIDE = 72
"""Pixels: where sides are rounded down, an image of an extreme aspect is stretched to this. The levels of a published
U-Net need it."""


class Placement(NamedTuple):
    """Where an image lies in the graph's input: in its upper left corner."""

    graph: tuple[int, int]
    """Width and height of the graph's input."""
    image: tuple[int, int]
    """Of the resized image. What is larger than the graph's input is cut off; where it is smaller its border is
    repeated."""


class InputSize(StrictModel):
    """How an image of any size becomes the graph's input, and how the graph's maps get the image's size back."""

    rule: Literal["fixed", "longest_side", "area"]
    """`fixed`: width x height. `longest_side`: keep the aspect, longest side = `longest_side`. `area`: keep the
    aspect, about `area` pixels. The last two round both sides to `multiple_of`; of an extreme aspect, where the short
    side would be less than that, the long side is cut down to what the rule allows."""
    width: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    height: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    longest_side: int | None = Field(default=None, gt=0, le=LARGEST_SIDE)
    area: int | None = Field(default=None, gt=0, le=LARGEST_AREA)
    multiple_of: int = Field(default=1, gt=0, le=1024)
    fit: Literal["stretch", "pad"] = "stretch"
    """Of `fixed`: an image of another aspect is stretched, or keeps its aspect and its border is repeated."""
    rounding: Literal["nearest", "down"] = "nearest"
    """Of `longest_side`. `down`: the image gets whole pixels, rounded down, as the publishers' code does; what is more
    than a multiple of `multiple_of` is cut off below and on the right."""
    interpolation: Literal["linear", "area", "cubic", "lanczos", "bilinear_antialias", "nearest_exact"] = "area"
    """The first four are OpenCV's; a side that grows with `area` is bilinear. The others are those of torchvision and
    Pillow (`inference/resampling.py`), which published models were trained with."""
    round_pixels: bool = True
    """The resized image has whole grey levels. Others than `resampling`'s filters always give those."""
    restore: Literal["linear", "bilinear_antialias", "nearest_exact"] = "linear"
    """How the graph's maps are brought back to the image's size."""

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
        if self.fit == "pad" and self.rule != "fixed":
            raise ValueError(f"size rule '{self.rule}' keeps the aspect, it has no use for 'fit: pad'")
        if self.rounding == "down" and self.rule != "longest_side":
            raise ValueError(f"size rule '{self.rule}' has no use for 'rounding: down'")
        return self

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Graph input (width, height) for an image of width x height pixels, bounded by the rule for every aspect."""
        return self.placement(width, height).graph

    def placement(self, width: int, height: int) -> Placement:
        """Size of the graph's input for an image of width x height pixels, and of the image in it."""
        if self.width is not None and self.height is not None:
            graph = self.width, self.height
            if self.fit == "stretch":
                return Placement(graph, graph)
            scale = min(self.width / width, self.height / height)
            image = min(self.width, round(width * scale)), min(self.height, round(height * scale))
            return Placement(graph, (max(1, image[0]), max(1, image[1])))
        if self.longest_side is not None and self.rounding == "down":
            return self._rounded_down(width, height, self.longest_side)
        rounded = self._rounded(width, height)
        return Placement(rounded, rounded)

    def _rounded_down(self, width: int, height: int, longest: int) -> Placement:
        scale = min(longest / width, longest / height)  # the publishers' arithmetic, whose rounding errors count
        image = [max(int(side * scale), min(_LEAST_SIDE, longest)) for side in (width, height)]
        columns, rows = (max(side // self.multiple_of, 1) * self.multiple_of for side in image)
        return Placement((columns, rows), (image[0], image[1]))

    def _rounded(self, width: int, height: int) -> tuple[int, int]:
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
