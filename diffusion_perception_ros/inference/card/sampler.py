"""Models of several steps: the three graphs, and how the sampler runs them. Field names are those of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card.base import StrictModel


GraphRole = Literal["fused", "encode", "denoise", "decode"]
"""What a graph does: everything at once, or one of the three stages."""


class Graphs(StrictModel):
    """The ONNX graphs of a model of several steps, with these inputs and outputs, all float32 (or float16 outputs):

    - encode: the picture input (1, 3, H, W) → `image_latent` (1, any, h, w), scaled as the network expects it;
    - denoise: `image_latent`, `noisy_latent` (B, c, h, w), `timestep` (1,) → `prediction` (B, c, h, w). With
      classifier-free guidance also `conditional` (1,): 1 for the prompt, 0 for the empty one;
    - decode: `latent` (1, c, h, w) → the tensors that `outputs` names.

    `second_image`, `points` and `prompt_mask` go to each graph that has an input of their name.
    """

    encode: str
    denoise: str
    decode: str


class _Sampler(StrictModel):
    num_inference_steps: int = Field(ge=1, le=10_000)
    """Steps unless the caller says otherwise."""
    guidance_scale: float = Field(default=1.0, ge=1.0)
    """Classifier-free guidance: empty + scale * (prompt - empty). 1 = none; more needs the input `conditional`."""
    latent_channels: int = Field(gt=0, le=4096)
    """c of the latents."""
    latent_downscale: int = Field(default=8, gt=0, le=1024)
    """Pixels of the picture input per cell of the latents."""
    ensemble_size: int = Field(default=1, ge=1, le=1000)
    """Predictions from different noise that are merged, unless the caller says otherwise."""
    start: Literal["noise", "zeros"] = "noise"
    """What the first `noisy_latent` is."""
    num_train_timesteps: int = Field(default=1000, ge=1, le=100_000)

    @model_validator(mode="after")
    def _consistent(self) -> _Sampler:
        if self.num_inference_steps > self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps {self.num_inference_steps} is more than "
                f"num_train_timesteps {self.num_train_timesteps}"
            )
        if self.start == "zeros" and self.ensemble_size > 1:
            raise ValueError("ensemble_size above 1 needs 'start: noise': from zeros all members are equal")
        return self


class _DiffusionSampler(_Sampler):
    """A variance-preserving noise schedule."""

    prediction_type: Literal["epsilon", "sample", "v_prediction"]
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    beta_start: float = Field(default=0.00085, ge=0, le=1)
    beta_end: float = Field(default=0.012, ge=0, le=1)
    """Both ends of the schedule; `squaredcos_cap_v2` has its own."""
    rescale_betas_zero_snr: bool = False
    set_alpha_to_one: bool = True
    """Where the last step ends: at no noise, or at the noise of timestep 0."""
    clip_sample: bool = False
    """Clip the clean latent of every step to [-1, 1]."""

    @model_validator(mode="after")
    def _ascending(self) -> _DiffusionSampler:
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr leaves no signal to find from 'epsilon': use v_prediction or sample"
            )
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} is above beta_end {self.beta_end}")
        return self


class DdimSampler(_DiffusionSampler):
    """DDIM without added noise (Song et al., ICLR 2021)."""

    scheduler: Literal["ddim"] = "ddim"
    timestep_spacing: Literal["leading", "trailing", "linspace"]
    steps_offset: int = Field(default=0, ge=0, le=100_000)
    """Added to the timesteps, only with `leading`."""


class LcmSampler(_DiffusionSampler):
    """Latent consistency models (Luo et al., 2023)."""

    scheduler: Literal["lcm"] = "lcm"
    original_inference_steps: int = Field(default=50, ge=1)
    """Steps of the schedule that the model was distilled on; the sampler's are some of them."""
    timestep_scaling: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _enough(self) -> LcmSampler:
        if not self.num_inference_steps <= self.original_inference_steps <= self.num_train_timesteps:
            raise ValueError(
                f"original_inference_steps {self.original_inference_steps} must lie between num_inference_steps "
                f"{self.num_inference_steps} and num_train_timesteps {self.num_train_timesteps}"
            )
        return self


class EulerFlowSampler(_Sampler):
    """Flow matching with Euler steps (SD3's `FlowMatchEulerDiscreteScheduler`); velocity = noise - clean latent."""

    scheduler: Literal["euler_flow"] = "euler_flow"
    prediction_type: Literal["velocity"] = "velocity"
    shift: float = Field(default=1.0, gt=0)
    """sigma' = shift * sigma / (1 + (shift - 1) * sigma)."""


Sampler = Annotated[DdimSampler | LcmSampler | EulerFlowSampler, Field(discriminator="scheduler")]


def changed_sampler(sampler: Sampler, fields: Mapping[str, Any]) -> Sampler:
    """The sampler with other values of some fields, such as another `timestep_spacing`.

    Raises:
        InputError: this kind of sampler has no such field, or cannot have that value.
    """
    try:
        return type(sampler).model_validate(sampler.model_dump() | dict(fields))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"]) or "sampler"
        wrong = problem["type"] == "extra_forbidden"
        reason = "there is no such field" if wrong else problem["msg"].removeprefix("Value error, ")
        raise InputError(f"the model's sampler '{sampler.scheduler}' cannot be changed in {name}: {reason}") from error
