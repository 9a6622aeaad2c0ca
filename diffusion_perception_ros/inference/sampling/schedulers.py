"""The samplers' noise schedules in NumPy: same timesteps and same steps as the schedulers of diffusers, without torch.

Formulas: DDIM (Song et al., ICLR 2021, eq. 12), v-prediction (Salimans & Ho, ICLR 2022, appendix D), zero terminal SNR
and timestep spacings (Lin et al., WACV 2024, algorithm 1 and table 2), LCM (Luo et al., 2023, eq. 9), flow matching
with the timestep shift of SD3 (Esser et al., ICML 2024, eq. 23). Tables are computed in float32, as diffusers does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import DdimSampler, EulerFlowSampler, LcmSampler, Sampler
from diffusion_perception_ros.inference.tensor import FloatTensor


_SIGMA_DATA = 0.5
"""Standard deviation of the data that consistency models assume."""


class Scheduler(ABC):
    """A number of steps from noise to a clean latent."""

    timesteps: FloatTensor
    """(steps,), descending; what the denoising graph is told."""
    noise_per_step = False
    """Whether `step` adds fresh noise, on all but the last step."""

    @abstractmethod
    def step(
        self, index: int, prediction: FloatTensor, noisy_latent: FloatTensor, noise: FloatTensor | None = None
    ) -> FloatTensor:
        """The less noisy latent; after the last step it is the clean one.

        Args:
            index: Of the step, 0 is the first.
            prediction: (1, c, h, w), what the network says.
            noisy_latent: (1, c, h, w), what it was given.
            noise: (1, c, h, w), standard normal, where `noise_per_step`.
        """


def make_scheduler(sampler: Sampler, steps: int) -> Scheduler:
    """The schedule of a card for a number of steps.

    Raises:
        InputError: more steps than the schedule has, or none.
    """
    if isinstance(sampler, LcmSampler):
        most, field = sampler.original_inference_steps, "original_inference_steps"
    else:
        most, field = sampler.num_train_timesteps, "num_train_timesteps"
    if not 1 <= steps <= most:
        raise InputError(f"steps must be 1 to {most}, the card's {field}; got {steps}")
    if isinstance(sampler, EulerFlowSampler):
        return EulerFlowScheduler(sampler, steps)
    return LcmScheduler(sampler, steps) if isinstance(sampler, LcmSampler) else DdimScheduler(sampler, steps)


class _VariancePreserving(Scheduler):
    """noisy = sqrt(a) * clean + sqrt(1 - a) * noise, a falling from 1 to 0 along the timesteps."""

    def __init__(self, sampler: DdimSampler | LcmSampler) -> None:
        self._sampler = sampler
        self._alphas = _alphas_cumprod(sampler)
        self._final_alpha = np.float32(1.0) if sampler.set_alpha_to_one else self._alphas[0]

    def _clean(self, prediction: FloatTensor, noisy: FloatTensor, alpha: np.float32) -> FloatTensor:
        signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
        if self._sampler.prediction_type == "sample":
            clean = prediction
        elif self._sampler.prediction_type == "epsilon":
            clean = (noisy - noise * prediction) / signal
        else:
            clean = signal * noisy - noise * prediction
        return _float(np.clip(clean, -1.0, 1.0) if self._sampler.clip_sample else clean)

    def _epsilon(self, prediction: FloatTensor, noisy: FloatTensor, alpha: np.float32) -> FloatTensor:
        signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
        if self._sampler.prediction_type == "sample":
            return _float((noisy - signal * prediction) / noise)
        if self._sampler.prediction_type == "epsilon":
            return prediction
        return _float(signal * prediction + noise * noisy)


class DdimScheduler(_VariancePreserving):
    """Deterministic DDIM (eta = 0)."""

    def __init__(self, sampler: DdimSampler, steps: int) -> None:
        super().__init__(sampler)
        timesteps = _spaced_timesteps(sampler, steps)
        if timesteps[0] >= sampler.num_train_timesteps:
            raise InputError(
                f"{steps} steps with steps_offset {sampler.steps_offset} start at timestep {timesteps[0]}, "
                f"the schedule ends at {sampler.num_train_timesteps - 1}"
            )
        self._integers = timesteps
        self._stride = sampler.num_train_timesteps // steps
        self.timesteps = timesteps.astype(np.float32)

    def step(
        self, index: int, prediction: FloatTensor, noisy_latent: FloatTensor, noise: FloatTensor | None = None
    ) -> FloatTensor:
        """See `Scheduler`."""
        timestep = int(self._integers[index])
        previous = timestep - self._stride
        alpha = self._alphas[timestep]
        target = self._alphas[previous] if previous >= 0 else self._final_alpha
        clean = self._clean(prediction, noisy_latent, alpha)
        epsilon = self._epsilon(prediction, noisy_latent, alpha)
        return _float(np.sqrt(target) * clean + np.sqrt(1 - target) * epsilon)


class LcmScheduler(_VariancePreserving):
    """A clean latent at every step, which is then noised again for the next one."""

    noise_per_step = True

    def __init__(self, sampler: LcmSampler, steps: int) -> None:
        super().__init__(sampler)
        stride = sampler.num_train_timesteps // sampler.original_inference_steps
        distilled = (np.arange(sampler.original_inference_steps, 0, -1) * stride - 1).astype(np.int64)
        chosen = np.floor(np.linspace(0, len(distilled), num=steps, endpoint=False)).astype(np.int64)
        self._integers = distilled[chosen]
        self._scaling = sampler.timestep_scaling
        self.timesteps = self._integers.astype(np.float32)

    def step(
        self, index: int, prediction: FloatTensor, noisy_latent: FloatTensor, noise: FloatTensor | None = None
    ) -> FloatTensor:
        """See `Scheduler`."""
        timestep = int(self._integers[index])
        scaled = timestep * self._scaling
        skip = np.float32(_SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2))
        out = np.float32(scaled / math.sqrt(scaled**2 + _SIGMA_DATA**2))
        clean = out * self._clean(prediction, noisy_latent, self._alphas[timestep]) + skip * noisy_latent
        if index == len(self._integers) - 1:
            return _float(clean)
        assert noise is not None
        alpha = self._alphas[int(self._integers[index + 1])]
        return _float(np.sqrt(alpha) * clean + np.sqrt(1 - alpha) * noise)


class EulerFlowScheduler(Scheduler):
    """Flow matching, noisy = (1 - sigma) * clean + sigma * noise, integrated with Euler steps."""

    def __init__(self, sampler: EulerFlowSampler, steps: int) -> None:
        count = sampler.num_train_timesteps
        # diffusers spaces the steps evenly between the ends of the shifted schedule and then shifts once more.
        last = _shifted(np.float32(1.0 / count), sampler.shift)
        sigmas = _shifted(np.linspace(1.0, float(last), steps), sampler.shift).astype(np.float32)
        self.timesteps = sigmas * np.float32(count)
        self._sigmas = np.append(sigmas, np.float32(0.0))

    def step(
        self, index: int, prediction: FloatTensor, noisy_latent: FloatTensor, noise: FloatTensor | None = None
    ) -> FloatTensor:
        """See `Scheduler`."""
        return _float(noisy_latent + (self._sigmas[index + 1] - self._sigmas[index]) * prediction)


def _float(values: npt.NDArray[np.floating]) -> FloatTensor:
    return np.asarray(values, np.float32)


def _shifted(sigmas: npt.NDArray[np.floating] | np.floating, shift: float) -> npt.NDArray[np.floating]:
    return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas))


def _alphas_cumprod(sampler: DdimSampler | LcmSampler) -> FloatTensor:
    """(num_train_timesteps,), share of the signal's variance."""
    betas = _betas(sampler)
    if sampler.rescale_betas_zero_snr:
        signal = np.sqrt(np.cumprod(1 - betas, dtype=np.float32))
        signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
        power = signal**2
        betas = 1 - np.concatenate([power[:1], power[1:] / power[:-1]])
    return np.cumprod(1 - betas, dtype=np.float32)


def _betas(sampler: DdimSampler | LcmSampler) -> FloatTensor:
    count = sampler.num_train_timesteps
    if sampler.beta_schedule == "squaredcos_cap_v2":
        angles = (np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2
        power = np.cos(angles) ** 2
        return _float(np.minimum(1 - power[1:] / power[:-1], 0.999))
    if sampler.beta_schedule == "linear":
        return np.linspace(sampler.beta_start, sampler.beta_end, count, dtype=np.float32)
    return _float(
        np.square(np.linspace(math.sqrt(sampler.beta_start), math.sqrt(sampler.beta_end), count, dtype=np.float32))
    )


def _spaced_timesteps(sampler: DdimSampler, steps: int) -> npt.NDArray[np.int64]:
    count = sampler.num_train_timesteps
    if sampler.timestep_spacing == "linspace":
        return np.linspace(0, count - 1, steps).round()[::-1].astype(np.int64)
    if sampler.timestep_spacing == "leading":
        return (np.arange(steps)[::-1] * (count // steps) + sampler.steps_offset).astype(np.int64)
    return np.round(np.arange(count, 0, -count / steps)).astype(np.int64) - 1
