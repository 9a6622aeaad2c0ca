"""Outputs of a model: one class per task says which tensor it is, and what its numbers mean."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from diffusion_perception_ros.inference.card.base import Range, StrictModel, check_range


Quantity = Literal[
    "metric_depth",
    "relative_depth",
    "relative_disparity",
    "normals",
    "semantic",
    "instances",
    "alpha",
    "flow",
    "mask",
    "keypoints",
    "albedo",
    "shading",
    "residual",
    "material",
]
Color = tuple[float, float, float]
"""RGB in [0, 1]."""
Axis = Literal["right", "left", "up", "down", "forward", "backward"]
_OPPOSITE = {
    "right": "left",
    "left": "right",
    "up": "down",
    "down": "up",
    "forward": "backward",
    "backward": "forward",
}


class Label(StrictModel):
    """One semantic class."""

    id: int = Field(ge=0, lt=65535)
    name: str = Field(min_length=1)
    color: tuple[int, int, int]
    """RGB, 0 to 255, for pictures and legends; with `encoding: colors` also what the graph draws."""
    group: str | None = None
    """Coarse class, used when a dataset's labels are coarser than the model's."""
    is_thing: bool = False
    """Countable: its pixels can belong to instances."""

    @field_validator("color")
    @classmethod
    def _byte_range(cls, color: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= channel <= 255 for channel in color):
            raise ValueError(f"colour channels are 0 to 255, got {color}")
        return color


class DepthOutput(StrictModel):
    """Depth or disparity, tensor (1, 1, h, w)."""

    task: Literal["depth"] = "depth"
    quantity: Literal["metric_depth", "relative_depth", "relative_disparity"]
    tensor: str
    range: Range
    """Smallest and largest value the tensor can take. Relative quantities become (value - low) / (high - low)."""
    unit: Literal["m"] | None = None
    """`m` for metric depth, absent for relative quantities."""
    focal_scale: float | None = Field(default=None, gt=0)
    """Metric models of canonical depth: metres = value * focal_scale * f, f the mean focal length in pixels of the
    *graph input*. Without intrinsics such a model's depth is only relative."""
    confidence_tensor: str | None = None
    """(1, 1, h, w) in [0, 1], 1 = sure."""

    @model_validator(mode="after")
    def _consistent(self) -> DepthOutput:
        check_range(self.range)
        if self.quantity == "metric_depth":
            if self.unit != "m":
                raise ValueError("metric_depth needs 'unit: m'")
            if self.range[0] < 0:
                raise ValueError("metric_depth cannot be negative")
        elif self.unit is not None or self.focal_scale is not None:
            raise ValueError(f"{self.quantity} has neither 'unit' nor 'focal_scale'")
        return self


class NormalsOutput(StrictModel):
    """Surface normals, tensor (1, 3, h, w), any length."""

    task: Literal["normals"] = "normals"
    quantity: Literal["normals"] = "normals"
    tensor: str
    axes: tuple[Axis, Axis, Axis]
    """Direction in which each channel grows, seen by the camera; ours is (right, down, forward)."""

    @field_validator("axes")
    @classmethod
    def _three_different(cls, axes: tuple[Axis, Axis, Axis]) -> tuple[Axis, Axis, Axis]:
        if len({frozenset((axis, _OPPOSITE[axis])) for axis in axes}) != 3:
            raise ValueError(f"axes must name the three directions once each, got {axes}")
        return axes


class SemanticOutput(StrictModel):
    """Classes, as scores or as a drawing."""

    task: Literal["semantic"] = "semantic"
    quantity: Literal["semantic"] = "semantic"
    tensor: str
    encoding: Literal["logits", "colors"] = "logits"
    """`logits`: (1, C, h, w), channel k belongs to the k-th label. `colors`: (1, 3, h, w) RGB in [0, 1], a pixel has
    the class whose colour is nearest."""
    labels: tuple[Label, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> SemanticOutput:
        for attribute in ("id", "name") if self.encoding == "logits" else ("id", "name", "color"):
            values = [getattr(label, attribute) for label in self.labels]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"label {attribute} used twice: {', '.join(twice)}")
        return self


class ColorClustering(StrictModel):
    """How a drawing with one colour per entity becomes instances. Colours are RGB in [0, 1].

    DICEPTION publishes the idea (its algorithm 2) without constants; these are ours.
    """

    background: Color = (0.0, 0.0, 0.0)
    """Colour of what belongs to no entity."""
    background_distance: float = Field(default=0.2, gt=0)
    """Pixels nearer to it than this are background."""
    color_distance: float = Field(default=0.12, gt=0)
    """Half the side of the colour cube that one entity's pixels fill: a decoder smears flat colours."""
    least_area: float = Field(default=0.001, gt=0, lt=1)
    """Share of the picture below which a connected piece of one colour is no entity."""
    most: int = Field(default=64, gt=0, lt=65535)
    """Colours that are looked for, the most frequent first."""


class InstancesOutput(StrictModel):
    """Instances, as a cue for every pixel or as a drawing."""

    task: Literal["instances"] = "instances"
    quantity: Literal["instances"] = "instances"
    tensor: str
    encoding: Literal["offsets", "colors"] = "offsets"
    """`offsets`: (1, 2, h, w), offset (right, down) of every pixel to the centre of its object. `colors`:
    (1, 3, h, w) RGB in [0, 1], one colour per entity."""
    offset_scale: float | None = Field(default=None, gt=0)
    """`offsets`: pixels of the graph input per unit of the tensor."""
    clustering: ColorClustering | None = None
    """`colors`: constants of the clustering, None = the defaults."""

    @model_validator(mode="after")
    def _consistent(self) -> InstancesOutput:
        if self.encoding == "offsets" and self.offset_scale is None:
            raise ValueError("encoding 'offsets' needs 'offset_scale'")
        unused = {"offsets": "clustering", "colors": "offset_scale"}[self.encoding]
        if getattr(self, unused) is not None:
            raise ValueError(f"encoding '{self.encoding}' has no use for '{unused}'")
        return self


class AlphaOutput(StrictModel):
    """Opacity of the foreground (matting, dichotomous segmentation), tensor (1, 1, h, w)."""

    task: Literal["alpha"] = "alpha"
    quantity: Literal["alpha"] = "alpha"
    tensor: str
    range: Range
    """(value - low) / (high - low) is the opacity."""

    _range = field_validator("range")(check_range)


class MaskOutput(StrictModel):
    """One object, tensor (1, 1, h, w): the one that the points mean, or the whole of a partly hidden one (amodal)."""

    task: Literal["mask"] = "mask"
    quantity: Literal["mask"] = "mask"
    tensor: str
    range: Range
    """(value - low) / (high - low) from 0.5 on is inside."""

    _range = field_validator("range")(check_range)


class FlowOutput(StrictModel):
    """Optical flow, tensor (1, 2, h, w): (right, down) from a pixel of this picture to its place in the last one."""

    task: Literal["flow"] = "flow"
    quantity: Literal["flow"] = "flow"
    tensor: str
    scale: float = Field(gt=0)
    """Pixels of the graph input per unit of the tensor."""


class Joint(StrictModel):
    """One kind of keypoint."""

    name: str = Field(min_length=1)
    color: Color
    """RGB of its spots, 0 to 1."""


class KeypointsOutput(StrictModel):
    """A drawing, (1, 3, h, w) RGB in [0, 1], in which spots are keypoints.

    Either all spots have one colour and no names, or every kind of `joints` has a colour of its own.
    """

    task: Literal["keypoints"] = "keypoints"
    quantity: Literal["keypoints"] = "keypoints"
    tensor: str
    color: Color = (1.0, 0.0, 0.0)
    """RGB of a keypoint, 0 to 1; without `joints`."""
    joints: tuple[Joint, ...] | None = Field(default=None, min_length=1)
    """The kinds of keypoints; their numbers are those of this order."""
    color_distance: float = Field(default=0.4, gt=0)
    """Pixels nearer to that colour than this belong to a keypoint. Colours of joints are twice as far apart."""
    least_area: float = Field(default=0.00002, gt=0, lt=1)
    """Share of the picture below which a spot is no keypoint."""
    most_area: float = Field(default=0.005, gt=0, le=1)
    """Share of the picture above which it is none."""

    @model_validator(mode="after")
    def _distinct(self) -> KeypointsOutput:
        if self.joints is None:
            return self
        if self.color != type(self).model_fields["color"].default:
            raise ValueError("'joints' have their own colours: leave out 'color'")
        names = [joint.name for joint in self.joints]
        if len(set(names)) != len(names):
            raise ValueError(f"a joint appears twice in {names}")
        for first, second in combinations(self.joints, 2):
            if math.dist(first.color, second.color) < 2 * self.color_distance:
                raise ValueError(
                    f"the colours of '{first.name}' and '{second.name}' are nearer to each other than twice "
                    f"color_distance {self.color_distance}"
                )
        return self


class PictureOutput(StrictModel):
    """A property of the surface or the light, tensor (1, 3, h, w)."""

    task: Literal["albedo", "shading", "residual", "material"]
    quantity: Literal["albedo", "shading", "residual", "material"]
    tensor: str
    range: Range
    """(value - low) / (high - low) is the property."""
    prediction_space: Literal["srgb", "linear", "stack"] = "srgb"
    """As diffusers says it: a picture in sRGB, linear light, or unrelated channels (material: roughness,
    metallicity, nothing)."""

    _range = field_validator("range")(check_range)

    @model_validator(mode="before")
    @classmethod
    def _quantity_is_task(cls, fields: object) -> object:
        """The quantity may be left out, as that of the other tasks."""
        if isinstance(fields, dict) and "quantity" not in fields and "task" in fields:
            return {**fields, "quantity": fields["task"]}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> PictureOutput:
        if self.quantity != self.task:
            raise ValueError(f"the task '{self.task}' gives the quantity '{self.task}', not '{self.quantity}'")
        return self


Output = Annotated[
    DepthOutput
    | NormalsOutput
    | SemanticOutput
    | InstancesOutput
    | AlphaOutput
    | MaskOutput
    | FlowOutput
    | KeypointsOutput
    | PictureOutput,
    Field(discriminator="task"),
]
