"""What runs a model's graph. A backend is chosen by name; one that cannot run here falls back, and says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import GraphRole, ModelCard


FloatTensor = npt.NDArray[np.float32]
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


class Backend(Protocol):
    """One opened graph. Not to be shared between threads."""

    @property
    def name(self) -> str:
        """What really runs, e.g. `onnxruntime-cpu`."""

    fallback_reason: str | None
    """Why something else than what was asked for runs; None if it was granted."""

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """Runs the graph and returns the named outputs as float32, in order; nothing else need be computed.

        Raises:
            RuntimeError: the graph failed on these inputs.
        """


def open_backend(
    folder: Path,
    card: ModelCard,
    backend: str = "auto",
    threads: int = 0,
    optimization: str = "all",
    role: GraphRole = "fused",
    precision: str = "fp16",
) -> Backend:
    """Opens one graph of a model folder.

    On a GPU its outputs are compared with the CPU's before it is used; what differs too much is not used.

    Args:
        folder: The model folder.
        card: Its card; the graph's inputs and outputs must be what it says.
        backend: One of `BACKENDS`.
        threads: CPU threads of one run, 0 = all cores.
        optimization: One of `OPTIMIZATIONS`: how far the graph may be rewritten when it is loaded.
        role: Which of the card's graphs.
        precision: One of `ENGINE_PRECISIONS`, for TensorRT engines.

    Raises:
        InputError: an unknown backend, optimisation or precision, a negative thread count.
        CardError: the graph cannot be loaded, or it and the card contradict each other.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend '{backend}': choose one of {', '.join(BACKENDS)}")
    if optimization not in OPTIMIZATIONS:
        raise InputError(f"unknown graph optimization '{optimization}': choose one of {', '.join(OPTIMIZATIONS)}")
    if precision not in ENGINE_PRECISIONS:
        raise InputError(f"unknown engine precision '{precision}': choose one of {', '.join(ENGINE_PRECISIONS)}")
    if threads < 0:
        raise InputError(f"threads must be 0 (all cores) or more, got {threads}")
    from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
    from diffusion_perception_ros.inference.backends.selection import select_backend

    return select_backend(ModelGraph(folder, card, role), backend, threads, optimization, precision)


def build_engines(folder: Path, card: ModelCard, precision: str = "fp16", report: Report | None = None) -> list[Path]:
    """Builds the TensorRT engines of a model, so that a robot need not when it starts. What is there is only checked.

    Args:
        folder: The model folder.
        card: Its card.
        precision: One of `ENGINE_PRECISIONS`, for fp32 graphs.
        report: Told how far each build is, None = the log.

    Returns:
        The engines, one for each of the card's graphs.

    Raises:
        InputError: an engine cannot be built here, or computes something else than the CPU; the message says why.
        CardError: a graph and the card contradict each other.
    """
    from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
    from diffusion_perception_ros.inference.backends.selection import build_engine_of

    if precision not in ENGINE_PRECISIONS:
        raise InputError(f"unknown engine precision '{precision}': choose one of {', '.join(ENGINE_PRECISIONS)}")
    try:
        return [build_engine_of(ModelGraph(folder, card, role), precision, report) for role in card.graph_files]
    except BackendUnavailable as error:
        raise InputError(f"no TensorRT engine of '{card.name}': {error}") from error
