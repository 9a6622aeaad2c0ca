"""What runs a model's graph. A backend is chosen by name; one that cannot run here falls back, and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard


FloatTensor = npt.NDArray[np.float32]
BackendName = Literal["auto", "cpu", "cuda", "tensorrt"]
Optimization = Literal["none", "basic", "extended", "all"]

BACKENDS: tuple[str, ...] = get_args(BackendName)
"""`auto` takes CUDA where it works and the CPU elsewhere; TensorRT builds engines for minutes and so is asked for."""
OPTIMIZATIONS: tuple[str, ...] = get_args(Optimization)


class Backend(Protocol):
    """One opened graph. Not to be shared between threads."""

    @property
    def name(self) -> str:
        """What really runs, e.g. `onnxruntime-cpu`."""

    @property
    def fallback_reason(self) -> str | None:
        """Why something else than what was asked for runs; None if it was granted."""

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """Runs the graph and returns the named outputs as float32, in order; nothing else need be computed.

        Raises:
            RuntimeError: the graph failed on these inputs.
        """


def open_backend(
    folder: Path, card: ModelCard, backend: str = "auto", threads: int = 0, optimization: str = "all"
) -> Backend:
    """Opens the graph of a model folder.

    Args:
        folder: The model folder.
        card: Its card; the graph's inputs and outputs must be what it says.
        backend: One of `BACKENDS`.
        threads: CPU threads of one run, 0 = all cores.
        optimization: One of `OPTIMIZATIONS`: how far the graph may be rewritten when it is loaded.

    Raises:
        InputError: an unknown backend or optimisation, a negative thread count.
        CardError: the graph cannot be loaded, or it and the card contradict each other.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend '{backend}': choose one of {', '.join(BACKENDS)}")
    if optimization not in OPTIMIZATIONS:
        raise InputError(f"unknown graph optimization '{optimization}': choose one of {', '.join(OPTIMIZATIONS)}")
    if threads < 0:
        raise InputError(f"threads must be 0 (all cores) or more, got {threads}")
    from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(folder, card, backend, threads, optimization)
