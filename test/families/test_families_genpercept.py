"""GenPercept: the recipe against plain diffusers parts, both published layouts, and every kind of output exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from family_checkpoints import teach_decoder
from family_checkpoints_gen import write_genpercept
from rendered_room import PLANES, render_room
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families import genpercept
from diffusion_perception_ros.families.genpercept import ALL_IN_ONE, RECIPES, UNET_FOLDERS
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


SIZE = (96, 64)
TASKS = ("depth", "disparity", "normals", "dis", "matting", "seg")
COLORS = {label.name: label.color for label in RECIPES[-1].outputs[0].labels}  # type: ignore[union-attr]
ROOM_CLASSES = ("floor", "ceiling", "wall", "wall", "wall")
"""Of the planes of `rendered_room`."""


@pytest.fixture(scope="module")
def all_tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadOptions]:
    """The repository with a U-Net for every task, and where its base is."""
    folder = tmp_path_factory.mktemp("genpercept")
    unets = [name for (_, variant), name in UNET_FOLDERS.items() if not variant]
    checkpoint = write_genpercept(folder / "models", folder / "base", unets)
    return checkpoint, LoadOptions(base=str(folder / "base"))


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadOptions]:
    """The repository of the DPT head alone."""
    folder = tmp_path_factory.mktemp("genpercept_dpt")
    checkpoint = write_genpercept(folder / "disparity-dpt-head", folder / "base", dpt=True)
    return checkpoint, LoadOptions(base=str(folder / "base"))


def pictures(count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, SIZE[1], SIZE[0], generator=generator) * 2 - 1


def smooth_picture() -> np.ndarray:
    """(H, W, 3) uint8."""
    small = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC)


def published_prediction(unet: Path, base: Path, task: str) -> torch.Tensor:
    """The pipeline's steps with plain parts, for `pictures()`: one with all noise, the picture's latent for it."""
    scheduler = DDIMScheduler(
        beta_start=1.0,
        beta_end=1.0,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    scheduler.set_timesteps(1)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    tokens = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")("", return_tensors="pt").input_ids
    text = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")(tokens)[0]
    latent = vae.encode(pictures()).latent_dist.mean * 0.18215
    timestep = scheduler.timesteps[0]
    velocity = UNet2DConditionModel.from_pretrained(unet)(latent, timestep, text).sample
    clean = scheduler.step(velocity, timestep, latent).pred_original_sample
    decoded = vae.decode(clean / 0.18215).sample
    if task not in ("normals", "seg"):
        decoded = decoded.mean(dim=1, keepdim=True)
    return (decoded.clip(-1, 1) + 1) / 2


@pytest.mark.parametrize("task", TASKS)
def test_one_step_is_the_published_recipe(all_tasks: tuple[Path, LoadOptions], task: str) -> None:
    checkpoint, options = all_tasks
    model = genpercept.load(str(checkpoint), task, options)
    with torch.inference_mode():
        (output,) = model(pictures())
        expected = published_prediction(checkpoint / UNET_FOLDERS[task, ""], Path(str(options.base)), task)
    if task == "normals":
        output = (output + 1) / 2  # ours are vectors, the published code writes a picture
    np.testing.assert_allclose(output.numpy(), expected.numpy(), atol=1e-4)
    assert expected.std() > 0.1


def test_repositories_of_one_task_have_one_unet(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = all_tasks
    shutil.copytree(checkpoint / "unet_matting_v2", tmp_path / "unet")
    outputs = []
    for folder in (checkpoint, tmp_path):
        with torch.inference_mode():
            outputs += genpercept.load(str(folder), "matting", options)(pictures())
    assert torch.equal(outputs[0], outputs[1])


def test_a_whole_pipeline_needs_no_base(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = all_tasks
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(Path(str(options.base)) / part, tmp_path / part)
    shutil.copytree(checkpoint / "unet_depth_v2", tmp_path / "unet")
    with torch.inference_mode():
        (output,) = genpercept.load(str(tmp_path), "depth", LoadOptions(base="nobody/nothing"))(pictures())
        (expected,) = genpercept.load(str(checkpoint), "depth", options)(pictures())
    assert torch.equal(output, expected)


def test_a_trained_decoder_takes_the_place_of_the_bases(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = all_tasks
    shutil.copytree(checkpoint / "unet_depth_v2", tmp_path / "unet")
    vae = AutoencoderKL.from_pretrained(Path(str(options.base)) / "vae")
    for name, part in (("vae_decoder", vae.decoder), ("vae_post_quant_conv", vae.post_quant_conv)):
        (tmp_path / name).mkdir()
        save_file({key: 0 * value for key, value in part.state_dict().items()}, tmp_path / name / "model.safetensors")
    with torch.inference_mode():
        (output,) = genpercept.load(str(tmp_path), "depth", options)(pictures())
    assert torch.equal(output, torch.full_like(output, 0.5))


def test_the_dpt_head_normalises_every_picture_alone(dpt: tuple[Path, LoadOptions]) -> None:
    checkpoint, options = dpt
    model = genpercept.load(str(checkpoint), "disparity", options)
    assert model.recipe.variant == "dpt"
    batch = pictures(2)
    batch[1] *= 0.1
    with torch.inference_mode():
        (together,) = model(batch)
        alone = torch.cat([model(picture[None])[0] for picture in batch])
    assert together.shape == (2, 1, SIZE[1], SIZE[0])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-4)
    np.testing.assert_array_equal(together.amin(dim=(1, 2, 3)), [0, 0])
    np.testing.assert_array_equal(together.amax(dim=(1, 2, 3)), [1, 1])


def test_the_head_can_be_asked_for(tmp_path: Path) -> None:
    """Where the repository of all tasks has both, the VAE decodes unless told otherwise."""
    unets = ("unet_disparity_v2", "unet_disparity_dpt_head_v2")
    checkpoint = write_genpercept(tmp_path / "models", tmp_path / "base", unets, dpt=True)
    base = str(tmp_path / "base")
    for settings, variant in (({}, ""), ({"head": "vae"}, ""), ({"head": "dpt"}, "dpt")):
        model = genpercept.load(str(checkpoint), "disparity", LoadOptions(base=base, settings=settings))
        assert model.recipe.variant == variant
    with pytest.raises(InputError, match="no published recipe for the task 'depth' of variant 'dpt'"):
        genpercept.load(str(checkpoint), "depth", LoadOptions(base=base, settings={"head": "dpt"}))
    with pytest.raises(InputError, match="the setting 'head' is"):
        genpercept.load(str(checkpoint), "depth", LoadOptions(base=base, settings={"head": "unet"}))


def predict(tmp_path: Path, rgb: np.ndarray, task: str, checkpoint: Path, base: str | None) -> Prediction:
    """Exports through the command line and runs the graph on `rgb`."""
    words = ["export", "genpercept", "--checkpoint", str(checkpoint), "--base", str(base), "--task", task]
    words += ["--size", f"{rgb.shape[1]}x{rgb.shape[0]}", "--check-pictures", "2", "-o", str(tmp_path / "model")]
    assert main(words) == 0
    card = read_card(tmp_path / "model")
    assert card.licence_terms is not None
    assert card.licence_terms.non_commercial
    assert max(card.parity.values()) < 1e-4
    return Estimator.load(tmp_path / "model").predict(rgb)


def test_the_dpt_head_exports(dpt: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    rgb = smooth_picture()
    checkpoint, options = dpt
    prediction = predict(tmp_path, rgb, "disparity", checkpoint, options.base)
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.inference_mode():
        (expected,) = genpercept.load(str(checkpoint), "disparity", options)(image)
    assert prediction.depth_quantity == "relative_disparity"
    assert prediction.depth_relative is not None
    np.testing.assert_allclose(prediction.depth_relative, expected[0, 0].numpy(), atol=1e-4)


def test_the_dpt_head_doubles_whole_features_only(
    dpt: tuple[Path, LoadOptions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, options = dpt
    words = ["export", "genpercept", "--checkpoint", str(checkpoint), "--base", str(options.base)]
    assert main([*words, "--task", "disparity", "--size", "96x48", "-o", str(tmp_path / "model")]) == 2
    assert "multiples of 32: the nearest size is 96x64" in capsys.readouterr().err


def test_mattes_export(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    rgb = smooth_picture()
    checkpoint, options = all_tasks
    prediction = predict(tmp_path, rgb, "dis", checkpoint, options.base)
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.inference_mode():
        (expected,) = genpercept.load(str(checkpoint), "dis", options)(image)
    assert prediction.alpha is not None
    np.testing.assert_allclose(prediction.alpha, expected[0, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize("task", ["normals", "seg"])
def test_a_room_comes_out_as_it_was_learnt(tmp_path: Path, task: str) -> None:
    """A checkpoint that has learnt one room, exported and run: normals in the optical frame, classes by colour."""
    rgb, plane, normals, _ = render_room(64, 48)
    checkpoint = write_genpercept(tmp_path / "checkpoint", tmp_path / "base")
    options = LoadOptions(base=str(tmp_path / "base"))
    if task == "normals":
        target = normals * np.array([1, -1, -1], np.float32)
    else:
        target = np.array([COLORS[name] for name in ROOM_CLASSES], np.float32)[plane] / 127.5 - 1
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.no_grad():
        latent = genpercept.load(str(checkpoint), task, options).one_step(image)
    teach_decoder(tmp_path / "base", latent, torch.from_numpy(target.transpose(2, 0, 1).copy())[None])
    prediction = predict(tmp_path, rgb, task, checkpoint, options.base)
    for index, (name, (normal, _)) in enumerate(PLANES.items()):
        if task == "normals":
            assert prediction.normals is not None
            cosines = prediction.normals[plane == index] @ np.array(normal, np.float32)
            angle = np.degrees(np.median(np.arccos(np.clip(cosines, -1, 1))))
            assert angle < 15, f"{name}: {angle:.0f} degrees off"
        else:
            assert prediction.semantic is not None
            labels = list(COLORS)
            ids = prediction.semantic[plane == index]
            assert labels[np.bincount(ids).argmax()] == ROOM_CLASSES[index], name


def test_classes_are_those_of_hypersim() -> None:
    output = RECIPES[-1].outputs[0]
    assert output.task == "semantic"
    assert output.encoding == "colors"
    assert len(output.labels) == 41
    assert output.labels[22].name == "ceiling"


def test_a_missing_unet_names_both_layouts(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither 'unet_normal_v2' .* nor 'unet'"):
        genpercept.load(str(tmp_path), "normals", all_tasks[1])


def test_a_missing_base_is_named(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        genpercept.load(str(all_tasks[0]), "depth", LoadOptions(base=str(tmp_path)))


def test_another_networks_head_is_refused(dpt: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = dpt
    shutil.copytree(checkpoint, tmp_path / "copy")
    path = tmp_path / "copy" / "dpt_head_identity" / "model.safetensors"
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if name != "head.projection.bias"}, path)
    with pytest.raises(InputError, match=r"model\.safetensors does not fit.*head\.projection\.bias"):
        genpercept.load(str(tmp_path / "copy"), "disparity", options)
    save_file({"decoder.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"lacks 'neck\.convs\.0\.weight'"):
        genpercept.load(str(tmp_path / "copy"), "disparity", options)


def test_a_unet_with_noise_channels_is_refused(dpt: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = dpt
    shutil.copytree(checkpoint, tmp_path / "copy")
    config = tmp_path / "copy" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 8}))
    with pytest.raises(InputError, match="has in_channels 8, this family and task need 4"):
        genpercept.load(str(tmp_path / "copy"), "disparity", options)


def test_there_is_neither_noise_nor_a_second_step(all_tasks: tuple[Path, LoadOptions], tmp_path: Path) -> None:
    checkpoint, options = all_tasks
    words = ["export", "genpercept", "--checkpoint", str(checkpoint), "--base", str(options.base), "--task", "depth"]
    words += ["--size", "64x64", "-o", str(tmp_path / "model")]
    for wrong in (["--steps", "4"], ["--ensemble", "5"], ["--noise", "input"]):
        assert main([*words, *wrong]) == 2
    assert not (tmp_path / "model").exists()


def test_every_task_is_published_in_the_repository_of_all() -> None:
    assert all(recipe.checkpoints[0] == ALL_IN_ONE for recipe in RECIPES)
    assert {(recipe.task, recipe.variant) for recipe in RECIPES} == set(UNET_FOLDERS)
