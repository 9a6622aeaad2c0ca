"""Does an ONNX graph say what its PyTorch module says? Differences through ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError


Feed = Mapping[str, Tensor]
_FP32_TOLERANCE = 1e-3
"""Largest difference to PyTorch that a float32 graph may have."""
FloatArray = npt.NDArray[np.float32]


class Differences:
    """Absolute differences per output name, pooled over several pictures."""

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[float, float, int]]] = {}

    def add(self, names: Sequence[str], ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> None:
        """Compares one result; arrays that are not finite differ by infinity."""
        for name, one, other in zip(names, ours, theirs, strict=True):
            distance = np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf)
            self._values.setdefault(name, []).append((float(distance.max()), float(distance.sum()), distance.size))

    def summary(self, prefix: str = "") -> dict[str, float]:
        """`<prefix><name>_max` and `<prefix><name>_mean`, to three digits."""
        result: dict[str, float] = {}
        for name, values in self._values.items():
            largest, mean = max(value[0] for value in values), sum(v[1] for v in values) / sum(v[2] for v in values)
            result |= {f"{prefix}{name}_max": float(f"{largest:.3g}"), f"{prefix}{name}_mean": float(f"{mean:.3g}")}
        return result


def run_module(module: nn.Module, feeds: Sequence[Feed]) -> list[list[FloatArray]]:
    """Outputs of a PyTorch module for every feed."""
    with torch.inference_mode():
        return [[tensor.numpy() for tensor in module(*feed.values())] for feed in feeds]


def compare_graph(
    path: Path, outputs: Sequence[str], feeds: Sequence[Feed], expected: Sequence[Sequence[FloatArray]]
) -> dict[str, float]:
    """Largest and mean absolute difference of every output, in its own unit.

    Args:
        path: The ONNX file.
        outputs: Names of its outputs.
        feeds: Inputs by name.
        expected: What PyTorch gave for every feed, in the order of `outputs`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    differences = Differences()
    for feed, values in zip(feeds, expected, strict=True):
        arrays = {name: tensor.numpy() for name, tensor in feed.items()}
        differences.add(outputs, session.run(list(outputs), arrays), values)
    return differences.summary()


def refuse_wrong_graph(name: str, differences: Mapping[str, float], precision: str) -> None:
    """Refuses to write a graph that is not what it should be.

    Args:
        name: Of the graph, for the message.
        differences: From PyTorch; infinite for values that are not numbers.

    Raises:
        InputError: it gives values that are not numbers, or in fp32 others than PyTorch.
    """
    largest = max(differences.values())
    if not np.isfinite(largest):
        raise InputError(
            f"in {precision} the graph '{name}' gives values that are not numbers: choose another --precision"
        )
    if precision == "fp32" and largest > _FP32_TOLERANCE:
        raise InputError(f"the graph '{name}' disagrees with PyTorch: {dict(differences)}; report this")
