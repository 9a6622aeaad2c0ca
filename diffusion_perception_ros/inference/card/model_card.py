"""`model.yaml` as a whole."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from diffusion_perception_ros.inference.card.base import StrictModel
from diffusion_perception_ros.inference.card.inputs import (
    ImageInput,
    NoiseInput,
    PointsInput,
    PromptMaskInput,
    SecondImageInput,
)
from diffusion_perception_ros.inference.card.outputs import Label, Output, SemanticOutput
from diffusion_perception_ros.inference.card.sampler import GraphRole, Graphs, Sampler


SCHEMA_VERSION = 2
NOISY_LATENT = "noisy_latent"
"""The denoising graph's input that starts as noise."""

_NEW_FIELDS = ("graphs", "sampler", "second_image", "points", "prompt_mask", "licence_terms")
"""Fields that schema 1 lacks."""
_FIRST_TASKS = ("depth", "normals", "semantic", "instances")
"""Tasks of schema 1; none of them as a drawing."""


class Source(StrictModel):
    """Where the weights come from."""

    checkpoint: str
    training_data: str
    command: str | None = None


class LicenceTerms(StrictModel):
    """What the licence of the weights means for a robot."""

    spdx: str
    """SPDX identifier, or a short sentence where there is none."""
    non_commercial: bool = False
    """The weights may not be used commercially; the node says so when it starts."""
    gated: bool = False
    """The hub gives the weights only to those who have accepted the terms."""
    url: str | None = None
    """Where the terms are written."""


class ModelCard(StrictModel):
    """`model.yaml`. Paths are relative to the model folder."""

    schema_version: int = Field(ge=1)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    family: str
    description: str
    licence: str
    """SPDX identifier, or a sentence when there is none."""
    licence_terms: LicenceTerms | None = None
    source: Source
    graph: str | None = None
    """The fused one-step ONNX graph; or else `graphs` and `sampler`."""
    graphs: Graphs | None = None
    sampler: Sampler | None = None
    opset: int = Field(ge=11)
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    input: ImageInput
    noise: NoiseInput | None = None
    """With `graphs` only its `seed` and `mode` add something: the rest must say what `sampler` says."""
    second_image: SecondImageInput | None = None
    points: PointsInput | None = None
    prompt_mask: PromptMaskInput | None = None
    outputs: tuple[Output, ...] = Field(min_length=1)
    parity: dict[str, float] = Field(default_factory=dict)
    """Largest and mean differences measured between this graph and the PyTorch model when it was exported."""
    files: dict[str, str]
    """sha256 of every file of the folder that inference reads, the graphs and their external data."""

    @model_validator(mode="before")
    @classmethod
    def _known_schema(cls, fields: object) -> object:
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ValueError(
                f"schema_version {version} is newer than this package understands ({SCHEMA_VERSION}): "
                "upgrade the package"
            )
        if isinstance(fields, dict) and version == 1:
            new = [name for name in _NEW_FIELDS if fields.get(name) is not None]
            if new:
                raise ValueError(f"'{new[0]}' needs schema_version 2, the card says 1")
        return fields

    @model_validator(mode="after")
    def _graphs_and_files(self) -> ModelCard:
        if (self.graph is None) == (self.graphs is None):
            raise ValueError("give either 'graph' (one step) or 'graphs' and 'sampler' (several steps)")
        if (self.graphs is None) != (self.sampler is None):
            given, missing = ("graphs", "sampler") if self.graphs else ("sampler", "graphs")
            raise ValueError(f"'{given}' needs '{missing}'")
        for file in self.files:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"'files' must stay inside the model folder, got '{file}'")
            if str(path) != file or "\0" in file:
                raise ValueError(f"'files' has '{file}', which is not how a file inside the model folder is written")
        for graph in self.graph_files.values():
            if not graph.endswith(".onnx"):
                raise ValueError(f"a graph is an ONNX file whose name ends in '.onnx', got '{graph}'")
            if graph not in self.files:
                raise ValueError(f"'files' lacks the sha256 of the graph '{graph}'")
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> ModelCard:
        if self.noise is None:
            return self
        if self.sampler is not None:
            said = (self.noise.tensor, self.noise.channels, self.noise.downscale)
            implied = (NOISY_LATENT, self.sampler.latent_channels, self.sampler.latent_downscale)
            if said != implied:
                raise ValueError(f"'noise' says tensor, channels, downscale = {said}, the 'sampler' implies {implied}")
            if self.noise.latent_tensor is not None:
                raise ValueError("'noise.latent_tensor' is for a fused graph; the sampler knows the clean latent")
            if self.sampler.start == "zeros":
                raise ValueError("'noise' has no use where the sampler has 'start: zeros'")
        elif self.noise.mode == "carry" and self.noise.latent_tensor is None:
            raise ValueError("'noise.mode: carry' needs 'noise.latent_tensor', the graph's output of the clean latent")
        return self

    @model_validator(mode="after")
    def _tasks_fit(self) -> ModelCard:
        tasks = self.tasks
        if self.schema_version == 1:
            for output in self.outputs:
                if output.task not in _FIRST_TASKS or getattr(output, "encoding", None) == "colors":
                    raise ValueError(f"this output of the task '{output.task}' needs schema_version 2, not 1")
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"every task appears once in 'outputs', got {list(tasks)}")
        instances = next((output for output in self.outputs if output.task == "instances"), None)
        if instances and instances.encoding == "offsets":
            semantic = next((output for output in self.outputs if output.task == "semantic"), None)
            if semantic is None:
                raise ValueError("'instances' needs 'semantic', which says what pixels are things")
            if semantic.encoding != "logits":
                raise ValueError("'instances' with 'encoding: offsets' needs 'semantic' with 'encoding: logits'")
        if "flow" in tasks and self.second_image is None:
            raise ValueError("'flow' needs 'second_image', the picture to compare with")
        for prompt in ("points", "prompt_mask"):
            if getattr(self, prompt) is not None and "mask" not in tasks:
                raise ValueError(f"'{prompt}' needs the task 'mask', which it asks for")
        return self

    @property
    def graph_files(self) -> dict[GraphRole, str]:
        """File of every graph by what it does, in the order in which they run."""
        if self.graphs is None:
            assert self.graph is not None
            return {"fused": self.graph}
        return {"encode": self.graphs.encode, "denoise": self.graphs.denoise, "decode": self.graphs.decode}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the outputs."""
        return tuple(output.task for output in self.outputs)

    def output(self, task: str) -> Output | None:
        """The output of a task, None if the model lacks it."""
        return next((output for output in self.outputs if output.task == task), None)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The semantic classes, empty if the model has none."""
        output = self.output("semantic")
        return output.labels if isinstance(output, SemanticOutput) else ()
