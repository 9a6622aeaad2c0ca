"""One ONNX graph of a model folder, with what its card says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffusion_perception_ros.inference.backends.engine_cache import graph_hash
from diffusion_perception_ros.inference.backends.graph_check import GraphNode, read_nodes
from diffusion_perception_ros.inference.backends.input_shapes import ShapeRange, example_inputs, shape_ranges
from diffusion_perception_ros.inference.card import GraphRole, ModelCard
from diffusion_perception_ros.inference.parity import parity_image
from diffusion_perception_ros.inference.tensor import FloatTensor


@dataclass(frozen=True)
class ModelGraph:
    """Nothing is read from the file before it is asked for."""

    folder: Path
    card: ModelCard
    role: GraphRole = "fused"

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.card.graph_files[self.role]

    @property
    def digest(self) -> str:
        """Changes whenever the graph or its weights do; the card's hashes were compared with the files before."""
        return graph_hash(self.path, self.card.files)

    @cached_property
    def nodes(self) -> tuple[list[GraphNode], list[GraphNode]]:
        """Its inputs and outputs.

        Raises:
            CardError: the file is not an ONNX graph.
        """
        return read_nodes(self.path)

    def shape_ranges(self) -> Mapping[str, ShapeRange]:
        """The shapes that an engine has to take, per input."""
        return shape_ranges(self.card, self.nodes[0])

    def example_inputs(self) -> dict[str, FloatTensor]:
        """Inputs made of the stored image."""
        return example_inputs(self.card, self.nodes[0], parity_image())
