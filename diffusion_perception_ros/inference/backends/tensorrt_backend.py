"""A graph in a TensorRT engine: what is built in which order, and where it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from diffusion_perception_ros.inference.backends.backend import Backend, BackendUnavailable, Check, Node, Report
from diffusion_perception_ros.inference.backends.build_progress import BuildProgress, log_report
from diffusion_perception_ros.inference.backends.cuda import CudaError, Gpu, find_gpu
from diffusion_perception_ros.inference.backends.dequantization import is_unsigned, remove_quantization
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache, EngineKey
from diffusion_perception_ros.inference.backends.engine_candidates import EngineCandidate, first_working_engine
from diffusion_perception_ros.inference.backends.input_shapes import ShapeRange
from diffusion_perception_ros.inference.backends.mixed_precision import (
    convert_precision,
    overflowing_nodes,
    raise_precision,
    sensitive_nodes,
)
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.tensorrt_engine import Engine, build_engine, import_tensorrt
from diffusion_perception_ros.inference.tensor import FloatTensor


class TensorRtBackend:
    """An engine as a `Backend`."""

    name = "tensorrt"
    fallback_reason: str | None = None

    def __init__(self, engine: bytes, ranges: Mapping[str, ShapeRange], inputs: Sequence[Node]) -> None:
        """
        Raises:
            BackendUnavailable: TensorRT does not take the engine.
        """
        self.inputs = inputs
        try:
            self._engine = Engine(engine, ranges)
        except CudaError as error:
            raise BackendUnavailable(str(error)) from error

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """See `Backend.run`."""
        try:
            return self._engine.run(inputs, outputs)
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(f"{self.name} failed: {error}") from error


def open_tensorrt(
    graph: ModelGraph, cache: EngineCache, precision: str, check: Check, report: Report | None = None
) -> tuple[Path, Backend]:
    """The engine of a graph, its file and itself loaded, from the cache or built now.

    Args:
        graph: What to run.
        cache: Where engines are kept.
        precision: What an engine of an fp32 graph computes in.
        check: Compares an engine with the CPU.
        report: Told how far a build is, None = the log.

    Raises:
        BackendUnavailable: no GPU, no TensorRT, or no engine that computes the right thing.
    """
    trt = import_tensorrt()
    try:
        gpu = find_gpu()
    except CudaError as error:
        raise BackendUnavailable(f"TensorRT {trt.__version__} is here, but {error}") from error
    ranges = graph.shape_ranges()
    progress = BuildProgress(report or log_report())
    candidates = [
        EngineCandidate(
            key=engine_key(graph, gpu, trt.__version__, candidate, ranges),
            build=_builder(graph, candidate, ranges, progress),
            load=lambda engine: TensorRtBackend(engine, ranges, graph.nodes[0]),
        )
        for candidate in engine_precisions(graph, precision)
    ]
    return first_working_engine(candidates, cache, graph.path.stem, check)


def engine_precisions(graph: ModelGraph, wanted: str) -> list[str]:
    """Precisions to build engines in, the fastest first; fp32 takes over where half precision computes wrong values.

    Args:
        graph: fp16, bf16 and signed int8 graphs stay what they are: they were made so on purpose.
        wanted: One of `ENGINE_PRECISIONS`.
    """
    stored = graph.card.precision
    if stored == "int8" and not is_unsigned(graph.path):
        return [stored]
    first = stored if stored in ("fp16", "bf16") else wanted
    return [first] if first == "fp32" else [first, "fp32"]


def engine_key(
    graph: ModelGraph, gpu: Gpu, tensorrt: str, precision: str, ranges: Mapping[str, ShapeRange]
) -> EngineKey:
    """Everything that an engine of this graph depends on."""
    return EngineKey(
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        tensorrt=tensorrt,
        graph=graph.digest,
        precision=precision,
        shapes={name: asdict(shapes) for name, shapes in ranges.items()},
    )


def strongly_typed(graph: ModelGraph, precision: str, folder: Path) -> Path:
    """The graph in the precision that an engine is to have; a new one in `folder` if it is not in it yet.

    Graphs of half precision go through fp32 as well: so that what half precision would ruin is computed in fp32, and
    because those in bf16 only store their weights so.
    """
    source, stored = graph.path, graph.card.precision
    if precision == stored and stored not in ("fp16", "bf16"):
        return source
    if is_unsigned(source):
        source = folder / f"float_{graph.path.name}"
        remove_quantization(graph.path, source)
    elif stored != "fp32":
        source = folder / f"float_{graph.path.name}"
        raise_precision(graph.path, source)
    if precision == "fp32":
        return source
    converted = folder / graph.path.name
    if precision == "fp16":
        keep = overflowing_nodes(source, graph.example_inputs()) | sensitive_nodes(source, "fp16")
        convert_precision(source, converted, "fp16", keep)
    else:  # bf16 has the range of fp32
        convert_precision(source, converted, "bf16", sensitive_nodes(source, "bf16"))
    return converted


def _builder(
    graph: ModelGraph, precision: str, ranges: Mapping[str, ShapeRange], progress: BuildProgress
) -> Callable[[], bytes]:
    def build() -> bytes:
        with tempfile.TemporaryDirectory(prefix="engine-") as folder:
            return build_engine(strongly_typed(graph, precision, Path(folder)), ranges, progress)

    return build
