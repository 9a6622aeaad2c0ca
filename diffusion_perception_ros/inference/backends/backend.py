"""What every backend is: its interface, its error, and the names that choose one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, get_args

from diffusion_perception_ros.inference.tensor import FloatTensor


BackendName = Literal["auto", "cpu", "cuda", "tensorrt"]
Optimization = Literal["none", "basic", "extended", "all"]
EnginePrecision = Literal["fp32", "fp16", "bf16"]

BACKENDS: tuple[str, ...] = get_args(BackendName)
"""`auto` takes CUDA where it works and the CPU elsewhere; TensorRT builds engines for minutes and so is asked for."""
OPTIMIZATIONS: tuple[str, ...] = get_args(Optimization)
ENGINE_PRECISIONS: tuple[str, ...] = get_args(EnginePrecision)
"""What a TensorRT engine of an fp32 graph computes in; other graphs are built as they are."""

Report = Callable[[float, str], None]
"""Told how much of a build is done, 0 to 1, and what is being done."""


class BackendUnavailable(Exception):
    """A backend that cannot run a graph here; the message says why, and the next one is tried."""


class Node(Protocol):
    """Input or output of a graph, as ONNX Runtime describes it."""

    @property
    def name(self) -> str:
        """Of the tensor."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Names and None stand for dimensions of any size."""

    @property
    def type(self) -> str:
        """`tensor(float)`"""


class Backend(Protocol):
    """One opened graph. Not to be shared between threads."""

    @property
    def name(self) -> str:
        """What really runs, e.g. `onnxruntime-cpu`."""

    @property
    def inputs(self) -> Sequence[Node]:
        """Inputs of the graph."""

    fallback_reason: str | None
    """Why something else than what was asked for runs; None if it was granted."""

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """Runs the graph and returns the named outputs as float32, in order; nothing else need be computed.

        Raises:
            RuntimeError: the graph failed on these inputs.
        """


Check = Callable[[Backend], str | None]
"""What is wrong with a backend's outputs, None if they are right."""
