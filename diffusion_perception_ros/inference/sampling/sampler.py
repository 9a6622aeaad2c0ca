"""Runs a model's graphs: one fused graph, or encode, some denoising steps, decode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from diffusion_perception_ros.inference.backends.backend import Backend
from diffusion_perception_ros.inference.card import NOISY_LATENT, CardError, GraphRole, ModelCard
from diffusion_perception_ros.inference.sampling.schedulers import make_scheduler
from diffusion_perception_ros.inference.tensor import FloatTensor


Inputs = Mapping[str, FloatTensor]
"""Image, and second image and points where the card has them, by the names of the graphs' inputs."""
Draw = Callable[[tuple[int, ...]], FloatTensor]
"""Fresh standard normal noise of a shape."""


class Network(Protocol):
    """One prediction in two parts: what all samples of an ensemble share, and what depends on the noise."""

    def encode(self, inputs: Inputs) -> Inputs:
        """What `sample` needs of the image."""

    def sample(
        self,
        encoded: Inputs,
        noise: FloatTensor | None,
        names: Sequence[str],
        steps: int = 1,
        draw: Draw | None = None,
        with_latent: bool = False,
    ) -> tuple[dict[str, FloatTensor], FloatTensor | None]:
        """Predicts.

        Args:
            encoded: From `encode`.
            noise: (1, c, h, w), None where the model takes none.
            names: Output tensors wanted.
            steps: Denoising steps.
            draw: For schedulers that add noise at every step.
            with_latent: The clean latent is wanted.

        Returns:
            tensors: (1, C, h, w) by name.
            latent: The clean latent (1, c, h, w), None if it was not wanted.
        """


class FusedNetwork:
    """One graph, one step."""

    def __init__(self, card: ModelCard, backend: Backend) -> None:
        self._backend = backend
        self._noise = card.noise

    def encode(self, inputs: Inputs) -> Inputs:
        """See `Network`; nothing is shared but the inputs."""
        return inputs

    def sample(
        self,
        encoded: Inputs,
        noise: FloatTensor | None,
        names: Sequence[str],
        steps: int = 1,
        draw: Draw | None = None,
        with_latent: bool = False,
    ) -> tuple[dict[str, FloatTensor], FloatTensor | None]:
        """See `Network`."""
        inputs = dict(encoded)
        if self._noise is not None and noise is not None:
            inputs[self._noise.tensor] = noise
        latent = self._noise.latent_tensor if self._noise and with_latent else None
        wanted = list(dict.fromkeys([*names, latent])) if latent else list(names)
        tensors = dict(zip(wanted, self._backend.run(inputs, wanted), strict=True))
        return {name: tensors[name] for name in names}, tensors[latent] if latent else None


class LatentNetwork:
    """Three graphs; the scheduler walks from noise to the clean latent."""

    def __init__(
        self, card: ModelCard, backends: Mapping[GraphRole, Backend], inputs: Mapping[GraphRole, frozenset[str]]
    ) -> None:
        """
        Args:
            card: With a `sampler`.
            backends: One of each graph.
            inputs: Names of the inputs of each graph.

        Raises:
            CardError: no graph takes a condition that the card describes, or guidance without `conditional`.
        """
        assert card.sampler is not None
        self._sampler = card.sampler
        self._backends, self._inputs = backends, inputs
        self._is_conditional = "conditional" in inputs["denoise"]
        if self._sampler.guidance_scale != 1.0 and not self._is_conditional:
            raise CardError(
                f"model '{card.name}' has sampler.guidance_scale {self._sampler.guidance_scale}, "
                "but its denoising graph lacks the input 'conditional'"
            )
        for field, condition in (("second_image", card.second_image), ("points", card.points)):
            if condition is not None and not any(condition.tensor in names for names in inputs.values()):
                raise CardError(f"no graph of model '{card.name}' has the input '{condition.tensor}' of '{field}'")

    def encode(self, inputs: Inputs) -> Inputs:
        """See `Network`."""
        (latent,) = self._backends["encode"].run(self._taken("encode", inputs), ["image_latent"])
        return {**inputs, "image_latent": latent}

    def sample(
        self,
        encoded: Inputs,
        noise: FloatTensor | None,
        names: Sequence[str],
        steps: int = 1,
        draw: Draw | None = None,
        with_latent: bool = False,
    ) -> tuple[dict[str, FloatTensor], FloatTensor | None]:
        """See `Network`; the noise is always given, zeros if the card starts from those."""
        scheduler = make_scheduler(self._sampler, steps)
        assert noise is not None
        assert draw is not None
        latent = noise
        conditions = self._taken("denoise", encoded)
        for index, timestep in enumerate(scheduler.timesteps):
            step_inputs = {**conditions, NOISY_LATENT: latent, "timestep": np.array([timestep], np.float32)}
            is_noised = scheduler.noise_per_step and index < len(scheduler.timesteps) - 1
            fresh = draw(latent.shape) if is_noised else None
            latent = scheduler.step(index, self._denoise(step_inputs), latent, fresh)
        latent = np.ascontiguousarray(latent, np.float32)
        tensors = self._backends["decode"].run({**self._taken("decode", encoded), "latent": latent}, names)
        return dict(zip(names, tensors, strict=True)), latent if with_latent else None

    def _denoise(self, inputs: Inputs) -> FloatTensor:
        """The network's prediction; with guidance that of the prompt, moved away from that of the empty prompt."""
        if not self._is_conditional:
            return self._backends["denoise"].run(inputs, ["prediction"])[0]
        prompted = self._backends["denoise"].run({**inputs, "conditional": np.ones(1, np.float32)}, ["prediction"])[0]
        scale = np.float32(self._sampler.guidance_scale)
        if scale == 1.0:
            return prompted
        empty = self._backends["denoise"].run({**inputs, "conditional": np.zeros(1, np.float32)}, ["prediction"])[0]
        return empty + scale * (prompted - empty)

    def _taken(self, role: GraphRole, inputs: Inputs) -> dict[str, FloatTensor]:
        return {name: tensor for name, tensor in inputs.items() if name in self._inputs[role]}
