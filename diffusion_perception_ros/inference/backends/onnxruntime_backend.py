"""ONNX Runtime on the CPU, CUDA or its TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from diffusion_perception_ros.inference.backends import FloatTensor
from diffusion_perception_ros.inference.card import CardError, DepthOutput, ModelCard


_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_PROVIDERS = {"cpu": [_CPU], "cuda": [_CUDA, _CPU], "tensorrt": [_TENSORRT, _CUDA, _CPU]}
"""Providers in order of preference; the later ones take the operators that the first lacks."""
_NAMES = {_CPU: "onnxruntime-cpu", _CUDA: "onnxruntime-cuda", _TENSORRT: "onnxruntime-tensorrt"}
_OPTIMIZATION = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_Shape = tuple[int | None, ...]
"""None = any size."""
_FLOATS = ("tensor(float)", "tensor(float16)")


class OnnxRuntimeBackend:
    """The graph of a model folder in an ONNX Runtime session."""

    def __init__(self, folder: Path, card: ModelCard, backend: str, threads: int, optimization: str) -> None:
        wanted, self.fallback_reason = _available_providers(backend)
        path = folder / card.graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = _OPTIMIZATION[optimization]
        # Spinning threads keep cores busy between frames that the robot needs for other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # the runtime's exceptions have no common base class of their own
            raise CardError(f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        _check_graph(path, card, self._session)
        active = self._session.get_providers()
        if active[0] != wanted[0]:  # the provider is there but its libraries or its device are not
            self.fallback_reason = f"{wanted[0]} did not start (see the log of ONNX Runtime); {active[0]} runs instead"
        self.name = _NAMES[active[0]]
        self._binding = None if active[0] == _CPU else self._session.io_binding()

    def run(self, inputs: Mapping[str, FloatTensor], outputs: Sequence[str]) -> list[FloatTensor]:
        """See `Backend.run`."""
        try:
            tensors = self._run(inputs, list(outputs))
        except Exception as error:
            raise RuntimeError(f"{self.name} failed on inputs {_shapes(inputs)}: {error}") from error
        return [np.asarray(tensor, dtype=np.float32) for tensor in tensors]

    def _run(self, inputs: Mapping[str, FloatTensor], outputs: list[str]) -> list[Any]:
        if self._binding is None:
            return list(self._session.run(outputs, dict(inputs)))
        # Bound outputs stay on the device until they are asked for, and only those asked for are copied back.
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, tensor in inputs.items():
            self._binding.bind_cpu_input(name, tensor)
        for name in outputs:
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        return list(self._binding.copy_outputs_to_cpu())


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


def _check_graph(path: Path, card: ModelCard, session: onnxruntime.InferenceSession) -> None:
    """The graph must have the inputs and outputs that the card names, of the rank and the channels it implies."""
    width, height = card.input.size.width, card.input.size.height
    expected: list[tuple[str, _Shape]] = [(card.input.tensor, (1, 3, height, width))]
    if card.noise:
        expected.append((card.noise.tensor, (1, card.noise.channels, None, None)))
    _check_nodes(path, "input", session.get_inputs(), expected, ("tensor(float)",))
    missing = {node.name for node in session.get_inputs()} - {name for name, _ in expected}
    if missing:
        raise CardError(f"{path} needs the input '{min(missing)}', which its card does not mention")
    _check_nodes(path, "output", session.get_outputs(), _expected_outputs(card), _FLOATS)
    if card.input.size.rule != "fixed":
        image = next(node for node in session.get_inputs() if node.name == card.input.tensor)
        if any(isinstance(side, int) for side in image.shape[2:]):
            raise CardError(
                f"{path} takes pictures of the fixed shape {image.shape}, but the card's input.size.rule is "
                f"'{card.input.size.rule}'"
            )


def _expected_outputs(card: ModelCard) -> list[tuple[str, _Shape]]:
    channels = {"depth": 1, "normals": 3, "semantic": len(card.labels), "instances": 2}
    expected: list[tuple[str, _Shape]] = []
    for output in card.outputs:
        expected.append((output.tensor, (1, channels[output.task], None, None)))
        if isinstance(output, DepthOutput) and output.confidence_tensor:
            expected.append((output.confidence_tensor, (1, 1, None, None)))
    return expected


def _check_nodes(
    path: Path, kind: str, nodes: Sequence[Any], expected: Sequence[tuple[str, _Shape]], types: Sequence[str]
) -> None:
    by_name = {node.name: node for node in nodes}
    for name, shape in expected:
        node = by_name.get(name)
        if node is None:
            raise CardError(f"the card names the {kind} '{name}', {path} has {', '.join(sorted(by_name)) or 'none'}")
        if node.type not in types:
            raise CardError(f"the {kind} '{name}' of {path} is a {node.type}, expected {' or '.join(types)}")
        agrees = len(node.shape) == len(shape) and all(
            wanted is None or not isinstance(actual, int) or actual == wanted
            for actual, wanted in zip(node.shape, shape, strict=True)
        )
        if not agrees:
            said = " x ".join("any" if side is None else str(side) for side in shape)
            raise CardError(f"the {kind} '{name}' of {path} has the shape {node.shape}, its card implies {said}")


def _shapes(tensors: Mapping[str, FloatTensor]) -> str:
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items())
