"""The steps from tensors to maps that cost time on a robot, in C++ where it was built, else with NumPy and OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.card import DepthOutput, ModelCard, NormalsOutput
from diffusion_perception_ros.inference.instances import CONSTANTS, enlarge_instances, find_instances
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.postprocess import (
    OPTICAL_AXES,
    ClassScores,
    Enlarge,
    Size,
    class_scores,
    confidence_map,
    depth_map,
    normal_map,
    resize_with_holes,
    semantic_map,
)
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


class MapMaker:
    """For the outputs of one model. Maps are in the image's size; see `postprocess` and `instances` for what they are.

    `memory` gives the memory of native maps by the name of their field in `Prediction`.
    """

    def __init__(self, card: ModelCard, native: Native | None) -> None:
        self._native = native
        self._labels = card.labels
        ids = np.array([label.id for label in card.labels], np.int32)
        self._label_ids = ids
        self._id_type: Any = np.uint8 if not len(ids) or ids.max() < 255 else np.uint16
        self._things = np.array([label.is_thing for label in card.labels], np.uint8)
        self._is_one_to_one = len(set(ids.tolist())) == len(ids)

    def depth(
        self,
        output: DepthOutput,
        values: FloatImage,
        size: Size,
        focal: float | None,
        sky: npt.NDArray[np.bool_] | None,
        memory: OutputMemory,
    ) -> tuple[FloatImage, str]:
        """See `postprocess.depth_map`."""
        return depth_map(output, values, focal, sky, self._enlarge("depth", size, memory))

    def confidence(self, field: str, values: FloatImage, size: Size, memory: OutputMemory) -> FloatImage:
        """See `postprocess.confidence_map`."""
        return confidence_map(values, self._enlarge(field, size, memory))

    def normals(self, output: NormalsOutput, tensor: FloatTensor, size: Size, memory: OutputMemory) -> FloatImage:
        """See `postprocess.normal_map`."""
        if self._native is None or _is_left_to_opencv(tensor, size):
            return normal_map(output.axes, tensor, size)
        axes, signs = zip(*(OPTICAL_AXES[axis] for axis in output.axes), strict=True)
        tensor = np.ascontiguousarray(tensor)
        return self._native.enlarge_normals(tensor, axes, signs, size, memory.allocator("normals"))

    def scores(self, logits: FloatTensor) -> ClassScores:
        """See `postprocess.class_scores`."""
        if self._native is None:
            return class_scores(logits)
        return ClassScores(*self._native.class_scores(np.ascontiguousarray(logits)))

    def classes(
        self, scores: ClassScores, size: Size, memory: OutputMemory
    ) -> tuple[UInt8Image | UInt16Image, FloatImage]:
        """See `postprocess.semantic_map`."""
        if self._native is None or _is_left_to_opencv(scores.probabilities, size):
            return semantic_map(scores, self._labels, size)
        ids: Any = self._label_ids[list(scores.channels)].astype(self._id_type)
        places = memory.allocator("semantic"), memory.allocator("semantic_confidence")
        return self._native.enlarge_classes(scores.probabilities, ids, size, *places)

    def instances(
        self,
        winner: npt.NDArray[np.int32],
        offsets: FloatTensor,
        scale: tuple[float, float],
        semantic: UInt8Image | UInt16Image,
        memory: OutputMemory,
    ) -> UInt16Image:
        """See `instances.find_instances` and `instances.enlarge_instances`; `offsets` times `scale` are cells."""
        if self._native is None or not self._is_one_to_one:
            cells = offsets * np.array(scale, np.float32)[:, None, None]
            ids, channels = find_instances(winner, cells, set(np.flatnonzero(self._things).tolist()))
            return enlarge_instances(ids, channels, semantic, self._label_ids.tolist())
        tensor, winner = np.ascontiguousarray(offsets), np.ascontiguousarray(winner)
        ids, owners = self._native.find_instances(winner, tensor, scale, self._things, CONSTANTS)
        allocate = memory.allocator("instances")
        return self._native.enlarge_instances(ids, owners, semantic, self._label_ids, allocate)

    def _enlarge(self, field: str, size: Size, memory: OutputMemory) -> Enlarge:
        native, allocate = self._native, memory.allocator(field)

        def enlarge(values: FloatImage) -> FloatImage:
            if native is None or _is_left_to_opencv(values, size):
                return resize_with_holes(values, size)
            return native.enlarge_map(np.ascontiguousarray(values), size, allocate)

        return enlarge


def _is_left_to_opencv(tensor: FloatTensor, size: Size) -> bool:
    """Whether a map stays as it is, or becomes smaller, as those of small images do: OpenCV averages in some cases."""
    width, height = tensor.shape[-1], tensor.shape[-2]
    return size == (width, height) or size[0] < width or size[1] < height
