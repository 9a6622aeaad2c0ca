"""Models of several steps through the public door, on real ONNX graphs with outputs known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from model_factory import edit_card, write_model
from sampled_model_factory import DDIM, LATENT_CHANNELS, write_prompted_model, write_sampled_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import CARD_NAME, CardError, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.sampling.ensemble import ensemble_depth


SIZE = (128, 96)
"""Of the picture and of the graphs' input: nothing is resized."""
SHAPE = (1, LATENT_CHANNELS, SIZE[1] // 8, SIZE[0] // 8)
FLOW = {
    "scheduler": "euler_flow",
    "num_inference_steps": 3,
    "latent_channels": LATENT_CHANNELS,
    "shift": 3.0,
}
LCM = {name: value for name, value in DDIM.items() if name != "timestep_spacing"} | {"scheduler": "lcm"}


def load(folder: Path, **options: Any) -> Estimator:
    return Estimator.load(write_sampled_model(folder / "tiny", **options), backend="cpu", threads=1)


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Cells of 8 x 8 pixels in colours away from black and white, so that nothing is clipped."""
    cells = np.random.default_rng(5).integers(90, 150, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
    return cells.repeat(8, axis=0).repeat(8, axis=1)


def noise_of(seed: int, members: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((members, *SHAPE[1:]), dtype=np.float32)


def image_latent(rgb: np.ndarray) -> np.ndarray:
    return (2 * rgb[::8, ::8].astype(np.float32) / 255 - 1).transpose(2, 0, 1)[None]


def denoised(scheduler: Any, steps: int, image: np.ndarray, latent: np.ndarray, gain: float) -> np.ndarray:
    """The clean latent with diffusers' scheduler and the closed form of the denoising graph."""
    scheduler.set_timesteps(steps)
    sample = torch.from_numpy(latent)
    for timestep in scheduler.timesteps:
        prediction = torch.from_numpy(image) + gain * sample + 1e-4 * float(timestep)
        sample = scheduler.step(prediction, timestep, sample).prev_sample
    return sample.numpy()


def depth_of(latent: np.ndarray) -> np.ndarray:
    depth = np.clip(((latent + 1) / 2).mean(axis=1)[0], 0, 1)
    return depth.repeat(8, axis=0).repeat(8, axis=1)


def ddim() -> DDIMScheduler:
    fields = {name: DDIM[name] for name in ("beta_schedule", "beta_start", "beta_end", "timestep_spacing")}
    return DDIMScheduler(**fields, prediction_type="sample", clip_sample=False)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_ddim_of_three_graphs(tmp_path: Path, rgb: np.ndarray, steps: int) -> None:
    estimator = load(tmp_path, gain=0.05)
    prediction = estimator.predict(rgb, steps=steps)
    latent = denoised(ddim(), steps, image_latent(rgb), noise_of(0), 0.05)
    np.testing.assert_allclose(prediction.depth_relative, depth_of(latent), atol=1e-5)
    assert prediction.depth_quantity == "relative_depth"
    assert prediction.confidence is None
    normals = latent[0] * np.array([1, -1, -1])[:, None, None]
    normals = (normals / np.linalg.norm(normals, axis=0)).transpose(1, 2, 0).repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_allclose(prediction.normals, normals, atol=1e-4)


@pytest.mark.parametrize("steps", [None, 1, 7])
def test_flow_matching_of_three_graphs(tmp_path: Path, rgb: np.ndarray, steps: int | None) -> None:
    estimator = load(tmp_path, gain=0.9, sampler=FLOW)
    prediction = estimator.predict(rgb, steps=steps)
    latent = denoised(FlowMatchEulerDiscreteScheduler(shift=3.0), steps or 3, image_latent(rgb), noise_of(0), 0.9)
    np.testing.assert_allclose(prediction.depth_relative, depth_of(latent), atol=1e-5)


def test_lcm_is_steady(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = load(tmp_path, sampler=LCM)
    first, second = estimator.predict(rgb, steps=4), estimator.predict(rgb, steps=4)
    np.testing.assert_array_equal(first.depth_relative, second.depth_relative)
    assert np.abs(first.depth_relative - estimator.predict(rgb, steps=1).depth_relative).max() > 1e-3


def test_guidance_moves_away_from_the_empty_prompt(tmp_path: Path, rgb: np.ndarray) -> None:
    """With one step from zeros the clean latent is the prediction: empty = 0, prompt = image latent + 0.0999."""
    expected = image_latent(rgb) + 1e-4 * 999
    for scale in (1.0, 1.5):
        sampler = {"guidance_scale": scale, "start": "zeros"}
        estimator = load(tmp_path / str(scale), conditional=True, sampler=sampler)
        depth = estimator.predict(rgb, steps=1).depth_relative
        np.testing.assert_allclose(depth, depth_of(scale * expected), atol=1e-5)


def test_guidance_needs_a_conditional_graph(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"guidance_scale 2\.0, but its denoising graph lacks the input 'conditional'"):
        load(tmp_path, sampler={"guidance_scale": 2.0})


def test_start_from_zeros(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = load(tmp_path, sampler={"start": "zeros"})
    latent = denoised(ddim(), 2, image_latent(rgb), np.zeros(SHAPE, np.float32), 0.1)
    np.testing.assert_allclose(estimator.predict(rgb).depth_relative, depth_of(latent), atol=1e-5)
    with pytest.raises(InputError, match="starts from no noise: all 3 samples of an ensemble would be equal"):
        estimator.predict(rgb, ensemble_size=3)


def test_members_of_an_ensemble_are_merged(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = load(tmp_path, gain=0.05)
    merged = estimator.predict(rgb, ensemble_size=3)
    latents = [denoised(ddim(), 2, image_latent(rgb), noise, 0.05) for noise in np.split(noise_of(0, 3), 3)]
    depth, spread = ensemble_depth(np.stack([depth_of(latent) for latent in latents]))
    np.testing.assert_allclose(merged.depth_relative, depth, atol=1e-4)
    np.testing.assert_allclose(merged.confidence, np.exp(-spread / 0.05), atol=1e-3)
    assert merged.normals_confidence is not None
    assert 0 < merged.normals_confidence.min() <= merged.normals_confidence.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(merged.normals, axis=2), 1, atol=1e-4)


def test_settings_come_from_the_card_and_can_change(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = load(tmp_path, sampler={"num_inference_steps": 3, "ensemble_size": 2})
    sampling = estimator.check_sampling()
    assert (sampling.steps, sampling.ensemble_size) == (3, 2)
    two = estimator.predict(rgb)
    one = estimator.predict(rgb, steps=5, ensemble_size=1)
    assert two.confidence is not None
    assert one.confidence is None
    estimator.warm_up()
    np.testing.assert_array_equal(estimator.predict(rgb).depth_relative, two.depth_relative)
    with pytest.raises(InputError, match="steps must be 1 to 1000"):
        estimator.predict(rgb, steps=0)
    with pytest.raises(InputError, match="ensemble size must be at least 1"):
        estimator.predict(rgb, ensemble_size=0)
    with pytest.raises(InputError, match="unknown merging 'mean': choose one of aligned_median"):
        estimator.predict(rgb, merging="mean")


def test_one_step_models_say_so(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = Estimator.load(write_model(tmp_path / "fused"), "cpu", threads=1)
    sampling = estimator.check_sampling()
    assert (sampling.steps, sampling.ensemble_size) == (1, 1)
    with pytest.raises(InputError, match="model 'fused' predicts in one step"):
        estimator.predict(rgb, steps=2)
    with pytest.raises(InputError, match="starts from no noise"):
        estimator.predict(rgb, ensemble_size=2)
    with pytest.raises(InputError, match="takes no noise: there is no noise mode 'random'"):
        estimator.predict(rgb, noise_mode="random")
    with pytest.raises(InputError, match="takes no noise: it has no seed"):
        estimator.predict(rgb, seed=1)


def test_noise_from_picture_to_picture(tmp_path: Path, rgb: np.ndarray) -> None:
    estimator = load(tmp_path, gain=0.05, sampler={"num_inference_steps": 1})
    fixed = [estimator.predict(rgb).depth_relative for _ in range(2)]
    np.testing.assert_array_equal(*fixed)
    new = [estimator.predict(rgb, noise_mode="random").depth_relative for _ in range(2)]
    assert np.abs(new[0] - new[1]).max() > 1e-3
    carried = [estimator.predict(rgb, noise_mode="carry", stream="a").depth_relative for _ in range(2)]
    np.testing.assert_array_equal(carried[0], fixed[0])  # nothing to carry yet
    latent = denoised(ddim(), 1, image_latent(rgb), noise_of(0), 0.05)
    latent = denoised(ddim(), 1, image_latent(rgb), 0.9 * noise_of(0) + 0.1 * latent, 0.05)
    np.testing.assert_allclose(carried[1], depth_of(latent), atol=1e-5)
    np.testing.assert_array_equal(estimator.predict(rgb, noise_mode="carry", stream="b").depth_relative, fixed[0])
    estimator.forget("a")
    np.testing.assert_array_equal(estimator.predict(rgb, noise_mode="carry", stream="a").depth_relative, fixed[0])
    with pytest.raises(InputError, match="unknown noise mode 'new': choose one of fixed, carry, random"):
        estimator.predict(rgb, noise_mode="new")


def test_a_fused_graph_can_carry_its_latent(tmp_path: Path, rgb: np.ndarray) -> None:
    outputs = [{"task": "alpha", "tensor": "latent", "range": [0.0, 1.0]}]
    folder = write_prompted_model(tmp_path / "fused", ["alpha"], prompts=["noise"], card={"outputs": outputs})
    estimator = Estimator.load(folder, "cpu", threads=1)
    red, noise = rgb[..., 0] / 255, np.random.default_rng(0).standard_normal((96, 128), dtype=np.float32)
    np.testing.assert_allclose(estimator.predict(rgb).alpha, np.clip(red + 0.1 * noise, 0, 1), atol=1e-5)
    estimator.predict(rgb, noise_mode="carry")
    carried = 0.9 * noise + 0.1 * (red + 0.1 * noise)
    carry = estimator.predict(rgb, noise_mode="carry").alpha
    np.testing.assert_allclose(carry, np.clip(red + 0.1 * carried, 0, 1), atol=1e-5)


def test_only_models_that_tell_their_latent_can_carry_it(tmp_path: Path) -> None:
    noise = {"tensor": "noise", "channels": 4, "downscale": 8}
    folder = write_model(tmp_path / "fused", noise=noise)
    with pytest.raises(InputError, match="does not tell its latent: there is no noise mode 'carry'"):
        Estimator.load(folder, "cpu", threads=1).check_sampling(noise_mode="carry")
    edit_card(folder, noise=noise | {"mode": "carry"})
    with pytest.raises(CardError, match=r"'noise\.mode: carry' needs 'noise\.latent_tensor'"):
        read_card(folder)


def test_the_cards_seed(tmp_path: Path, rgb: np.ndarray) -> None:
    noise = {"tensor": "noisy_latent", "channels": LATENT_CHANNELS, "downscale": 8, "seed": 7}
    estimator = load(tmp_path, gain=0.05, card={"noise": noise})
    latent = denoised(ddim(), 2, image_latent(rgb), noise_of(7), 0.05)
    np.testing.assert_allclose(estimator.predict(rgb).depth_relative, depth_of(latent), atol=1e-5)


def test_drawings_of_sampled_models(tmp_path: Path, rgb: np.ndarray) -> None:
    """Any output works behind any sampler; from zeros with gain 0 the drawing is the picture, brightened by time."""
    estimator = load(tmp_path, tasks=["albedo", "shading"], gain=0.0, sampler={"start": "zeros"})
    prediction = estimator.predict(rgb, steps=1)
    drawn = rgb / 255 + 0.5e-4 * 999
    np.testing.assert_allclose(prediction.albedo, drawn, atol=1e-5)
    np.testing.assert_allclose(prediction.shading, drawn / 2, atol=1e-5)


def change_sampler(folder: Path, **changes: Any) -> None:
    sampler = yaml.safe_load((folder / CARD_NAME).read_text())["sampler"] | changes
    edit_card(folder, sampler={name: value for name, value in sampler.items() if value is not ...})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheduler": "euler"}, "sampler"),
        ({"scheduler": "euler_flow"}, "sampler.euler_flow.prediction_type"),
        ({"shift": 3.0}, "sampler.ddim.shift: Extra inputs are not permitted"),
        ({"beta_schedule": "sigmoid"}, "sampler.ddim.beta_schedule: Input should be"),
        ({"timestep_spacing": ...}, "sampler.ddim.timestep_spacing: Field required"),
        ({"num_inference_steps": 0}, "sampler.ddim.num_inference_steps: Input should be greater"),
        ({"num_inference_steps": 1001}, "num_inference_steps 1001 is more than num_train_timesteps 1000"),
        ({"guidance_scale": 0.5}, "sampler.ddim.guidance_scale: Input should be greater"),
        ({"start": "zeros", "ensemble_size": 2}, "ensemble_size above 1 needs 'start: noise'"),
        ({"beta_start": 0.5}, "beta_start 0.5 is above beta_end 0.012"),
        ({"prediction_type": "velocity"}, "sampler.ddim.prediction_type: Input should be"),
        ({"prediction_type": "epsilon", "rescale_betas_zero_snr": True}, "leaves no signal"),
    ],
)
def test_contradiction_in_the_sampler_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = write_sampled_model(tmp_path / "tiny")
    change_sampler(folder, **changes)
    with pytest.raises(CardError) as error:
        read_card(folder)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graph": "encode.onnx"}, "give either 'graph' (one step) or 'graphs' and 'sampler'"),
        ({"graphs": ...}, "give either 'graph'"),
        ({"sampler": ...}, "'graphs' needs 'sampler'"),
        ({"graphs": ..., "graph": "encode.onnx"}, "'sampler' needs 'graphs'"),
        ({"graphs": {"encode": "a", "denoise": "b"}}, "graphs.decode: Field required"),
        ({"files": {"encode.onnx": "0", "decode.onnx": "0"}}, "lacks the sha256 of the graph 'denoise.onnx'"),
        ({"schema_version": 1}, "'graphs' needs schema_version 2, the card says 1"),
        (
            {"noise": {"tensor": "noise", "channels": 3, "downscale": 8}},
            "the 'sampler' implies ('noisy_latent', 3, 8)",
        ),
        (
            {"noise": {"tensor": "noisy_latent", "channels": 3, "downscale": 8, "latent_tensor": "x"}},
            "'noise.latent_tensor' is for a fused graph",
        ),
    ],
)
def test_contradiction_of_graphs_and_sampler_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = write_sampled_model(tmp_path / "tiny")
    edit_card(folder, **changes)
    with pytest.raises(CardError) as error:
        read_card(folder)
    assert words in str(error.value)


def test_graphs_must_have_the_stages_tensors(tmp_path: Path) -> None:
    folder = write_sampled_model(tmp_path / "tiny")
    edit_card(folder, graphs={"encode": "encode.onnx", "denoise": "decode.onnx", "decode": "decode.onnx"})
    with pytest.raises(CardError, match="names the input 'image_latent'"):
        Estimator.load(folder, "cpu")
    edit_card(folder, graphs={"encode": "encode.onnx", "denoise": "denoise.onnx", "decode": "decode.onnx"})
    change_sampler(folder, latent_channels=4)
    with pytest.raises(CardError, match=r"'noisy_latent' of .*denoise\.onnx has the shape"):
        Estimator.load(folder, "cpu")
