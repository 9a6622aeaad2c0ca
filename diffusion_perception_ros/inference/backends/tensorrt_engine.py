"""Builds and runs TensorRT engines, on TensorRT's own Python bindings, 10.x and 11.x alike.

Networks are strongly typed (10.x by a flag, 11.x always): precisions come from the ONNX graph, see `mixed_precision`.
What could be decided without a GPU is decided elsewhere; here are only the calls.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.inference.backends.backend import BackendUnavailable
from diffusion_perception_ros.inference.backends.build_progress import BuildProgress
from diffusion_perception_ros.inference.backends.cuda import Buffer, CudaGraph, Stream
from diffusion_perception_ros.inference.backends.input_shapes import Shape, ShapeRange
from diffusion_perception_ros.inference.tensor import FloatTensor


OLDEST = (10, 0)
"""Of TensorRT. JetPack 6 has 10.3, JetPack 7 has 10.13."""

_log = logging.getLogger(__name__)


def import_tensorrt() -> Any:
    """The bindings.

    Raises:
        BackendUnavailable: they or TensorRT's libraries are missing, or too old.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"TensorRT's Python bindings cannot be used ({error})") from error
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise BackendUnavailable(f"TensorRT {tensorrt.__version__} is too old: 10.0 or newer is needed")
    return tensorrt


def build_engine(path: Path, ranges: Mapping[str, ShapeRange], progress: BuildProgress) -> bytes:
    """Builds an engine from a strongly typed ONNX graph. This takes minutes.

    Args:
        path: The graph, in the precisions that it is to be computed in.
        ranges: Of the shapes of its inputs; one optimisation profile covers them.
        progress: Told how far the build is.

    Returns:
        The serialised engine, for this GPU and this version of TensorRT only.

    Raises:
        BackendUnavailable: TensorRT cannot parse or build the graph; the message has its first error.
    """
    trt = import_tensorrt()
    logger = _make_logger(trt)
    builder = _start(trt.Builder, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BackendUnavailable(f"TensorRT {trt.__version__} cannot parse the graph: {errors[0] if errors else '?'}")
    config = builder.create_builder_config()
    config.progress_monitor = _make_monitor(trt, progress)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        shapes = ranges[name]
        profile.set_shape(name, shapes.smallest, shapes.usual, shapes.largest)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendUnavailable(f"TensorRT {trt.__version__} cannot build the graph: {logger.last_error or '?'}")
    return bytes(engine)


class Engine:
    """A loaded engine with its buffers. Shapes may change from run to run; the work of a steady shape is recorded."""

    def __init__(self, serialized: bytes, ranges: Mapping[str, ShapeRange]) -> None:
        """
        Raises:
            BackendUnavailable: TensorRT does not take the engine.
            CudaError: CUDA failed.
        """
        self._trt = import_tensorrt()
        self._logger = _make_logger(self._trt)
        self._ranges = ranges
        self._stream = Stream()
        self._runtime = _start(self._trt.Runtime, self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(serialized)
        self._context: Any = self._engine.create_execution_context() if self._engine else None
        if self._context is None:
            raise BackendUnavailable(f"the engine cannot be loaded: {self._logger.last_error or 'out of memory?'}")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == self._trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if modes[name] == self._trt.TensorIOMode.OUTPUT]
        self._dtypes = {name: self._numpy_type(name) for name in names}
        self._buffers: dict[str, Buffer] = {}
        self._shapes: dict[str, Shape] = {}
        self._graph: CudaGraph | None = None

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """Runs the engine; float32 outputs in order.

        Raises:
            RuntimeError: a shape outside what the engine was built for, or TensorRT or CUDA failed.
        """
        shapes = {name: inputs[name].shape for name in self._inputs}
        if shapes != self._shapes:
            self._prepare(shapes)
        for name in self._inputs:
            np.copyto(self._buffers[name].host, inputs[name], casting="same_kind")
            self._buffers[name].upload(self._stream)
        if self._graph is not None:
            self._stream.launch(self._graph)
        else:
            self._enqueue()
        for name in outputs:
            self._buffers[name].download(self._stream)
        self._stream.synchronize()
        return [self._buffers[name].host.astype(np.float32) for name in outputs]

    def _prepare(self, shapes: Mapping[str, Shape]) -> None:
        """Buffers for new shapes, a first run, and the recording of the next ones."""
        for name, shape in shapes.items():
            if not self._ranges[name].contains(shape):
                wanted = self._ranges[name]
                raise RuntimeError(
                    f"the engine takes '{name}' from {wanted.smallest} to {wanted.largest}, this image gives {shape}"
                )
        self._graph, self._shapes = None, {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"TensorRT refuses {shape} for '{name}': {self._logger.last_error}")
        for name in [*self._inputs, *self._outputs]:
            shape = tuple(self._context.get_tensor_shape(name))
            buffer = self._buffers[name] = Buffer(shape, self._dtypes[name])
            self._context.set_tensor_address(name, buffer.device)
        self._enqueue()  # what TensorRT does only once per shape must not be recorded
        self._stream.synchronize()
        self._shapes = dict(shapes)
        try:
            self._graph = self._record()
        except RuntimeError as error:  # e.g. loops on the host: then every kernel is launched by itself
            _log.info("the engine runs without a CUDA graph: %s", error)

    def _record(self) -> CudaGraph:
        self._stream.begin_capture()
        try:
            self._enqueue()
        finally:
            graph = self._stream.end_capture()  # also ends the recording when it failed
        return graph

    def _numpy_type(self, name: str) -> Any:
        dtype = self._engine.get_tensor_dtype(name)
        try:
            return self._trt.nptype(dtype)
        except TypeError as error:
            raise BackendUnavailable(f"NumPy has no type for '{name}', which is {dtype}: export it as fp32") from error

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise RuntimeError(f"TensorRT failed: {self._logger.last_error or 'see its log'}")


def _start(factory: Any, logger: Any) -> Any:
    """A builder or runtime.

    Raises:
        BackendUnavailable: TensorRT does not start, which the bindings report as a TypeError.
    """
    try:
        return factory(logger)
    except TypeError as error:
        raise BackendUnavailable(f"TensorRT does not start: {logger.last_error or error}") from error


def _make_logger(trt: Any) -> Any:
    """TensorRT's messages go to Python's log, and the last error can be told to the user."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message
                _log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _log.info("TensorRT: %s", message)

    return Logger()


def _make_monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return True

    return Monitor()
