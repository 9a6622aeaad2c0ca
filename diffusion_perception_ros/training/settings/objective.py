"""What is noised, at which timesteps, and what the network predicts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ObjectiveConfig(BaseModel):
    """Which objective. Fields that do not belong to it are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lotus_d", "lotus_g", "genpercept", "e2e_ft", "multi_step", "flow_matching", "joint"] = "lotus_d"
    """`lotus_d`: one step from the image alone. `lotus_g`: one step from the image and noise. The others need a
    diffusion backbone: `genpercept` and `e2e_ft`, one step with losses on the decoded annotation; `multi_step`, a
    noise schedule of 1000 steps; `flow_matching`, straight paths from noise to target; `joint`, image and annotations
    as one, for a network that also creates labelled pairs."""
    noise_channels: int = Field(default=4, gt=0, le=16)
    """Of `lotus_g` with the onestep network."""
    detail_preserver: bool = True
    """Lotus with a diffusion backbone: half of every step reconstructs the picture itself (Lotus, Sec. 3.4)."""
    prediction_type: Literal["sample", "epsilon", "v_prediction"] = "v_prediction"
    """Of `multi_step`: what the network predicts, in diffusers' words."""
    schedule: Literal["scaled_linear", "cosine"] | None = None
    """Of `multi_step`: how fast the signal is lost. Default: Stable Diffusion's `scaled_linear` with `pretrained`,
    `cosine` in pixels."""
    noise: Literal["normal", "multi_resolution"] = "normal"
    """Of `multi_step`, in training: `multi_resolution` is Marigold's annealed noise, 0.9 t / T."""
    loss: Literal["picture", "latent"] = "picture"
    """Of `genpercept`: its losses on the decoded picture, or the squared error of the latent as for the others."""
    num_inference_steps: int | None = Field(default=None, gt=0, le=1000)
    """Of `multi_step` and `flow_matching`: steps when validating; of `joint`: when creating, from pure noise on.
    Default 10."""
    perception_share: float = Field(default=0.5, gt=0, lt=1)
    """Of `joint`: share of the pictures that train perception; the others train creation."""

    @model_validator(mode="after")
    def _fields_match_kind(self) -> ObjectiveConfig:
        users = {
            "noise_channels": {"lotus_g"},
            "detail_preserver": {"lotus_d", "lotus_g"},
            "prediction_type": {"multi_step"},
            "schedule": {"multi_step"},
            "noise": {"multi_step"},
            "loss": {"genpercept"},
            "num_inference_steps": {"multi_step", "flow_matching", "joint"},
            "perception_share": {"joint"},
        }
        for name in self.model_fields_set & users.keys():
            if self.kind not in users[name] and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has no meaning for '{self.kind}'")
        return self
