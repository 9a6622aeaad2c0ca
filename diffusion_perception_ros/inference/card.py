"""The model card: everything the numbers of a model folder need to mean something.

A model folder holds `model.yaml` (this card), the ONNX graph and a README. Nothing about a model is known to the code
but what its card says; unknown, missing and contradictory fields are errors that name the field and the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from diffusion_perception_ros.errors import InputError


CARD_NAME = "model.yaml"
SCHEMA_VERSION = 1

Quantity = Literal[
    "metric_depth",
    "relative_depth",
    "relative_disparity",
    "normals",
    "semantic",
    "instances",
]
Axis = Literal["right", "left", "up", "down", "forward", "backward"]
_OPPOSITE = {
    "right": "left",
    "left": "right",
    "up": "down",
    "down": "up",
    "forward": "backward",
    "backward": "forward",
}


class CardError(InputError):
    """A model folder that cannot be used; the message names the file, the field and the remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Strict):
    """One semantic class."""

    id: int = Field(ge=0, lt=65535)
    name: str = Field(min_length=1)
    color: tuple[int, int, int]
    """RGB, 0 to 255, for pictures and legends."""
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


class InputSize(_Strict):
    """How a picture of any size becomes the graph's input."""

    rule: Literal["fixed", "longest_side", "area"]
    """`fixed`: stretch to width x height. `longest_side`: keep the aspect, longest side = `longest_side`.
    `area`: keep the aspect, about `area` pixels. The last two round both sides to `multiple_of`."""
    width: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    longest_side: int | None = Field(default=None, gt=0)
    area: int | None = Field(default=None, gt=0)
    multiple_of: int = Field(default=1, gt=0)
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
        """Graph input (width, height) for a picture of width x height pixels."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        if self.longest_side is not None:
            scale = self.longest_side / max(width, height)
        else:
            assert self.area is not None
            scale = (self.area / (width * height)) ** 0.5
        multiple = self.multiple_of
        return (
            max(multiple, round(width * scale / multiple) * multiple),
            max(multiple, round(height * scale / multiple) * multiple),
        )


class ImageInput(_Strict):
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


class NoiseInput(_Strict):
    """A second graph input for stochastic models: standard normal noise of a fixed seed (steady video)."""

    tensor: str
    channels: int = Field(gt=0)
    downscale: int = Field(gt=0)
    """The noise has the picture input's size divided by this."""
    seed: int = 0


class DepthOutput(_Strict):
    """Depth or disparity, tensor (1, 1, h, w)."""

    task: Literal["depth"] = "depth"
    quantity: Literal["metric_depth", "relative_depth", "relative_disparity"]
    tensor: str
    range: tuple[float, float]
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
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range {self.range} is empty")
        if self.quantity == "metric_depth":
            if self.unit != "m":
                raise ValueError("metric_depth needs 'unit: m'")
            if self.range[0] < 0:
                raise ValueError("metric_depth cannot be negative")
        elif self.unit is not None or self.focal_scale is not None:
            raise ValueError(f"{self.quantity} has neither 'unit' nor 'focal_scale'")
        return self


class NormalsOutput(_Strict):
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


class SemanticOutput(_Strict):
    """Class scores, tensor (1, C, h, w); channel k belongs to the k-th label."""

    task: Literal["semantic"] = "semantic"
    quantity: Literal["semantic"] = "semantic"
    tensor: str
    labels: tuple[Label, ...] = Field(min_length=1)

    @field_validator("labels")
    @classmethod
    def _unique(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        for attribute in ("id", "name"):
            values = [getattr(label, attribute) for label in labels]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"label {attribute} used twice: {', '.join(twice)}")
        return labels


class InstancesOutput(_Strict):
    """Instance cue, tensor (1, 2, h, w): offset (right, down) of every pixel to the centre of its object."""

    task: Literal["instances"] = "instances"
    quantity: Literal["instances"] = "instances"
    tensor: str
    offset_scale: float = Field(gt=0)
    """Pixels of the graph input per unit of the tensor."""


Output = Annotated[DepthOutput | NormalsOutput | SemanticOutput | InstancesOutput, Field(discriminator="task")]


class Source(_Strict):
    """Where the weights come from."""

    checkpoint: str
    training_data: str
    command: str | None = None


class ModelCard(_Strict):
    """`model.yaml`. Paths are relative to the model folder."""

    schema_version: int
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    family: str
    description: str
    licence: str
    """SPDX identifier, or a sentence when there is none."""
    source: Source
    graph: str
    """The fused one-step ONNX graph."""
    opset: int = Field(ge=11)
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    input: ImageInput
    noise: NoiseInput | None = None
    outputs: tuple[Output, ...] = Field(min_length=1)
    parity: dict[str, float] = Field(default_factory=dict)
    """Largest differences measured between this graph and the PyTorch model when it was exported."""
    files: dict[str, str]
    """sha256 of every file of the folder that inference reads, the graph and its external data."""

    @model_validator(mode="before")
    @classmethod
    def _known_schema(cls, fields: object) -> object:
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ValueError(
                f"schema_version {version} is newer than this package understands ({SCHEMA_VERSION}): "
                "upgrade the package"
            )
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        tasks = [output.task for output in self.outputs]
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"every task appears once in 'outputs', got {tasks}")
        if "instances" in tasks and "semantic" not in tasks:
            raise ValueError("'instances' needs 'semantic', which says what pixels are things")
        for file in self.files:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"'files' must stay inside the model folder, got '{file}'")
        if self.graph not in self.files:
            raise ValueError(f"'files' lacks the sha256 of the graph '{self.graph}'")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the outputs."""
        return tuple(output.task for output in self.outputs)

    def output(self, task: str) -> DepthOutput | NormalsOutput | SemanticOutput | InstancesOutput | None:
        """The output of a task, None if the model lacks it."""
        return next((output for output in self.outputs if output.task == task), None)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The semantic classes, empty if the model has none."""
        output = self.output("semantic")
        return output.labels if isinstance(output, SemanticOutput) else ()


def read_card(folder: Path, verify_files: bool = True) -> ModelCard:
    """Reads and checks `folder/model.yaml`, and the hash of every file that it names.

    Raises:
        CardError: no such folder or card, not YAML, a wrong field, a missing or altered file.
    """
    path = folder / CARD_NAME
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardError(f"{folder} is not a model folder: it has no {CARD_NAME}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CardError(f"{path} cannot be read: {error}") from error
    try:
        card = ModelCard.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'card'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CardError(f"{path} is not a valid model card: {problems}") from error
    if verify_files:
        _verify_files(folder, card)
    return card


def write_card(card: ModelCard, folder: Path) -> None:
    """Writes `folder/model.yaml` atomically."""
    path = folder / CARD_NAME
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(
        yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, width=119), encoding="utf-8"
    )
    os.replace(temporary, path)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _verify_files(folder: Path, card: ModelCard) -> None:
    for name, expected in card.files.items():
        path = folder / name
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise CardError(f"{path} is named by {folder / CARD_NAME} but cannot be read: {error.strerror}") from error
        if actual != expected:
            raise CardError(
                f"{path} does not match its card: sha256 is {actual[:12]}…, the card says {expected[:12]}…; "
                "fetch or export the model again"
            )
