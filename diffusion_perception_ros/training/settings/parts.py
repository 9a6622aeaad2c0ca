"""Settings of parts of a run that only some runs have."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffusion_perception_ros.training.settings.names import AdaptedTask


class ExpertsConfig(BaseModel):
    """How many experts, and what they start from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=8, ge=2)
    """Experts in every block."""
    per_token: int = Field(default=2, ge=1)
    """Experts that a token uses."""
    upcycle_from: Path | None = None
    """Weights of the same network without experts: a safetensors file, such as `ema.safetensors` of a checkpoint."""
    balance: float = Field(default=0.01, ge=0)
    """Weight of the loss that keeps the experts in use (`MixtureOfExperts.imbalance`)."""

    @model_validator(mode="after")
    def _enough(self) -> ExpertsConfig:
        if self.per_token > self.count:
            raise ValueError(f"per_token {self.per_token} is more than the {self.count} experts that there are")
        return self


class AdaptationConfig(BaseModel):
    """LoRA instead of all weights. The network starts from `init_from`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.01, gt=0, le=1)
    """Of the network's parameters that may be learnt."""
    tasks: tuple[AdaptedTask, ...] = ()
    """Of the onestep network: what the data has labels for; the other tasks stay as they were. A diffusion network
    learns `network.tasks`."""
    new_classes: bool = False
    """Of the onestep network: its classes are not those that it was trained for, so their rows are learnt whole."""


class LossWeights(BaseModel):
    """Weights of the terms; a weight of 0 switches a term off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale_invariant: float = Field(default=1.0, ge=0)
    metric: float = Field(default=0.3, ge=0)
    gradient: float = Field(default=0.6, ge=0)
    surface: float = Field(default=0.5, ge=0)
    """Angle between the true normals and those of the predicted depth: keeps planes plane."""
    confidence: float = Field(default=0.1, ge=0)
    normals: float = Field(default=1.0, ge=0)
    semantic: float = Field(default=0.35, ge=0)
    instances: float = Field(default=0.25, ge=0)
