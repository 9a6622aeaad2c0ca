"""Lotus: the recipe against plain diffusers parts, and normals that mean what they should after export."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from family_checkpoints import TWO_LEVELS, teach_decoder, write_lotus
from rendered_room import PLANES, render_room
from transformers import CLIPTextModel, CLIPTokenizer

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families import lotus
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator


SIZE = (64, 48)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Lotus-D and a Lotus-G checkpoint."""
    folder = tmp_path_factory.mktemp("lotus")
    return {variant: write_lotus(folder / variant, variant) for variant in "dg"}


def picture_tensor(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("variant", "task"), [("d", "depth"), ("g", "disparity"), ("d", "normals")])
def test_one_step_is_the_published_recipe(checkpoints: dict[str, Path], variant: str, task: str) -> None:
    folder = checkpoints[variant]
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    tokens = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")("", return_tensors="pt").input_ids
    image, noise = picture_tensor(), torch.randn(1, 4, SIZE[1] // 8, SIZE[0] // 8)
    with torch.no_grad():
        text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")(tokens)[0]
        latent = vae.encode(image).latent_dist.mean * 0.18215
        task_embedding = torch.tensor([[math.sin(1), 0.0, math.cos(1), 1.0]])
        stacked = torch.cat([latent, noise], dim=1) if variant == "g" else latent
        clean = unet(stacked, 999, text, class_labels=task_embedding).sample
        expected = (vae.decode(clean / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        model = lotus.load(str(folder), task, LoadOptions())
        (output,) = model(image, noise)
    assert tokens.shape == (1, 2)
    if task == "normals":
        np.testing.assert_allclose(output.numpy() / 2 + 0.5, expected.numpy(), atol=1e-5)
    else:
        np.testing.assert_allclose(output.numpy(), expected.mean(dim=1, keepdim=True).numpy(), atol=1e-5)


def test_the_unet_says_whether_it_is_d_or_g(checkpoints: dict[str, Path]) -> None:
    for variant, folder in checkpoints.items():
        recipe = lotus.load(str(folder), "depth", LoadOptions()).recipe
        assert recipe.variant == variant
        assert recipe.checkpoints == (f"jingheya/lotus-depth-{variant}-v1-0",)


def test_lotus_d_ignores_noise(checkpoints: dict[str, Path]) -> None:
    model = lotus.load(str(checkpoints["d"]), "depth", LoadOptions())
    noise = torch.randn(1, 4, SIZE[1] // 8, SIZE[0] // 8)
    with torch.no_grad():
        without, with_noise = model(picture_tensor())[0], model(picture_tensor(), noise)[0]
    assert torch.equal(without, with_noise)


def test_depth_and_disparity_differ_in_their_quantity(checkpoints: dict[str, Path]) -> None:
    quantities = {
        task: lotus.load(str(checkpoints["d"]), task, LoadOptions()).card_outputs()[0].quantity
        for task in ("depth", "disparity", "normals")
    }
    assert quantities == {"depth": "relative_depth", "disparity": "relative_disparity", "normals": "normals"}


def test_a_published_id_is_not_loaded_for_another_task() -> None:
    with pytest.raises(InputError, match="published for the task 'disparity': give --task disparity"):
        lotus.load("jingheya/lotus-depth-d-v2-0-disparity", "depth", LoadOptions())


def test_unknown_tasks_and_settings_list_the_known_ones(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no task 'flow': choose --task depth or disparity or normals"):
        lotus.load(str(checkpoints["d"]), "flow", LoadOptions())
    with pytest.raises(InputError, match="no setting 'colour'"):
        lotus.load(str(checkpoints["d"]), "depth", LoadOptions(settings={"colour": "red"}))


def test_a_room_comes_out_with_normals_of_the_optical_frame(tmp_path: Path) -> None:
    """A checkpoint that has learnt one room, exported and run: floor, ceiling and walls face the camera."""
    rgb, plane, normals, _ = render_room(*SIZE)
    checkpoint = write_lotus(tmp_path / "lotus", "d", **TWO_LEVELS)
    # Hypersim's normals as Lotus was trained on them: x to the left, y up, z towards the viewer, in [-1, 1].
    encoded = torch.from_numpy(np.stack([-normals[..., 0], -normals[..., 1], -normals[..., 2]]))[None]
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.no_grad():
        latent = lotus.load(str(checkpoint), "normals", LoadOptions()).one_step(image)
    teach_decoder(checkpoint, latent, encoded)
    words = ["export", "lotus", "--checkpoint", str(checkpoint), "--task", "normals", "--size", f"{SIZE[0]}x{SIZE[1]}"]
    assert main([*words, "--check-pictures", "1", "-o", str(tmp_path / "room")]) == 0
    prediction = Estimator.load(tmp_path / "room").predict(rgb)
    assert prediction.depth is None
    assert prediction.depth_relative is None
    assert prediction.normals is not None
    for index, (name, (expected, _)) in enumerate(PLANES.items()):
        inside = prediction.normals[plane == index]
        angles = np.degrees(np.arccos(np.clip(inside @ np.array(expected, np.float32), -1, 1)))
        assert np.median(angles) < 10, f"{name}: {np.median(angles):.0f} degrees off"
