"""ONNX Runtime on the CPU, CUDA or its TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from diffusion_perception_ros.inference.backends import FloatTensor
from diffusion_perception_ros.inference.backends.graph_check import check_graph
from diffusion_perception_ros.inference.backends.onnx_pruning import keep_outputs
from diffusion_perception_ros.inference.card import CardError, ModelCard


_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_LARGEST_PRUNED = 100 << 20
"""Bytes. Each pruned session holds its own copy of the weights it needs."""
_PROVIDERS = {"cpu": [_CPU], "cuda": [_CUDA, _CPU], "tensorrt": [_TENSORRT, _CUDA, _CPU]}
"""Providers in order of preference; the later ones take the operators that the first lacks."""
_NAMES = {_CPU: "onnxruntime-cpu", _CUDA: "onnxruntime-cuda", _TENSORRT: "onnxruntime-tensorrt"}
_OPTIMIZATION = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxRuntimeBackend:
    """The graph of a model folder in ONNX Runtime sessions: one of the whole graph, and one for each set of outputs.

    The latter are made in the background when a set is asked for the first time, so that no frame waits for them.
    """

    def __init__(self, folder: Path, card: ModelCard, backend: str, threads: int, optimization: str) -> None:
        self._providers, self.fallback_reason = _available_providers(backend)
        self._options = _session_options(threads, optimization)
        path = folder / card.graph
        try:
            session = onnxruntime.InferenceSession(str(path), self._options, providers=self._providers)
        except Exception as error:  # the runtime's exceptions have no common base class of their own
            raise CardError(f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        check_graph(path, card, session.get_inputs(), session.get_outputs())
        active = session.get_providers()[0]
        if active != self._providers[0]:  # the provider is there but its libraries or its device are not
            self.fallback_reason = (
                f"{self._providers[0]} did not start (see ONNX Runtime's log); {active} runs instead"
            )
        self.name = _NAMES[active]
        self._whole = session
        self._all_outputs = frozenset(node.name for node in session.get_outputs())
        self._on_cpu = active == _CPU
        is_small = path.stat().st_size < _LARGEST_PRUNED and len(card.files) == 1
        self._path = path if is_small and active != _TENSORRT else None
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


def _available_providers(backend: str) -> tuple[list[str], str | None]:
    """Providers to ask for, and why they are fewer than `backend` means (None if they are not)."""
    available = onnxruntime.get_available_providers()
    wanted = _PROVIDERS["cuda" if backend == "auto" else backend]
    usable = [provider for provider in wanted if provider in available]
    if backend == "auto" or wanted[0] in usable:
        return usable, None
    return usable, (
        f"this ONNX Runtime {onnxruntime.__version__} has no {wanted[0]} (install onnxruntime-gpu); "
        f"{usable[0]} runs instead"
    )


def _shapes(tensors: Mapping[str, FloatTensor]) -> str:
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items())
