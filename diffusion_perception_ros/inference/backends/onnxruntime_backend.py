"""ONNX Runtime on the CPU, on CUDA or with its own TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from diffusion_perception_ros.inference.backends.backend import BackendUnavailable, Node
from diffusion_perception_ros.inference.card import CardError
from diffusion_perception_ros.inference.tensor import FloatTensor


CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_NAMES = {CPU: "onnxruntime-cpu", CUDA: "onnxruntime-cuda", TENSORRT: "onnxruntime-tensorrt"}
_LARGEST_PRUNED = 100 << 20
"""Bytes. Each pruned session holds its own copy of the weights it needs."""
_OPTIMIZATION = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxRuntimeBackend:
    """A graph in ONNX Runtime sessions: one of the whole graph, and one for each set of outputs.

    The latter are made in the background when a set is asked for the first time, so that no frame waits for them.
    """

    fallback_reason: str | None = None

    def __init__(
        self,
        path: Path,
        provider: str = CPU,
        threads: int = 0,
        optimization: str = "all",
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            path: The ONNX file.
            provider: `CPU`, `CUDA` or `TENSORRT`; operators that it lacks run on the next of them.
            threads: CPU threads of one run, 0 = all cores.
            optimization: One of `OPTIMIZATIONS`.
            provider_options: Options of the provider.

        Raises:
            BackendUnavailable: this ONNX Runtime lacks the provider, or it does not start here.
            CardError: the graph cannot be loaded.
        """
        self._providers = _providers(provider, provider_options or {})
        self._options = _session_options(threads, optimization)
        try:
            session = onnxruntime.InferenceSession(str(path), self._options, providers=self._providers)
        except Exception as error:  # the runtime's exceptions have no common base class of their own
            if provider != CPU:
                raise BackendUnavailable(f"{provider} cannot load the graph: {_first_line(error)}") from error
            raise CardError(f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        active = session.get_providers()[0]
        if active != provider:
            raise BackendUnavailable(
                f"{provider} does not start: its libraries or its device are missing (see ONNX Runtime's log)"
            )
        self.name = _NAMES[active]
        self.inputs: list[Node] = session.get_inputs()
        self.outputs: list[Node] = session.get_outputs()
        self._whole = session
        self._all_outputs = frozenset(node.name for node in self.outputs)
        self._on_cpu = active == CPU
        is_small = path.stat().st_size < _LARGEST_PRUNED
        self._path = path if is_small and active != TENSORRT else None
        self._pruned: dict[frozenset[str], Future[onnxruntime.InferenceSession]] = {}
        self._workshop = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prune")

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """See `Backend.run`."""
        session = self._session_for(frozenset(outputs))
        try:
            tensors = _run(session, inputs, list(outputs), self._on_cpu)
        except Exception as error:
            raise RuntimeError(f"{self.name} failed on inputs {_shapes(inputs)}: {error}") from error
        return [np.asarray(tensor, dtype=np.float32) for tensor in tensors]

    def _session_for(self, outputs: frozenset[str]) -> onnxruntime.InferenceSession:
        """A session that computes only `outputs` if it is ready, else that of the whole graph."""
        if self._path is None or outputs == self._all_outputs:
            return self._whole
        if outputs not in self._pruned:
            self._pruned[outputs] = self._workshop.submit(self._prune, self._path, outputs)
        pruned = self._pruned[outputs]
        return pruned.result() if pruned.done() and pruned.exception() is None else self._whole

    def _prune(self, path: Path, outputs: frozenset[str]) -> onnxruntime.InferenceSession:
        # Imported here, in the background: `onnx` takes a second to load, which the first image need not wait for.
        from diffusion_perception_ros.inference.backends.onnx_pruning import has_external_weights, keep_outputs

        if has_external_weights(path):  # a small file of a large model: each session would hold the weights again
            return self._whole
        model = keep_outputs(path.read_bytes(), outputs)
        return onnxruntime.InferenceSession(model, self._options, providers=self._providers)


def _session_options(threads: int, optimization: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _OPTIMIZATION[optimization]
    # Spinning threads keep cores busy between frames that the robot needs for other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _run(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, FloatTensor], outputs: list[str], on_cpu: bool
) -> list[Any]:
    if on_cpu:
        return list(session.run(outputs, dict(inputs)))
    # Bound outputs are copied back from the device in one go, and only those asked for.
    binding = session.io_binding()
    for name, tensor in inputs.items():
        binding.bind_cpu_input(name, tensor)
    for name in outputs:
        binding.bind_output(name, "cuda")
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())


def _providers(provider: str, options: Mapping[str, str]) -> list[Any]:
    """The provider, then those that take the operators which it lacks.

    Raises:
        BackendUnavailable: this ONNX Runtime was built without it.
    """
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise BackendUnavailable(
            f"this ONNX Runtime {onnxruntime.__version__} has no {provider} (install onnxruntime-gpu)"
        )
    if provider != CPU and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from Python packages, where the system has none
    order = [TENSORRT, CUDA, CPU]
    fallbacks = [name for name in order[order.index(provider) + 1 :] if name in available]
    return [(provider, dict(options)) if options else provider, *fallbacks]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shapes(tensors: Mapping[str, FloatTensor]) -> str:
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items())
