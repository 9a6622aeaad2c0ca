"""Marigold and E2E-FT: our modules, and what the runtime makes of exported graphs, against the published pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, LCMScheduler, UNet2DConditionModel
from diffusers.schedulers import scheduling_lcm
from family_checkpoints import teach_decoder
from family_checkpoints_gen import TARGETS, write_e2e_ft, write_marigold
from PIL import Image
from rendered_room import PLANES, render_room
from transformers import CLIPTextModel, CLIPTokenizer

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.exporter import ExportOptions, export_family
from diffusion_perception_ros.families import e2e_ft, marigold
from diffusion_perception_ros.families.recipe import FamilyModel, LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


SIDE = 64
SEED = 3
TOLERANCE = 1e-4
TASKS = ("depth", "normals", "appearance", "lighting")
EXPORTED = {"depth": False, "normals": True, "lighting": False}
"""Task → whether its checkpoint is a consistency model, for the tests of exported graphs."""


def picture() -> np.ndarray:
    """(SIDE, SIDE, 3) uint8, smooth."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def picture_tensor() -> torch.Tensor:
    return torch.from_numpy(picture().transpose(2, 0, 1)[None].astype(np.float32) / 255 * 2 - 1)


def member_noise(members: int, channels: int) -> torch.Tensor:
    """What the runtime draws for the members of an ensemble."""
    shape = (members, channels, SIDE // 8, SIDE // 8)
    return torch.from_numpy(np.random.default_rng(SEED).standard_normal(shape, dtype=np.float32))


def published_prediction(checkpoint: Path, noise: torch.Tensor, steps: int = 1) -> np.ndarray:
    """(targets, SIDE, SIDE, 1 or 3) of the pipeline of diffusers that `model_index.json` names."""
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(picture())
    output = pipeline(
        image, num_inference_steps=steps, ensemble_size=len(noise), latents=noise, processing_resolution=0
    )
    prediction: np.ndarray = output.prediction
    return prediction


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Task, consistency model or not → a checkpoint, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("marigold")

    def written(task: str, lcm: bool = False) -> Path:
        path = folder / f"{task}_{lcm}"
        return path if path.exists() else write_marigold(path, task, lcm, use_full_z_range=not lcm)

    return written


@pytest.fixture(scope="module")
def estimators(
    checkpoint: Callable[[str, bool], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Estimator]:
    """The checkpoints of `EXPORTED`, exported for several steps and loaded."""
    folder = tmp_path_factory.mktemp("exported")
    loaded = {}
    for task, lcm in EXPORTED.items():
        model = marigold.load(str(checkpoint(task, lcm)), task, LoadOptions())
        options = ExportOptions(name=task, checkpoint=task, size=(SIDE, SIDE), steps=4, noise=f"seed:{SEED}")
        card = export_family(model, folder / task, [picture()], options)
        assert max(card.parity.values()) < TOLERANCE
        loaded[task] = Estimator.load(folder / task)
    return loaded


def as_published(prediction: Prediction, task: str) -> list[np.ndarray]:
    """Our prediction in the pipelines' order, shapes and axes."""
    if task == "depth":
        assert prediction.depth_quantity == "relative_depth"
        assert prediction.depth is None
        assert prediction.depth_relative is not None
        return [prediction.depth_relative[..., None]]
    if task == "normals":
        assert prediction.normals is not None
        return [prediction.normals * np.array([1, -1, -1], np.float32)]
    return [getattr(prediction, name) for name in TARGETS[task]]


@pytest.mark.parametrize(("task", "lcm"), [*((task, False) for task in TASKS), ("depth", True), ("normals", True)])
def test_one_fused_step_is_that_of_diffusers(checkpoint: Callable[[str, bool], Path], task: str, lcm: bool) -> None:
    folder = checkpoint(task, lcm)
    model = marigold.load(str(folder), task, LoadOptions())
    noise = member_noise(1, model.recipe.latent_channels)
    with torch.inference_mode():
        outputs = torch.cat(model(picture_tensor(), noise))
    expected = published_prediction(folder, noise)
    np.testing.assert_allclose(outputs.permute(0, 2, 3, 1).numpy(), expected, atol=TOLERANCE)
    assert expected.std() > 0.1, "a flat picture proves nothing"
    assert 0.02 < np.isin(expected, (0, 1)).mean() < 0.6 or task == "normals", "clipping takes part"


@pytest.mark.parametrize("task", TASKS)
def test_the_stages_take_several_steps_as_diffusers_does(checkpoint: Callable[[str, bool], Path], task: str) -> None:
    folder = checkpoint(task, False)
    model = marigold.load(str(folder), task, LoadOptions())
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(4)
    noise = latent = member_noise(1, model.recipe.latent_channels)
    with torch.inference_mode():
        image_latent = model.encode(picture_tensor())
        for timestep in scheduler.timesteps:
            prediction = model.denoise(image_latent, latent, timestep.float()[None])
            latent = scheduler.step(prediction, timestep, latent).prev_sample
        outputs = torch.cat(model.decode(latent)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(outputs.numpy(), published_prediction(folder, noise, 4), atol=TOLERANCE)


@pytest.mark.parametrize("task", EXPORTED)
@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_runtime_predicts_what_diffusers_predicts(
    checkpoint: Callable[[str, bool], Path],
    estimators: dict[str, Estimator],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    members: int,
    steps: int,
) -> None:
    """Three graphs, NumPy schedulers and our ensembles against torch, from the same noise."""
    if EXPORTED[task]:
        monkeypatch.setattr(scheduling_lcm, "randn_tensor", StepNoise(steps - 1))
    if task == "depth" and members > 1:
        align_in_float64(monkeypatch)
    estimator = estimators[task]
    ours = as_published(estimator.predict(picture(), steps=steps, ensemble_size=members), task)
    assert estimator.card.sampler is not None
    noise = member_noise(members, estimator.card.sampler.latent_channels)
    expected = published_prediction(checkpoint(task, EXPORTED[task]), noise, steps)
    for target, (our, their) in enumerate(zip(ours, expected, strict=True)):
        assert np.abs(our - their).max() <= TOLERANCE, f"target {target}"


class StepNoise:
    """In place of diffusers' `randn_tensor`: what the runtime adds between the steps of a consistency model."""

    def __init__(self, draws_per_member: int) -> None:
        self._per_member, self._drawn = draws_per_member, 0
        self._generator = np.random.default_rng()

    def __call__(self, shape: torch.Size, **_options: Any) -> torch.Tensor:
        member, first = divmod(self._drawn, self._per_member)
        if first == 0:
            self._generator = np.random.default_rng([SEED, 1 + member])
        self._drawn += 1
        return torch.from_numpy(self._generator.standard_normal(tuple(shape), dtype=np.float32))


def align_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes diffusers' alignment of ensembles compute in double precision (see `inference.ensemble`)."""
    from diffusers.pipelines.marigold import pipeline_marigold_depth
    from double_precision import DoublePrecision

    monkeypatch.setattr(pipeline_marigold_depth, "torch", DoublePrecision())


def test_the_card_has_the_scheduler_of_the_checkpoint(estimators: dict[str, Estimator]) -> None:
    depth, normals = (estimators[task].card.sampler for task in ("depth", "normals"))
    assert depth is not None
    assert normals is not None
    assert depth.scheduler == "ddim"
    assert depth.timestep_spacing == "trailing"
    assert depth.rescale_betas_zero_snr
    assert normals.scheduler == "lcm"
    assert normals.original_inference_steps == 50


def test_intrinsic_images_say_how_they_are_encoded(estimators: dict[str, Estimator]) -> None:
    outputs = estimators["lighting"].card.outputs
    assert [output.task for output in outputs] == ["albedo", "shading", "residual"]
    assert {output.prediction_space for output in outputs} == {"linear"}  # type: ignore[union-attr]
    appearance = marigold.find_recipe(marigold.RECIPES, "", "appearance").outputs
    assert [output.prediction_space for output in appearance] == ["srgb", "stack"]  # type: ignore[union-attr]


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_e2e_ft_is_the_published_recipe(tmp_path: Path, task: str) -> None:
    folder = write_e2e_ft(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", timestep_spacing="trailing")
    tokens = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")("", return_tensors="pt").input_ids
    with torch.inference_mode():
        text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")(tokens)[0]
        rgb_latent = vae.encode(picture_tensor()).latent_dist.mean * 0.18215
        zeros = torch.zeros_like(rgb_latent)
        velocity = unet(torch.cat([rgb_latent, zeros], dim=1), 999, text).sample
        scheduler.set_timesteps(1)
        clean = scheduler.step(velocity, scheduler.timesteps[0], zeros).pred_original_sample
        expected = vae.decode(clean / 0.18215).sample
        (output,) = e2e_ft.load(str(folder), task, LoadOptions())(picture_tensor())
    if task == "depth":
        expected = (expected.mean(dim=1, keepdim=True).clip(-1, 1) + 1) / 2
    else:
        length = expected.norm(dim=1, keepdim=True)
        expected = expected / (length + 1e-5)
        # unit length makes angles of the rounding errors of vectors of nearly no length
        expected, output = (torch.where(length > 0.1, normals, 0.0) for normals in (expected, output))
    np.testing.assert_allclose(output.numpy(), expected.numpy(), atol=TOLERANCE)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("family", "signs"), [("marigold", (1, -1, -1)), ("e2e-ft", (-1, -1, -1))], ids=["marigold", "e2e-ft"]
)
def test_a_room_comes_out_with_normals_of_the_optical_frame(
    tmp_path: Path, family: str, signs: tuple[int, int, int]
) -> None:
    """A checkpoint that has learnt one room in its publisher's axes, exported and run."""
    width, height = 64, 48
    rgb, plane, normals, _ = render_room(width, height)
    checkpoint = tmp_path / "checkpoint"
    model: FamilyModel
    if family == "marigold":
        model = marigold.load(str(write_marigold(checkpoint, "normals")), "normals", LoadOptions())
    else:
        model = e2e_ft.load(str(write_e2e_ft(checkpoint)), "normals", LoadOptions())
    encoded = torch.from_numpy((normals * np.array(signs, np.float32)).transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        latent = model.one_step(torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1))
    teach_decoder(checkpoint, latent, encoded)
    words = ["export", family, "--checkpoint", str(checkpoint), "--task", "normals", "--size", f"{width}x{height}"]
    words += ["--noise", "zeros", "--check-pictures", "2", "-o", str(tmp_path / "room")]
    assert main(words) == 0
    prediction = Estimator.load(tmp_path / "room").predict(rgb)
    assert prediction.normals is not None
    for index, (name, (expected, _)) in enumerate(PLANES.items()):
        inside = prediction.normals[plane == index]
        angles = np.degrees(np.arccos(np.clip(inside @ np.array(expected, np.float32), -1, 1)))
        assert np.median(angles) < 15, f"{name}: {np.median(angles):.0f} degrees off"


def alter_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}, "names a PNDMScheduler"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, "has clip_sample: True"),
        ("scheduler/scheduler_config.json", {"prediction_type": "noise"}, "scheduler_config.json cannot be used"),
        ("model_index.json", {"_class_name": "MarigoldNormalsPipeline"}, "give --task normals"),
        ("model_index.json", {"prediction_type": "disparity"}, "predicts disparity"),
        ("model_index.json", {"target_properties": {"target_names": ["albedo"]}}, "has the targets albedo"),
        ("unet/config.json", {"in_channels": 4}, "unet"),
    ],
)
def test_wrong_checkpoints_name_the_file(tmp_path: Path, file: str, fields: dict[str, Any], message: str) -> None:
    folder = write_marigold(tmp_path, "depth")
    alter_json(folder / file, **fields)
    with pytest.raises(InputError, match=message):
        marigold.load(str(folder), "depth", LoadOptions())


def test_a_checkpoint_of_one_annotation_is_not_loaded_as_intrinsic_images(tmp_path: Path) -> None:
    folder = write_marigold(tmp_path, "depth")
    alter_json(folder / "model_index.json", _class_name="AnUnknownPipeline")
    with pytest.raises(InputError, match=r"unet/config\.json has in_channels 8, this family and task need 12"):
        marigold.load(str(folder), "appearance", LoadOptions())


def test_several_steps_of_e2e_ft_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    checkpoint = write_e2e_ft(tmp_path / "checkpoint")
    words = ["export", "e2e-ft", "--checkpoint", str(checkpoint), "--task", "depth", "--size", "64x64"]
    assert main([*words, "--steps", "4", "-o", str(tmp_path / "model")]) == 2
    assert not (tmp_path / "model").exists()


def test_a_scheduler_of_diffusers_is_read_for_its_single_step() -> None:
    lcm = LCMScheduler(prediction_type="sample")
    timestep, of_prediction, of_noise = marigold.one_step_weights(lcm)
    assert timestep == 999
    assert of_prediction == pytest.approx(1.0, abs=1e-4)
    assert of_noise == pytest.approx(0.0, abs=1e-4)
