"""Shapes of a graph's inputs for a camera image, and the range of shapes that an engine has to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_perception_ros.inference.backends.backend import Node
from diffusion_perception_ros.inference.card import CardError, ModelCard
from diffusion_perception_ros.inference.preprocess import Preprocessor
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import UInt8Image


Shape = tuple[int, ...]

USUAL_IMAGE = (640, 480)
"""Width and height that engines are tuned for where the model takes any."""
_ASPECTS = ((640, 480), (1280, 720), (640, 640), (480, 640), (720, 1280), (2, 1), (1, 2), (3, 1), (1, 3))
"""Images, width and height, whose shapes an engine has to take: cameras, panoramas, cameras on their side."""
MOST_BATCHED = 4
"""Images that an engine takes at once, where its graph leaves the batch free."""
_MIDDLE_TIMESTEP = 500.0


@dataclass(frozen=True)
class ShapeRange:
    """What TensorRT calls a profile, of one input."""

    smallest: Shape
    usual: Shape
    largest: Shape

    @property
    def is_fixed(self) -> bool:
        """Only one shape."""
        return self.smallest == self.largest

    def contains(self, shape: Shape) -> bool:
        """Whether an engine with this profile takes the shape."""
        return len(shape) == len(self.usual) and all(
            low <= side <= high for low, side, high in zip(self.smallest, shape, self.largest, strict=True)
        )


def shape_ranges(card: ModelCard, inputs: Sequence[Node]) -> dict[str, ShapeRange]:
    """The range of every input's shape, over the images that cameras give.

    Raises:
        CardError: an input whose shape does not follow from the card.
    """
    usual = input_shapes(card, inputs, *USUAL_IMAGE)
    every = [input_shapes(card, inputs, width, height) for width, height in _ASPECTS]
    most = max(card.sampler.ensemble_size if card.sampler else 1, MOST_BATCHED)
    ranges = {}
    for node in inputs:
        shapes = np.array([shapes[node.name] for shapes in every], int).reshape(len(every), -1)
        smallest, largest = shapes.min(axis=0), shapes.max(axis=0)
        if largest.size == 4 and not isinstance(node.shape[0], int):
            largest[0] = most  # several cameras, or the samples of an ensemble
        ranges[node.name] = ShapeRange(tuple(smallest.tolist()), usual[node.name], tuple(largest.tolist()))
    return ranges


def input_shapes(card: ModelCard, inputs: Sequence[Node], width: int, height: int) -> dict[str, Shape]:
    """Shape of every input, batch 1, for a camera image of width x height pixels.

    Raises:
        CardError: an input whose shape does not follow from the card.
    """
    image_width, image_height = card.input.size.size_for(width, height)
    of_picture = {prompt.tensor for prompt in (card.input, card.second_image, card.prompt_mask) if prompt}
    downscale = _latent_downscale(card)
    shapes = {}
    for node in inputs:
        free: Sequence[int | None] = [1] * len(node.shape)
        if node.name in of_picture:
            free = (1, None, image_height, image_width)
        elif len(node.shape) == 4 and downscale:
            free = (1, None, image_height // downscale, image_width // downscale)
        elif len(node.shape) == 4:
            free = (1, None, None, None)
        shape = [said if isinstance(said, int) else side for said, side in zip(node.shape, free, strict=True)]
        if None in shape:
            raise CardError(
                f"the size of the graph's input '{node.name}' {list(node.shape)} does not follow from its card"
            )
        shapes[node.name] = tuple(side for side in shape if side is not None)
    return shapes


def example_inputs(card: ModelCard, inputs: Sequence[Node], image: UInt8Image) -> dict[str, FloatTensor]:
    """One set of inputs: the image where the graph takes one, steady noise for latents, and no prompts.

    Args:
        image: (H, W, 3) uint8.

    Raises:
        CardError: an input whose shape does not follow from the card.
    """
    shapes = input_shapes(card, inputs, image.shape[1], image.shape[0])
    tensor = Preprocessor(card.input)(image)
    noise = np.random.default_rng(0)
    examples: dict[str, FloatTensor] = {}
    for name, shape in shapes.items():
        if name == card.input.tensor:
            examples[name] = tensor.copy()
        elif card.second_image and name == card.second_image.tensor:
            examples[name] = np.roll(tensor, 4, axis=3)  # everything moves by four pixels
        elif card.prompt_mask and name == card.prompt_mask.tensor:
            examples[name] = np.ones(shape, np.float32)
        elif name == "timestep":
            examples[name] = np.full(shape, _MIDDLE_TIMESTEP, np.float32)
        elif name == "conditional":
            examples[name] = np.ones(shape, np.float32)
        elif len(shape) == 4:
            examples[name] = noise.standard_normal(shape, dtype=np.float32)
        else:
            examples[name] = np.zeros(shape, np.float32)
    return examples


def _latent_downscale(card: ModelCard) -> int | None:
    if card.sampler is not None:
        return card.sampler.latent_downscale
    return card.noise.downscale if card.noise else None
