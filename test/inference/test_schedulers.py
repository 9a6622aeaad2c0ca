"""The NumPy schedulers against those of diffusers: the same timesteps, the same steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from diffusers.schedulers import scheduling_lcm

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import DdimSampler, EulerFlowSampler, LcmSampler
from diffusion_perception_ros.inference.sampling.schedulers import make_scheduler


SHAPE = (1, 4, 6, 8)
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENTS = {"latent_channels": 4, "latent_downscale": 8, "num_inference_steps": 4}


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


def network(latent: np.ndarray, timestep: float) -> np.ndarray:
    """Any function of the noisy latent and the time, in place of a denoiser."""
    return (0.8 * np.sin(2 * latent + 1e-3 * timestep) + 0.1).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 50])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "fields",
    [
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        {"timestep_spacing": "trailing", "clip_sample": True},
        {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False},
        {"timestep_spacing": "linspace", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        {"timestep_spacing": "leading", "beta_schedule": "squaredcos_cap_v2"},
    ],
    ids=["trailing-zero-snr", "trailing-clip", "leading", "linspace", "cosine"],
)
def test_ddim(fields: dict[str, Any], prediction_type: str, steps: int) -> None:
    if prediction_type == "epsilon":  # it leaves no signal to find the clean latent from; the card refuses it
        fields = fields | {"rescale_betas_zero_snr": False}
    fields = {"clip_sample": False, **STABLE_DIFFUSION, **fields, "prediction_type": prediction_type}
    theirs = DDIMScheduler(**fields)
    theirs.set_timesteps(steps)
    ours = make_scheduler(DdimSampler(**LATENTS, **fields), steps)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    latent = expected = normal(0)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = network(expected, float(timestep))
        step = theirs.step(torch.from_numpy(prediction), timestep, torch.from_numpy(expected))
        latent = ours.step(index, prediction, latent)
        expected = step.prev_sample.numpy()
        np.testing.assert_allclose(latent, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
        assert latent.dtype == np.float32


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_lcm(monkeypatch: pytest.MonkeyPatch, prediction_type: str, steps: int) -> None:
    fields = {**STABLE_DIFFUSION, "prediction_type": prediction_type, "original_inference_steps": 50}
    theirs = LCMScheduler(**fields)
    theirs.set_timesteps(steps)
    ours = make_scheduler(LcmSampler(**LATENTS, **fields), steps)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    noise = normal(1)
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_args, **_options: torch.from_numpy(noise))
    latent = expected = normal(0)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = network(expected, float(timestep))
        step = theirs.step(torch.from_numpy(prediction), timestep, torch.from_numpy(expected))
        latent = ours.step(index, prediction, latent, noise)
        expected = step.prev_sample.numpy()
        np.testing.assert_allclose(latent, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("steps", [1, 2, 7, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_flow(shift: float, steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    ours = make_scheduler(EulerFlowSampler(**LATENTS, shift=shift), steps)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6)
    latent = expected = normal(0)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = network(expected, float(timestep))
        step = theirs.step(torch.from_numpy(prediction), timestep, torch.from_numpy(expected))
        latent = ours.step(index, prediction, latent)
        expected = step.prev_sample.numpy()
        np.testing.assert_allclose(latent, expected, atol=1e-5)


def test_one_flow_step_is_noise_minus_velocity() -> None:
    scheduler = make_scheduler(EulerFlowSampler(**LATENTS, shift=3.0), 1)
    noise, velocity = normal(0), normal(1)
    np.testing.assert_allclose(scheduler.step(0, velocity, noise), noise - velocity, atol=1e-6)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps(steps: int) -> None:
    with pytest.raises(InputError, match="steps must be 1 to 1000, the card's num_train_timesteps"):
        make_scheduler(EulerFlowSampler(**LATENTS), steps)
    sampler = LcmSampler(**LATENTS, **STABLE_DIFFUSION, prediction_type="epsilon")
    with pytest.raises(InputError, match="1 to 50, the card's original_inference_steps"):
        make_scheduler(sampler, 51)


def test_an_offset_beyond_the_schedule() -> None:
    """`leading` with 1000 steps starts at 999 already."""
    sampler = DdimSampler(
        **LATENTS, **STABLE_DIFFUSION, prediction_type="epsilon", timestep_spacing="leading", steps_offset=1
    )
    with pytest.raises(InputError, match="start at timestep 1000, the schedule ends at 999"):
        make_scheduler(sampler, 1000)


def test_noise_falls_from_step_to_step() -> None:
    fields = {**LATENTS, **STABLE_DIFFUSION, "prediction_type": "sample", "timestep_spacing": "trailing"}
    scheduler = make_scheduler(DdimSampler(**fields), 10)
    latent, clean = normal(0), np.zeros(SHAPE, np.float32)
    sizes = [np.abs(latent := scheduler.step(index, clean, latent)).max() for index in range(10)]
    assert all(before > after for before, after in pairwise(sizes))
    assert sizes[-1] == 0
