"""Scaling: the network, its export, and what its outputs mean, on small checkpoints in the published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from family_checkpoints_mm import SMALL_DIT, write_scaling, write_scaling_base

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.exporter import export_family, standard_noise
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.families import scaling
from diffusion_perception_ros.families.dit_moe import DiTMultiTaskMoE, mixture
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.card import DdimSampler, FlowOutput, ModelCard, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import UInt8Image


SIDE = SMALL_DIT.latent_side * 8
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and base."""
    root = tmp_path_factory.mktemp("scaling")
    return write_scaling(root / "checkpoint"), write_scaling_base(root / "base")


def load(folders: tuple[Path, Path], task: str, **settings: str) -> scaling.Scaling:
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    return scaling.load(str(folders[0]), task, LoadOptions(base=str(folders[1]), settings=named))


@pytest.fixture(scope="module")
def pictures() -> list[UInt8Image]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2)]


def as_tensor(rgb: UInt8Image) -> torch.Tensor:
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def flow_model(
    folders: tuple[Path, Path], pictures: list[UInt8Image], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelCard]:
    """Exported for several steps."""
    folder = tmp_path_factory.mktemp("models") / "flow"
    options = ExportOptions(name="flow", checkpoint="random", size=(SIDE, SIDE), steps=STEPS)
    return folder, export_family(load(folders, "flow"), folder, pictures, options)


def test_estimator_of_several_steps_is_the_network_with_the_scheduler_of_diffusers(
    folders: tuple[Path, Path], flow_model: tuple[Path, ModelCard], pictures: list[UInt8Image]
) -> None:
    model, (previous, rgb) = load(folders, "flow"), pictures
    estimator = Estimator.load(flow_model[0])
    assert estimator.predict(previous).flow is None  # there is no picture before it
    for steps in (STEPS, 7):
        scheduler = DDIMScheduler.from_pretrained(folders[1] / "scheduler")
        scheduler.set_timesteps(steps)
        with torch.inference_mode():
            image_latent = model.encode_prompted(as_tensor(rgb), second_image=as_tensor(previous))
            latent = standard_noise((1, 8, SIDE // 8, SIDE // 8), 0)
            for timestep in scheduler.timesteps:
                prediction = model.denoise(image_latent, latent, timestep[None].float())
                latent = scheduler.step(prediction, timestep, latent).prev_sample
            (flow,) = model.decode(latent)
        expected = (flow[0].permute(1, 2, 0) * scaling.FLOW_PIXELS * SIDE / 512).numpy()
        found = Estimator.load(flow_model[0])
        found.predict(previous, steps=1)
        result = found.predict(rgb, steps=steps).flow
        assert result is not None
        np.testing.assert_allclose(result, expected, atol=2e-4)


def test_card_says_what_the_numbers_mean(flow_model: tuple[Path, ModelCard]) -> None:
    folder, card = flow_model
    assert read_card(folder) == card
    (output,) = card.outputs
    assert isinstance(output, FlowOutput)
    assert output.scale == pytest.approx(75 * SIDE / 512)
    assert card.second_image is not None
    assert isinstance(card.sampler, DdimSampler)
    assert card.sampler.latent_channels == 8
    assert (card.sampler.prediction_type, card.sampler.beta_schedule) == ("v_prediction", "scaled_linear")
    assert (card.sampler.timestep_spacing, card.sampler.steps_offset) == ("leading", 1)
    assert card.licence_terms is not None
    assert not card.licence_terms.non_commercial
    assert max(card.parity.values()) < 1e-4


def test_a_single_step_with_dense_experts_finds_the_whole_object(
    folders: tuple[Path, Path], pictures: list[UInt8Image], tmp_path: Path
) -> None:
    model = load(folders, "amodal", experts="dense")
    model.autoencoder.vae.decoder.conv_out.bias.data += 0.8  # random weights draw grey: almost white now
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:30, 20:50] = 255
    with torch.inference_mode():
        prompt = torch.from_numpy(mask > 0).float()[None, None]
        noise = standard_noise((1, 4, SIDE // 8, SIDE // 8), 0)
        expected = model(as_tensor(pictures[0]), noise, prompt_mask=prompt)[0][0, 0].numpy()
    assert 0 < (expected >= 0.5).mean() < 1
    options = ExportOptions(name="amodal", checkpoint="random", size=(SIDE, SIDE))
    card = export_family(model, tmp_path / "amodal", pictures, options)
    assert card.graph is not None
    assert card.prompt_mask is not None
    estimator = Estimator.load(tmp_path / "amodal")
    assert estimator.predict(pictures[0]).mask is None  # nothing was asked for
    found = estimator.predict(pictures[0], prompt_mask=mask).mask
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dense", [False, True])
def test_experts_are_the_weighted_sum_of_the_two_best(dense: bool) -> None:
    torch.manual_seed(0)
    layer = mixture(SMALL_DIT, dense)
    tokens = torch.randn(2, 5, SMALL_DIT.width)
    expected = torch.zeros_like(tokens)
    for row in range(2):
        for column in range(5):
            token = tokens[row, column]
            scores = torch.softmax(layer.gate.weight @ token, dim=0)
            for index in scores.argsort(descending=True)[:2]:
                expected[row, column] += scores[index] * layer.experts[int(index)](token)
    torch.testing.assert_close(layer(tokens), expected, atol=1e-6, rtol=1e-5)


def test_members_of_an_ensemble_do_not_mix() -> None:
    torch.manual_seed(0)
    network = DiTMultiTaskMoE(SMALL_DIT).eval()
    parts = [torch.randn(2, 12, SMALL_DIT.latent_side, SMALL_DIT.latent_side) for _ in range(2)]
    timestep = torch.tensor([321.0])
    with torch.inference_mode():
        together = network(parts, timestep, (1002, 1003))
        alone = network([parts[1][1:]], timestep, (1003,))
    torch.testing.assert_close(together[1, 1:], alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_a_single_step_goes_from_the_last_timestep_to_the_clean_latent(
    folders: tuple[Path, Path], prediction_type: str
) -> None:
    model = load(folders, "depth", prediction_type=prediction_type, timestep_spacing="trailing")
    scheduler = DDIMScheduler.from_pretrained(folders[1] / "scheduler", prediction_type=prediction_type)
    scheduler.set_timesteps(1000)
    noise, prediction = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    expected = scheduler.step(prediction, torch.tensor(999), noise).pred_original_sample
    torch.testing.assert_close(model.clean_latent(prediction, noise), expected, rtol=1e-4, atol=1e-4)
    fields = model.card_sampler(5)
    assert (fields["prediction_type"], fields["timestep_spacing"]) == (prediction_type, "trailing")


def test_vertical_flow_counts_stretched_rows(folders: tuple[Path, Path]) -> None:
    model = load(folders, "flow")
    latent = torch.randn(1, 4, SMALL_DIT.latent_side, SMALL_DIT.latent_side)
    with torch.inference_mode():
        (flow,) = model.decode(torch.cat([latent, latent], dim=1))
    torch.testing.assert_close(flow[:, 1], flow[:, 0] * 512 / 384)


def test_white_is_no_object(folders: tuple[Path, Path]) -> None:
    model = load(folders, "amodal")
    picture = torch.ones(1, 3, 8, 8)
    picture[0, 1, :4] = 1 - 2 * 0.15  # one channel is 0.15 below white
    picture[0, :, 4] = 1 - 2 * 0.05
    model.autoencoder.decode = lambda latent: picture  # type: ignore[method-assign]
    (mask,) = model.decode(torch.zeros(1, 4, 1, 1))
    assert (mask[0, 0, :4] >= 0.5).all()
    assert (mask[0, 0, 4:] < 0.5).all()


def test_weights_without_averages_load_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    state = torch.load(folders[0] / "dit_moe_generalist.pt", weights_only=True)
    torch.save(state["ema"], tmp_path / "dit_moe_generalist.pt")
    load((tmp_path, folders[1]), "depth")


def test_wrong_settings_are_named(folders: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="'beta-schedule' is linear or scaled_linear or squaredcos_cap_v2"):
        load(folders, "depth", beta_schedule="cosine")
    with pytest.raises(InputError, match="no setting 'seed'"):
        load(folders, "depth", seed="3")
    with pytest.raises(InputError, match="no task 'normals'"):
        load(folders, "normals")


def test_wrong_checkpoints_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "dit_moe_generalist.pt"

    def loaded(content: object) -> None:
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        load((tmp_path, folders[1]), "depth")

    with pytest.raises(InputError, match=r"no file 'dit_moe_generalist\.pt'"):
        load((tmp_path, folders[1]), "depth")
    whole = (folders[0] / "dit_moe_generalist.pt").read_bytes()
    with pytest.raises(InputError, match="incomplete, so download it again"):
        loaded(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="holds code, which is never run"):
        loaded({"ema": Path("x")})
    with pytest.raises(InputError, match="does not hold the Scaling generalist"):
        loaded({"model": torch.zeros(1)})
    weights = torch.load(folders[0] / "dit_moe_generalist.pt", weights_only=True)["ema"]
    with pytest.raises(InputError, match=r"attn\.qkv\.weight"):
        loaded({name: value for name, value in weights.items() if "qkv" not in name})
    base = shutil.copytree(folders[1], tmp_path / "base", ignore=shutil.ignore_patterns("vae"))
    with pytest.raises(InputError, match="the part 'vae' of the checkpoint"):
        load((folders[0], base), "depth")


def test_other_sizes_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = ExportOptions(name="depth", checkpoint="random", size=(128, 96), steps=2)
    with pytest.raises(InputError, match=f"give --size {SIDE}x{SIDE}"):
        export_family(load(folders, "depth"), tmp_path / "depth", [], options)
    assert not (tmp_path / "depth").exists()
