"""int8 versions of a graph: convolutions only, per channel, calibrated on images; what costs too much stays in float.

Which layers stay in float is found by trying. A convolution is put back to float where that lowers the drift, the
difference of the int8 graph's answers from those of the float graph on images that were not calibrated with.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from diffusion_perception_ros.errors import InputError


FloatArray = npt.NDArray[np.float32]
Feed = dict[str, FloatArray]

ALWAYS_FLOAT = ("depth_out.weight", "offsets_out.weight")
"""256 levels of log depth would show as steps in a point cloud, and 256 of the offsets move the centres of objects."""
TOLERANCES = {"depth": 0.02, "normals": 2.0, "semantic": 0.04, "instances": 0.06}
"""Differences that count as a drift of 1: relative error of depth once its scale is right, degrees, share of the
pixels that change their class, units of the offsets."""
_OPERATORS = ["Conv", "Clip"]
"""A Clip after a convolution becomes part of its range."""
_CALIBRATION_IMAGES = 96
_DRIFT_IMAGES = 12


class Quantiser:
    """One float graph with its calibrated ranges, from which int8 graphs can be made.

    Args:
        graph: ONNX file.
        feeds: inputs; `_DRIFT_IMAGES` of them, spread evenly, measure the drift, the others calibrate.

    Raises:
        InputError: too few inputs.
    """

    def __init__(self, graph: Path, feeds: Sequence[Feed]) -> None:
        if len(feeds) < 2:
            raise InputError("int8 needs rendered images to calibrate with: give --pictures a folder with more shards")
        every = max(2, -(-len(feeds) // _DRIFT_IMAGES) | 1)  # odd: clean and changed images take turns
        held = feeds[::every]
        self._model = load_model_with_shape_infer(graph)
        self.convolutions: dict[str, str] = {
            node.name: node.input[1] for node in self._model.graph.node if node.op_type == "Conv"
        }
        """Node → name of its weights."""
        weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in self._model.graph.initializer}
        self.sizes = {node: weights.get(name, 0) for node, name in self.convolutions.items()}
        """Node → number of its weights."""
        self._held, self._expected = held, _answers(graph, held)
        with tempfile.TemporaryDirectory() as folder:
            calibrator = create_calibrator(graph, _OPERATORS, str(Path(folder) / "augmented.onnx"))
            others = [feed for number, feed in enumerate(feeds) if number % every]
            calibrator.collect_data(_Reader(others[:_CALIBRATION_IMAGES]))
            self._ranges = calibrator.compute_data()

    def write(self, path: Path, in_float: Collection[str]) -> None:
        """Writes the int8 graph in which the convolutions named stay in float."""
        quantiser = QDQQuantizer(
            copy.deepcopy(self._model),
            True,  # per channel
            True,  # 7 bits of weights: u8 * s8 saturates on processors without VNNI
            QuantType.QInt8,
            QuantType.QUInt8,
            self._ranges,
            [],
            list(in_float),
            _OPERATORS,
            {},
        )
        quantiser.quantize_model()
        quantiser.model.save_model_to_file(str(path), False)

    def drift(self, in_float: Collection[str]) -> float:
        """Of the int8 graph in which the convolutions named stay in float: largest of the `TOLERANCES` taken up."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            self.write(path, in_float)
            differences = [_difference(*pair) for pair in zip(_answers(path, self._held), self._expected, strict=True)]
        return max(
            float(np.mean([difference[name] for difference in differences if name in difference] or [0.0])) / limit
            for name, limit in TOLERANCES.items()
        )


def quantise(graph: Path, feeds: Sequence[Feed], limit: float = 1.0) -> list[str]:
    """Replaces a graph by its int8 version, with as many layers in float as it takes to drift no more than `limit`.

    Returns:
        Names of the weights that stayed in float.

    Raises:
        InputError: too few images to calibrate with.
    """
    quantiser = Quantiser(graph, feeds)
    always = {node for node, weights in quantiser.convolutions.items() if weights in ALWAYS_FLOAT}
    in_float = _sensitive(quantiser, always, limit)
    quantiser.write(graph, in_float)
    return sorted(quantiser.convolutions[node] for node in in_float)


def _sensitive(quantiser: Quantiser, always: set[str], limit: float) -> set[str]:
    """Modules are put back to float, the most helpful first, until the drift is small enough; then single layers of
    theirs, the largest first, become int8 again as long as it stays so."""
    chosen, drift = set(always), quantiser.drift(always)
    modules: dict[str, set[str]] = {}
    for node, weights in quantiser.convolutions.items():
        modules.setdefault(module_of(weights), set()).add(node)
    if drift <= limit:
        return chosen
    gains = {name: quantiser.drift(chosen | nodes) for name, nodes in modules.items() if not nodes <= chosen}
    for name in sorted(gains, key=lambda name: gains[name]):
        if drift <= limit:
            break
        tried = quantiser.drift(chosen | modules[name])
        if tried < drift:
            chosen, drift = chosen | modules[name], tried
    for node in sorted(chosen - always, key=lambda node: -quantiser.sizes[node]):
        if quantiser.drift(chosen - {node}) <= max(limit, drift):
            chosen -= {node}
    logging.getLogger(__name__).info("int8: drift %.2f with %d layers in float", drift, len(chosen))
    return chosen


def module_of(weights: str) -> str:
    """`network.encoder.2.1.body.0.weight` → `network.encoder.2`: what is tried together."""
    parts = weights.split(".")
    depth = next((place for place, part in enumerate(parts) if part.isdigit()), 1)
    return ".".join(parts[: depth + 1])


def _answers(graph: Path, feeds: Sequence[Feed]) -> list[dict[str, FloatArray]]:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """In the units of `TOLERANCES`, of the outputs that there are."""
    found = {}
    if "depth" in ours:
        ratio = np.log(np.maximum(ours["depth"], 1e-6)) - np.log(np.maximum(theirs["depth"], 1e-6))
        found["depth"] = float(np.abs(ratio - np.median(ratio)).mean())
    if "normals" in ours:
        a, b = ours["normals"], theirs["normals"]
        cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1) + 1e-12)
        found["normals"] = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
    if "semantic" in ours:
        found["semantic"] = float((ours["semantic"].argmax(1) != theirs["semantic"].argmax(1)).mean())
    if "instances" in ours:
        found["instances"] = float(np.abs(ours["instances"] - theirs["instances"]).mean())
    return found


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no stubs
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)
