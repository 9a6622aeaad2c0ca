"""One image, or one tile of it, through a model: prepare, run the graphs, merge ensemble samples, decode."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from diffusion_perception_ros.inference.card import CardError, InputSize, ModelCard
from diffusion_perception_ros.inference.card.inputs import Placement
from diffusion_perception_ros.inference.decoder import Decoder
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.postprocess import Size
from diffusion_perception_ros.inference.preprocess import Preprocessor
from diffusion_perception_ros.inference.prompts import Prompts, mask_tensor, points_tensor
from diffusion_perception_ros.inference.sampling.ensemble import merge_samples
from diffusion_perception_ros.inference.sampling.noise import NoiseSource
from diffusion_perception_ros.inference.sampling.sampler import Network
from diffusion_perception_ros.inference.sampling.settings import Sampling
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.inference.tiling import Window
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction, UInt8Image


@dataclass(frozen=True)
class Request:
    """What is asked for, the same for all tiles of an image."""

    tasks: set[str]
    sampling: Sampling


@dataclass(frozen=True)
class View:
    """What is known of an image."""

    rgb: UInt8Image
    intrinsics: Intrinsics | None
    previous: UInt8Image | None
    """The image before, of the same size."""
    prompts: Prompts
    input_size: InputSize | None = None
    """How the image becomes the graph's input, None = as the card says."""
    output_size: Size | None = None
    """Width and height of the maps, None = the image's."""
    memory: OutputMemory = field(default_factory=OutputMemory)
    latents: Sequence[FloatTensor] = ()
    """Clean latents of the ensemble samples for the image before."""

    @property
    def size(self) -> Size:
        """Width and height of the maps."""
        return self.output_size or (self.rgb.shape[1], self.rgb.shape[0])

    def cropped(self, window: Window) -> View:
        """A part of it, without prompts and latents: those belong to the whole image."""
        camera, previous = self.intrinsics, self.previous
        return replace(
            self,
            rgb=self.rgb[window.slices],
            intrinsics=camera and camera.cropped(window.left, window.top, window.width, window.height),
            previous=None if previous is None else previous[window.slices],
            prompts=Prompts(),
            memory=OutputMemory(),
            latents=(),
        )


class ModelRunner:
    """Reuses its buffers between calls."""

    def __init__(
        self, card: ModelCard, network: Network, noise: NoiseSource | None, native: Native | None = None
    ) -> None:
        """`native` does the work per pixel; None = NumPy and OpenCV do."""
        self._card, self._network, self._noise = card, network, noise
        self._preprocess, self._preprocess_second = Preprocessor(card.input, native), Preprocessor(card.input, native)
        self._decoder = Decoder(card, native)

    def __call__(self, view: View, request: Request) -> tuple[Prediction, list[FloatTensor]]:
        """The prediction, and the clean latents of the ensemble samples for the noise mode `carry`.

        Raises:
            RuntimeError: a graph failed.
            CardError: an output has not the shape that the card implies.
        """
        start = time.perf_counter()
        inputs = self._inputs(view)
        preprocessed = time.perf_counter()
        image = inputs[self._card.input.tensor]
        input_size = image.shape[3], image.shape[2]
        tensors, confidence, latents = self._infer(inputs, input_size, request, view.latents)
        inferred = time.perf_counter()
        prediction = self._decoder(
            tensors, request.tasks, view.size, view.intrinsics, confidence, view.memory, self._placement(view)
        )
        prediction.timings = {
            "preprocess": preprocessed - start,
            "inference": inferred - preprocessed,
            "postprocess": time.perf_counter() - inferred,
        }
        return prediction, latents

    def run_batch(self, pairs: Sequence[tuple[View, Request]]) -> list[Prediction]:
        """Several images in one run of a fused graph that takes no noise.

        Args:
            pairs: Images and what is asked of them; their graph images have one size.

        Returns:
            A prediction per image. The time of inference is that of the whole batch.

        Raises:
            RuntimeError, CardError: as above.
        """
        start = time.perf_counter()
        # Copies, because the next image reuses the buffers.
        parts = [{name: tensor.copy() for name, tensor in self._inputs(view).items()} for view, _ in pairs]
        inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        preprocessed = time.perf_counter()
        names = self._decoder.tensors_for(set().union(*(request.tasks for _, request in pairs)))
        tensors = self._network.sample(inputs, None, names)[0] if names else {}
        for name, tensor in tensors.items():
            self._check_shape(name, tensor, len(pairs))
        inferred = time.perf_counter()
        predictions = []
        for index, (view, request) in enumerate(pairs):
            decoding = time.perf_counter()
            own = {name: tensors[name][index] for name in self._decoder.tensors_for(request.tasks)}
            prediction = self._decoder(
                own, request.tasks, view.size, view.intrinsics, memory=view.memory, placed=self._placement(view)
            )
            prediction.timings = {
                "preprocess": (preprocessed - start) / len(pairs),
                "inference": inferred - preprocessed,
                "postprocess": time.perf_counter() - decoding,
            }
            predictions.append(prediction)
        return predictions

    def _placement(self, view: View) -> Placement:
        """Where the image lies in the graph's input."""
        rule = view.input_size or self._card.input.size
        return rule.placement(view.rgb.shape[1], view.rgb.shape[0])

    def _inputs(self, view: View) -> dict[str, FloatTensor]:
        """Everything that the graphs are given besides noise, by the names of their inputs."""
        card, height, width = self._card, *view.rgb.shape[:2]
        image = self._preprocess(view.rgb, view.input_size)
        inputs = {card.input.tensor: image}
        if card.second_image is not None:  # without a last image nothing has moved
            second = view.rgb if view.previous is None else view.previous
            inputs[card.second_image.tensor] = self._preprocess_second(second, view.input_size)
        if card.points is not None:
            inputs[card.points.tensor] = points_tensor(card.points, view.prompts.points, width, height)
        if card.prompt_mask is not None:
            inputs[card.prompt_mask.tensor] = mask_tensor(view.prompts.mask, image.shape[3], image.shape[2])
        return inputs

    def _infer(
        self, inputs: Mapping[str, FloatTensor], input_size: Size, request: Request, last: Sequence[FloatTensor]
    ) -> tuple[dict[str, FloatTensor], dict[str, FloatImage], list[FloatTensor]]:
        """Runs the graphs for what the tasks need: (C, h, w) by tensor name, spread by task, latents by sample."""
        names = self._decoder.tensors_for(request.tasks)
        if not names:
            return {}, {}, []
        sampling = request.sampling
        mode, seed = sampling.noise_mode, sampling.seed
        starts: list[FloatTensor | None] = [None]
        if self._noise is not None:
            starts = [*self._noise(*input_size, sampling.ensemble_size, mode, seed, last)]
        encoded = self._network.encode(inputs)
        samples, latents = [], []
        for index, start in enumerate(starts):
            draw = self._noise.draws(index, mode, seed) if self._noise else None
            tensors, latent = self._network.sample(
                encoded, start, names, sampling.steps, draw, with_latent=mode == "carry"
            )
            samples.append({name: self._without_batch(name, tensor) for name, tensor in tensors.items()})
            if latent is not None:
                latents.append(latent)
        if len(samples) == 1:
            return samples[0], {}, latents
        merged, confidence = merge_samples(self._card, samples, sampling.merging)
        return merged, confidence, latents

    def _without_batch(self, name: str, tensor: FloatTensor) -> FloatTensor:
        self._check_shape(name, tensor, 1)
        return np.asarray(tensor[0])

    def _check_shape(self, name: str, tensor: FloatTensor, batch: int) -> None:
        if tensor.ndim != 4 or tensor.shape[0] != batch:
            raise CardError(f"output '{name}' of model '{self._card.name}' has {tensor.shape}, not ({batch}, C, h, w)")
