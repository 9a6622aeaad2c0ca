"""From the graph's output tensors to one `Prediction`: which tensors a task needs, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference import color_coding
from diffusion_perception_ros.inference.card import (
    AlphaOutput,
    Axis,
    ColorClustering,
    DepthOutput,
    FlowOutput,
    InstancesOutput,
    KeypointsOutput,
    MaskOutput,
    ModelCard,
    NormalsOutput,
    Output,
    PictureOutput,
    Placement,
    SemanticOutput,
)
from diffusion_perception_ros.inference.map_maker import MapMaker
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.postprocess import ClassScores, Size, flow_map, unit_range_map
from diffusion_perception_ros.inference.resampling import resample
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction


_LEAST_STRETCH = 0.08
"""Relative difference of the stretch of columns and rows from which on normals are corrected."""
SKY_GROUP = "sky"
"""Labels of this group have no depth: where they win, metric depth is +Inf."""

_Output = TypeVar("_Output", DepthOutput, NormalsOutput, SemanticOutput, InstancesOutput)


class Decoder:
    """Decodes the outputs of one model, as its card describes them."""

    def __init__(self, card: ModelCard, native: Native | None = None) -> None:
        """
        Args:
            card: Of the model.
            native: Does the per-pixel work; None = NumPy and OpenCV do.
        """
        self._maps = MapMaker(card, native)
        self._input = card.input.size
        self._labels = card.labels
        self._depth = _output(card, DepthOutput)
        self._normals = _output(card, NormalsOutput)
        self._semantic = _output(card, SemanticOutput)
        self._instances = _output(card, InstancesOutput)
        self._others = [
            output
            for output in card.outputs
            if isinstance(output, AlphaOutput | MaskOutput | FlowOutput | KeypointsOutput | PictureOutput)
        ]
        self._sky = {channel for channel, label in enumerate(card.labels) if label.group == SKY_GROUP}

    def tensors_for(self, tasks: Set[str]) -> list[str]:
        """Names of the graph outputs that `tasks` need; all others can stay uncomputed."""
        names = []
        if self._depth and "depth" in tasks:
            names.append(self._depth.tensor)
            if self._depth.confidence_tensor:
                names.append(self._depth.confidence_tensor)
        if self._normals and "normals" in tasks:
            names.append(self._normals.tensor)
        if self._semantic and ("semantic" in tasks or self._needs_votes(tasks) or self._needs_sky(tasks)):
            names.append(self._semantic.tensor)
        if self._instances and "instances" in tasks:
            names.append(self._instances.tensor)
        names += [output.tensor for output in self._others if output.task in tasks]
        return list(dict.fromkeys(names))  # one colour encoding can serve several tasks

    def __call__(
        self,
        tensors: Mapping[str, FloatTensor],
        tasks: Set[str],
        size: Size,
        intrinsics: Intrinsics | None,
        confidence: Mapping[str, FloatImage] | None = None,
        memory: OutputMemory | None = None,
        placed: Placement | None = None,
    ) -> Prediction:
        """Makes the prediction.

        Args:
            tensors: What `tensors_for(tasks)` named, (C, h, w) each.
            tasks: What to put into the prediction.
            size: Width and height of every map of the prediction.
            intrinsics: Of the image, if known.
            confidence: (h, w) in [0, 1] by task, from the samples of an ensemble. A model's own comes first.
            memory: Where the maps are written, None = new memory.
            placed: Where the image lies in the graph's input, None = as the card says for an image of `size`.
        """
        prediction = Prediction()
        memory = memory or OutputMemory()
        placed = placed or self._input.placement(*size)
        input_size = min(placed.graph[0], placed.image[0]), min(placed.graph[1], placed.image[1])
        tensors = {name: self._restored(tensor, placed, size) for name, tensor in tensors.items()}
        spread = {task: cut_to_image(values, placed) for task, values in (confidence or {}).items()}
        scores = None
        if self._semantic and self._semantic.tensor in tensors:
            scores = self._maps.scores(self._logits(self._semantic, tensors))
        if self._depth and "depth" in tasks:
            values = tensors[self._depth.tensor][0]
            focal = _mean_focal(intrinsics, input_size)
            sky = self._sky_mask(scores, values.shape) if scores and self._needs_sky(tasks) else None
            depth, prediction.depth_quantity = self._maps.depth(self._depth, values, size, focal, sky, memory)
            if prediction.depth_quantity == "metric_depth":
                prediction.depth = depth
            else:
                prediction.depth_relative = depth
            if self._depth.confidence_tensor:
                prediction.confidence = self._maps.confidence(
                    "confidence", tensors[self._depth.confidence_tensor][0], size, memory
                )
            elif "depth" in spread:
                prediction.confidence = self._maps.confidence("confidence", spread["depth"], size, memory)
        if self._normals and "normals" in tasks:
            vectors = unstretched(tensors[self._normals.tensor], self._normals.axes, placed, size)
            prediction.normals = self._maps.normals(self._normals, vectors, size, memory)
            if "normals" in spread:
                prediction.normals_confidence = self._maps.confidence(
                    "normals_confidence", spread["normals"], size, memory
                )
        if scores and ("semantic" in tasks or self._needs_votes(tasks)):
            self._put_classes(prediction, scores, tensors, tasks, size, input_size, memory)
        if self._instances and "instances" in tasks and self._instances.encoding == "colors":
            encoded = tensors[self._instances.tensor]
            clustering = self._instances.clustering or ColorClustering()
            prediction.instances = color_coding.entities(encoded, clustering, size)
        for output in self._others:
            if output.task in tasks:
                setattr(prediction, output.task, _decoded(output, tensors[output.tensor], size, input_size))
        return prediction

    def _restored(self, tensor: FloatTensor, placed: Placement, size: Size) -> FloatTensor:
        """(C, h, w) of the whole graph's input → of the image alone, in its size where the publisher does it first."""
        tensor = cut_to_image(tensor, placed)
        if self._input.restore == "linear" or tensor.shape[:0:-1] == size:
            return tensor
        planes = tensor.transpose(1, 2, 0)
        return np.ascontiguousarray(resample(planes, *size, self._input.restore).transpose(2, 0, 1))

    def _logits(self, semantic: SemanticOutput, tensors: Mapping[str, FloatTensor]) -> FloatTensor:
        tensor = tensors[semantic.tensor]
        return tensor if semantic.encoding == "logits" else color_coding.label_scores(tensor, self._labels)

    def _put_classes(
        self,
        prediction: Prediction,
        scores: ClassScores,
        tensors: Mapping[str, FloatTensor],
        tasks: Set[str],
        size: Size,
        input_size: Size,
        memory: OutputMemory,
    ) -> None:
        semantic, confidence = self._maps.classes(scores, size, memory)
        if "semantic" in tasks:
            prediction.semantic, prediction.semantic_confidence = semantic, confidence
        if self._instances and self._instances.offset_scale is not None and self._needs_votes(tasks):
            tensor = tensors[self._instances.tensor]
            _, height, width = tensor.shape
            offset_scale = self._instances.offset_scale
            scale = offset_scale * width / input_size[0], offset_scale * height / input_size[1]
            winner = _resize_nearest(scores.winner, width, height)
            prediction.instances = self._maps.instances(winner, tensor, scale, semantic, memory)

    def _needs_votes(self, tasks: Set[str]) -> bool:
        """Instances are asked for, and are grouped from offsets of pixels whose class is a thing."""
        return self._instances is not None and "instances" in tasks and self._instances.encoding == "offsets"

    def _needs_sky(self, tasks: Set[str]) -> bool:
        metric = self._depth is not None and self._depth.quantity == "metric_depth"
        return metric and "depth" in tasks and bool(self._sky)

    def _sky_mask(self, scores: ClassScores, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        return np.isin(_resize_nearest(scores.winner, shape[1], shape[0]), list(self._sky))


def unstretched(vectors: FloatTensor, axes: tuple[Axis, Axis, Axis], placed: Placement, size: Size) -> FloatTensor:
    """Normals (3, h, w) of a stretched image → of the image, not of unit length.

    An image whose columns are stretched by a^2 more than its rows looks like one of a world that is a times as wide
    and 1 / a times as high, whose normals are n_x / a, n_y a, n_z. Rounded sides (a few percent) are left alone: the
    networks were trained with them.
    """
    ratio = (placed.image[0] / size[0]) / (placed.image[1] / size[1])
    if abs(ratio - 1.0) < _LEAST_STRETCH:
        return vectors
    factors = {"right": ratio**0.5, "left": ratio**0.5, "down": ratio**-0.5, "up": ratio**-0.5}
    scale = np.array([factors.get(axis, 1.0) for axis in axes], np.float32)
    return vectors * scale[:, None, None]


def cut_to_image(values: FloatTensor, placed: Placement) -> FloatTensor:
    """(..., h, w) of the graph's input → the part that the image has of it."""
    if placed.image[0] >= placed.graph[0] and placed.image[1] >= placed.graph[1]:
        return values
    height, width = values.shape[-2:]
    columns = max(1, round(width * placed.image[0] / placed.graph[0])) if placed.image[0] < placed.graph[0] else width
    rows = max(1, round(height * placed.image[1] / placed.graph[1])) if placed.image[1] < placed.graph[1] else height
    return values[..., :rows, :columns]


def _output(card: ModelCard, kind: type[_Output]) -> _Output | None:
    return next((output for output in card.outputs if isinstance(output, kind)), None)


def _decoded(output: Output, tensor: FloatTensor, size: Size, input_size: Size) -> FloatImage:
    """Outputs that stand for themselves."""
    if isinstance(output, FlowOutput):
        return flow_map(output.scale, tensor, size, input_size)
    if isinstance(output, KeypointsOutput):
        return color_coding.keypoints(tensor, output, size)
    assert isinstance(output, AlphaOutput | MaskOutput | PictureOutput)
    return unit_range_map(output.range, tensor, size)


def _mean_focal(intrinsics: Intrinsics | None, input_size: Size) -> float | None:
    """Mean focal length in pixels of the graph's input."""
    if intrinsics is None:
        return None
    resized = intrinsics.resized(*input_size)
    return (resized.fx + resized.fy) / 2


def _resize_nearest(channels: npt.NDArray[np.int32], width: int, height: int) -> npt.NDArray[np.int32]:
    if channels.shape == (height, width):
        return channels
    return cv2.resize(channels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[return-value]
