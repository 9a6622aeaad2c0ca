"""The papers' objectives over any diffusion backbone: what it is shown, and what it must say.

With x the latent of the picture and y the latent of the annotation:

| objective | network sees | at t | learns | inference |
|---|---|---|---|---|
| LotusObjective-D (arXiv:2409.18124) | x | T | y | one step |
| LotusObjective-G | x and noise | T | y | one step |
| GenPerceptObjective (arXiv:2403.06090) | x, the noisy latent for beta = 1 | any | -y | one step, at t = 1 |
| E2E-FT (arXiv:2409.11355) | x and zeros | T | -y | one step |
| multi-step (Marigold; Scaling, arXiv:2411.08034) | x and noisy y | any | noise, y or v | DDIM, trailing |
| flow matching (DICEPTION, arXiv:2502.17157) | x and (1 - s) y + s noise | 1000 s | noise - y | Euler |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from diffusion_perception_ros.training.settings.objective import ObjectiveConfig


TRAIN_STEPS = 1000
_LAST = TRAIN_STEPS - 1
_GENPERCEPT_STEP = 1
MARIGOLD_STRENGTH = 0.9
"""Of the noise of coarse grids at t = T; config/train_marigold_depth.yaml."""
_MOST_GRIDS = 10
Predict = Callable[[Tensor, Tensor], Tensor]
"""(network input, timesteps (N,)) → network output."""


class Noised(NamedTuple):
    """One training example per picture."""

    inputs: Tensor
    """(N, C or 2 C, h, w) what the network sees."""
    timesteps: Tensor
    """(N,)"""
    target: Tensor
    """(N, C, h, w) what it must say."""


class DiffusionObjective(Protocol):
    """What the learner needs of an objective."""

    @property
    def sees_noise(self) -> bool:
        """The network's input holds a second latent beside the picture's."""

    @property
    def draws_samples(self) -> bool:
        """The network answers with one of the possible annotations; else it learns their mean."""

    @property
    def steps(self) -> int:
        """Passes of the network that `sample` takes."""

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """A training example from the latents of picture and annotation."""

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """The annotation's latent for a picture's latent."""


@dataclass(frozen=True)
class LotusObjective:
    """One step from t = T to y."""

    sees_noise: bool
    draws_samples = False
    steps = 1

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """See `DiffusionObjective`."""
        return Noised(self._inputs(picture, generator), _steps(picture, _LAST), target)

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """See `DiffusionObjective`."""
        return predict(self._inputs(picture, generator), _steps(picture, _LAST))

    def _inputs(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([picture, _noise(picture, generator)], 1) if self.sees_noise else picture


@dataclass(frozen=True)
class GenPerceptObjective:
    """For beta = 1 the noisy latent is the picture's and the v target is -y (GenPerceptObjective, Sec. 3)."""

    sees_noise = False
    draws_samples = False
    steps = 1

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """See `DiffusionObjective`. The timestep is random: it carries no information."""
        steps = torch.randint(0, TRAIN_STEPS, (len(picture),), generator=generator).to(picture.device)
        return Noised(picture, steps, -target)

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """See `DiffusionObjective`."""
        return -predict(picture, _steps(picture, _GENPERCEPT_STEP))


@dataclass(frozen=True)
class EndToEnd:
    """The first step of a multi-step model with a v target and zeros for the noise, whose result is -v (E2E-FT)."""

    sees_noise = True
    draws_samples = False
    steps = 1

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """See `DiffusionObjective`."""
        return Noised(self._inputs(picture), _steps(picture, _LAST), -target)

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """See `DiffusionObjective`."""
        return -predict(self._inputs(picture), _steps(picture, _LAST))

    @staticmethod
    def _inputs(picture: Tensor) -> Tensor:
        return torch.cat([picture, torch.zeros_like(picture)], 1)


class MultiStep:
    """A noise schedule over 1000 steps; all but that of `epsilon` end without signal, so that sampling may start from
    pure noise in few steps."""

    sees_noise = True
    draws_samples = True

    def __init__(
        self, prediction_type: str, steps: int, schedule: str, is_bounded: bool, multi_resolution: bool = False
    ) -> None:
        """
        Args:
            prediction_type: What the network learns, in diffusers' words.
            steps: Passes when sampling.
            schedule: `scaled_linear` (Stable Diffusion's) or `cosine` (Nichol and Dhariwal, arXiv:2102.09672).
            is_bounded: The clean latent lies in [-1, 1], as pixels do: what lies outside is clipped at every step.
            multi_resolution: Marigold's annealed noise in training.
        """
        self.steps = steps
        self.scheduler: Any = DDIMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_schedule="squaredcos_cap_v2" if schedule == "cosine" else schedule,
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type=prediction_type,
            timestep_spacing="trailing",
            # epsilon says nothing where there is only noise: the schedule then keeps a trace of the signal
            rescale_betas_zero_snr=prediction_type != "epsilon",
            clip_sample=is_bounded,
        )
        self._prediction_type = prediction_type
        self._multi_resolution = multi_resolution

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """See `DiffusionObjective`."""
        steps = torch.randint(0, TRAIN_STEPS, (len(picture),), generator=generator).to(picture.device)
        noise = _noise(target, generator)
        if self._multi_resolution:
            noise = multi_resolution_noise(noise, MARIGOLD_STRENGTH * steps / TRAIN_STEPS, generator)
        noisy = self.scheduler.add_noise(target, noise, steps)
        if self._prediction_type == "v_prediction":
            wanted = self.scheduler.get_velocity(target, noise, steps)
        else:
            wanted = noise if self._prediction_type == "epsilon" else target
        return Noised(torch.cat([picture, noisy], 1), steps, wanted)

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """See `DiffusionObjective`. It starts from plain noise, as Marigold does."""
        self.scheduler.set_timesteps(self.steps)
        latent = _noise(picture, generator)
        for step in self.scheduler.timesteps:
            said = predict(torch.cat([picture, latent], 1), _steps(picture, int(step)))
            latent = self.scheduler.step(said, int(step), latent).prev_sample
        return latent


def multi_resolution_noise(noise: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Marigold's noise: that of coarser grids is added, with ever less weight, and the sum scaled to unit variance.

    Grid number i has `strength` to the power of i as its weight, and sides divided by a random number from 2 to 4 to
    the power of i, grid after grid (prs-eth/Marigold at b1dffaa, src/util/multi_res_noise.py, strategy "original").

    Args:
        noise: (N, C, h, w) standard normal.
        strength: (N,) in [0, 1); Marigold anneals it, 0.9 t / T.
    """
    height, width = noise.shape[2:]
    total, sides = noise, (height, width)
    for level in range(_MOST_GRIDS):
        ratio = float(2 + 2 * torch.rand(1, generator=generator)) ** level
        sides = max(1, int(sides[0] / ratio)), max(1, int(sides[1] / ratio))
        grid = torch.randn((*noise.shape[:2], *sides), generator=generator).to(noise.device, noise.dtype)
        weight = (strength**level)[:, None, None, None]
        total = total + weight * F.interpolate(grid, (height, width), mode="bilinear")
        if 1 in sides:
            break
    return total / total.std()


class FlowMatching:
    """Straight paths from noise (s = 1) to y (s = 0); the network learns the velocity."""

    sees_noise = True
    draws_samples = True

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS)

    def noised(self, picture: Tensor, target: Tensor, generator: torch.Generator) -> Noised:
        """See `DiffusionObjective`."""
        share = torch.rand(len(picture), generator=generator).to(picture.device)
        noise, s = _noise(target, generator), share[:, None, None, None]
        return Noised(torch.cat([picture, (1 - s) * target + s * noise], 1), share * TRAIN_STEPS, noise - target)

    def sample(self, predict: Predict, picture: Tensor, generator: torch.Generator) -> Tensor:
        """See `DiffusionObjective`."""
        self._scheduler.set_timesteps(self.steps)
        latent = _noise(picture, generator)
        for step in self._scheduler.timesteps:
            said = predict(torch.cat([picture, latent], 1), step.to(picture.device).expand(len(picture)))
            latent = self._scheduler.step(said, step, latent).prev_sample
        return latent


def make_diffusion_objective(config: ObjectiveConfig, in_pixels: bool = False) -> DiffusionObjective:
    """The objective that a config names.

    Args:
        in_pixels: There is no autoencoder: latents are pixels in [-1, 1], whose neighbours say much of each other.
            Stable Diffusion's schedule leaves little to learn there at most of its timesteps: cosine is the default.
    """
    steps = config.num_inference_steps or 10
    match config.kind:
        case "multi_step":
            schedule = config.schedule or ("cosine" if in_pixels else "scaled_linear")
            return MultiStep(
                config.prediction_type, steps, schedule, in_pixels, multi_resolution=config.noise == "multi_resolution"
            )
        case "flow_matching":
            return FlowMatching(steps)
        case "genpercept":
            return GenPerceptObjective()
        case "e2e_ft":
            return EndToEnd()
        case _:
            return LotusObjective(sees_noise=config.kind == "lotus_g")


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """From the CPU's generator: the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device, like.dtype)


def _steps(like: Tensor, step: int) -> Tensor:
    return torch.full((len(like),), step, device=like.device)
