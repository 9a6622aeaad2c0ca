"""Which backend runs a graph: the one asked for where it works and computes the right thing, else the next best."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends.backend import (
    BACKENDS,
    ENGINE_PRECISIONS,
    OPTIMIZATIONS,
    Backend,
    BackendUnavailable,
    Check,
    Report,
)
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache
from diffusion_perception_ros.inference.backends.graph_check import check_graph
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import CPU, CUDA, TENSORRT, OnnxRuntimeBackend
from diffusion_perception_ros.inference.backends.provider_options import cuda_options, tensorrt_options
from diffusion_perception_ros.inference.card import CardError, GraphRole, ModelCard
from diffusion_perception_ros.inference.parity import compare_outputs
from diffusion_perception_ros.inference.tensor import FloatTensor


Candidate = Callable[[], Backend]
"""Opens a backend and checks it; raises BackendUnavailable if it cannot be used."""

_log = logging.getLogger(__name__)


def open_backend(
    folder: Path,
    card: ModelCard,
    backend: str = "auto",
    threads: int = 0,
    optimization: str = "all",
    role: GraphRole = "fused",
    precision: str = "fp16",
    report: Report | None = None,
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
        report: Told how far the build of an engine is, None = the log.

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
    return _first_that_works(ModelGraph(folder, card, role), backend, threads, optimization, precision, report)


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
    if precision not in ENGINE_PRECISIONS:
        raise InputError(f"unknown engine precision '{precision}': choose one of {', '.join(ENGINE_PRECISIONS)}")
    try:
        return [_build_engine(ModelGraph(folder, card, role), precision, report) for role in card.graph_files]
    except BackendUnavailable as error:
        raise InputError(f"no TensorRT engine of '{card.name}': {error}") from error


def _first_that_works(
    graph: ModelGraph, backend: str, threads: int, optimization: str, precision: str, report: Report | None
) -> Backend:
    """See `open_backend`, which checks the arguments."""

    def on_cpu() -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(graph.path, CPU, threads, optimization)

    if backend == "cpu" or (backend == "auto" and CUDA not in onnxruntime.get_available_providers()):
        opened = on_cpu()
        check_graph(graph.path, graph.card, opened.inputs, opened.outputs, graph.role)
        return opened
    check_graph(graph.path, graph.card, *graph.nodes, graph.role)
    cache = EngineCache.beside(graph.folder)
    check = CpuComparison(graph, cache, on_cpu).problem

    def on_gpu(provider: str, options: dict[str, str]) -> Backend:
        opened = OnnxRuntimeBackend(graph.path, provider, threads, optimization, options)
        problem = check(opened)
        if problem is not None:
            raise BackendUnavailable(problem)
        return opened

    candidates: list[Candidate] = [lambda: on_gpu(CUDA, cuda_options())]
    if backend == "tensorrt":
        # Imported here and below: it needs `onnx`, which takes a second to load that a robot's CPU can do without.
        from diffusion_perception_ros.inference.backends.tensorrt_backend import open_tensorrt

        candidates = [
            lambda: open_tensorrt(graph, cache, precision, _engine_check(graph, cache), report)[1],
            lambda: on_gpu(TENSORRT, tensorrt_options(graph, precision)),
            *candidates,
        ]
    return first_usable(candidates, on_cpu)


def _build_engine(graph: ModelGraph, precision: str, report: Report | None) -> Path:
    """See `build_engines`.

    Raises:
        BackendUnavailable: no engine can be had that computes the right thing.
    """
    from diffusion_perception_ros.inference.backends.tensorrt_backend import open_tensorrt

    check_graph(graph.path, graph.card, *graph.nodes, graph.role)
    cache = EngineCache.beside(graph.folder)
    path, _ = open_tensorrt(graph, cache, precision, _engine_check(graph, cache), report)
    return path


def first_usable(candidates: Sequence[Candidate], last: Candidate) -> Backend:
    """The first candidate that can be used; `last` is not tried but taken. Its `fallback_reason` says why."""
    reasons: list[str] = []
    for candidate in candidates:
        try:
            backend = candidate()
        except (BackendUnavailable, RuntimeError) as error:
            reasons.append(str(error))
            continue
        except Exception as error:  # the GPU's libraries raise what they like, and the CPU still runs
            _log.exception("a backend failed unexpectedly")
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        return _with_reason(backend, reasons)
    return _with_reason(last(), reasons)


class CpuComparison:
    """Compares a backend with ONNX Runtime on the CPU, which runs for it once and is then remembered on disk."""

    def __init__(
        self, graph: ModelGraph, cache: EngineCache, on_cpu: Callable[[], OnnxRuntimeBackend], kind: str = "as it is"
    ) -> None:
        """
        Args:
            graph: The graph.
            cache: Keeps what the CPU computes.
            on_cpu: Opens it on the CPU.
            kind: Distinguishes ways to open it.
        """
        self._kind = kind
        self._graph = graph
        self._cache = cache
        self._on_cpu = on_cpu

    def problem(self, backend: Backend) -> str | None:
        """What is wrong with a backend's outputs for the stored image, None if they are right.

        Raises:
            RuntimeError: the backend failed.
        """
        inputs = self._graph.example_inputs()
        reference = self._reference(inputs)
        if reference is None:
            return None
        actual = backend.run(inputs, list(reference))
        wrong = [found for found in compare_outputs(actual, reference) if not found.is_acceptable]
        return f"{backend.name} computes something else than the CPU: {wrong[0]}" if wrong else None

    def _reference(self, inputs: dict[str, FloatTensor]) -> dict[str, FloatTensor] | None:
        shapes = sorted((name, tensor.shape) for name, tensor in inputs.items())
        name = hashlib.sha256(
            f"{self._graph.digest} {self._kind} {shapes} {onnxruntime.__version__}".encode()
        ).hexdigest()[:16]
        reference = self._cache.load_reference(name)
        if reference is not None:
            return reference
        try:
            cpu = self._on_cpu()
        except CardError:
            if self._graph.card.precision != "bf16":
                raise
            _log.warning("%s cannot be checked: ONNX Runtime has no bf16 on the CPU", self._graph.path.name)
            return None
        names = [node.name for node in cpu.outputs]
        reference = dict(zip(names, cpu.run(inputs, names), strict=True))
        try:
            self._cache.store_reference(name, reference)
        except OSError as error:
            _log.warning("what the CPU computes cannot be kept in %s: %s", self._cache.folder, error)
        return reference


def _engine_check(graph: ModelGraph, cache: EngineCache) -> Check:
    """Engines of a graph that TensorRT gets without its quantisation are compared with just that."""
    from diffusion_perception_ros.inference.backends.dequantization import is_unsigned
    from diffusion_perception_ros.inference.backends.tensorrt_backend import strongly_typed

    if not is_unsigned(graph.path):
        return CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path)).problem

    def on_cpu() -> OnnxRuntimeBackend:
        with tempfile.TemporaryDirectory(prefix="reference-") as folder:
            return OnnxRuntimeBackend(strongly_typed(graph, "fp32", Path(folder)))

    return CpuComparison(graph, cache, on_cpu, "without quantisation").problem


def _with_reason(backend: Backend, reasons: Sequence[str]) -> Backend:
    if reasons:
        backend.fallback_reason = f"{'; '.join(reasons)}; {backend.name} runs instead"
    return backend
