"""DICEPTION: prompts, points, guidance, outputs and export, on small checkpoints in the published layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from family_checkpoints_mm import write_diception, write_sd3

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.exporter import export_family, standard_noise
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.families import diception
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.diception_prompts import EMPTY, encoded_prompts
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.card import (
    EulerFlowSampler,
    InstancesOutput,
    KeypointsOutput,
    ModelCard,
    NormalsOutput,
    SemanticOutput,
    read_card,
)
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import UInt8Image


SIDE = 64
STEPS = 4
LATENT = (1, 16, SIDE // 8, SIDE // 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Checkpoint, base, and the file of encoded prompts, which the first test to load anything writes."""
    root = tmp_path_factory.mktemp("diception")
    base = write_sd3(root / "base")
    return write_diception(root / "checkpoint", base), base, root / "prompts.safetensors"


def load(folders: tuple[Path, Path, Path], task: str, **settings: str) -> diception.Diception:
    checkpoint, base, prompts = folders
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    return diception.load(
        str(checkpoint), task, LoadOptions(base=str(base), settings={"prompts": str(prompts)} | named)
    )


@pytest.fixture(scope="module")
def rgb() -> UInt8Image:
    return np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def as_tensor(rgb: UInt8Image) -> torch.Tensor:
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def segmentation(
    folders: tuple[Path, Path, Path], rgb: UInt8Image, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelCard]:
    """Exported for several steps with guidance."""
    folder = tmp_path_factory.mktemp("models") / "segmentation"
    options = ExportOptions(name="segmentation", checkpoint="random", size=(SIDE, SIDE), steps=STEPS)
    return folder, export_family(load(folders, "segmentation"), folder, [rgb], options)


def sampled(
    model: diception.Diception, base: Path, rgb: UInt8Image, points: torch.Tensor, steps: int, scale: float
) -> npt.NDArray[np.float32]:
    """The output after several steps with diffusers' scheduler and classifier-free guidance."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(base / "scheduler")
    scheduler.set_timesteps(steps)
    latent = standard_noise(LATENT, 0)
    with torch.inference_mode():
        image_latent = model.encode(as_tensor(rgb))
        for timestep in scheduler.timesteps:
            empty, prompt = (
                model.denoise(image_latent, latent, timestep[None], points=points, conditional=torch.tensor([flag]))
                for flag in (0.0, 1.0)
            )
            latent = scheduler.step(empty + scale * (prompt - empty), timestep, latent, return_dict=False)[0]
        return model.decode(latent)[0].numpy()


def test_estimator_with_guidance_is_the_network_with_the_scheduler_of_diffusers(
    folders: tuple[Path, Path, Path], segmentation: tuple[Path, ModelCard], rgb: UInt8Image
) -> None:
    estimator = Estimator.load(segmentation[0])
    assert estimator.predict(rgb, steps=1).mask is None  # no point, no mask
    u, v = 50.0, 11.0
    points = torch.zeros(1, 5, 3)
    points[0, 0] = torch.tensor([(v + 0.5) / SIDE, (u + 0.5) / SIDE, 1.0])  # the row first
    model = load(folders, "segmentation")
    for steps in (1, STEPS):
        expected = sampled(model, folders[1], rgb, points, steps, scale=2.0)[0, 0]
        found = estimator.predict(rgb, points=[[u, v, 1]], steps=steps).mask
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_card_says_what_the_numbers_mean(segmentation: tuple[Path, ModelCard]) -> None:
    folder, card = segmentation
    assert read_card(folder) == card
    assert card.points is not None
    assert (card.points.most, card.points.order) == (5, "yx")
    assert isinstance(card.sampler, EulerFlowSampler)
    assert (card.sampler.shift, card.sampler.guidance_scale) == (3.0, 2.0)
    assert (card.input.size.rule, card.input.size.width, card.input.size.height) == ("fixed", SIDE, SIDE)
    assert card.licence_terms is not None
    assert (card.licence_terms.non_commercial, card.licence_terms.gated) == (True, True)
    assert max(card.parity.values()) < 1e-4
    assert "not verified with its weights" in card.description
    caveats = {recipe.task for recipe in diception.RECIPES if recipe.caveat}
    assert caveats == {"normals", "segmentation"}


def test_a_class_becomes_a_mask_and_instances_in_one_step(
    folders: tuple[Path, Path, Path], rgb: UInt8Image, tmp_path: Path
) -> None:
    model = load(folders, "semantic", **{"class": "traffic light"})
    model.autoencoder.vae.decoder.conv_out.bias.data -= 0.7  # random weights draw grey: there is background now
    noise = standard_noise(LATENT, 0)
    with torch.inference_mode():
        scores, drawing = (tensor[0].numpy() for tensor in model(as_tensor(rgb), noise))
    np.testing.assert_allclose(scores[1] > scores[0], drawing.max(axis=0) > diception.BACKGROUND)
    assert 0 < (scores[1] > scores[0]).mean() < 1
    options = ExportOptions(name="semantic", checkpoint="random", size=(SIDE, SIDE))
    card = export_family(model, tmp_path / "semantic", [rgb], options)
    assert [output.task for output in card.outputs] == ["semantic", "instances"]
    assert [label.name for label in card.labels] == ["background", "traffic light"]
    prediction = Estimator.load(tmp_path / "semantic").predict(rgb)
    sure = np.abs(scores[1] - scores[0]) > 1e-3
    assert prediction.semantic is not None
    np.testing.assert_array_equal(prediction.semantic[sure], (scores[1] > scores[0])[sure])
    assert prediction.instances is not None


@pytest.mark.parametrize(
    ("task", "shape", "low"),
    [("disparity", (1, 1), 0.0), ("normals", (1, 3), -1.0), ("pose", (1, 3), 0.0), ("entity", (1, 3), 0.0)],
)
def test_outputs_of_the_other_tasks(
    folders: tuple[Path, Path, Path], rgb: UInt8Image, task: str, shape: tuple[int, int], low: float
) -> None:
    model = load(folders, task)
    with torch.inference_mode():
        (output,) = model(as_tensor(rgb), standard_noise(LATENT, 0))
    assert output.shape == (*shape, SIDE, SIDE)
    model.autoencoder.decode = lambda latent: torch.linspace(-3, 3, 7).expand(1, 3, 1, 7)  # type: ignore[method-assign]
    (loud,) = model.decode(torch.zeros(1))
    assert (float(loud.min()), float(loud.max())) == (low, 1.0)
    (declared,) = model.card_outputs()
    expected: dict[str, type[Any]] = {"normals": NormalsOutput, "pose": KeypointsOutput, "entity": InstancesOutput}
    if task == "disparity":
        assert declared.quantity == "relative_disparity"
    else:
        assert isinstance(declared, expected[task])
    if isinstance(declared, NormalsOutput):
        assert declared.axes == ("left", "up", "backward")
    if isinstance(declared, InstancesOutput):
        assert declared.encoding == "colors"


def test_prompts_differ_and_the_empty_one_has_no_points(folders: tuple[Path, Path, Path]) -> None:
    model = load(folders, "segmentation")
    image_latent, noisy = standard_noise(LATENT, 1), standard_noise(LATENT, 2)
    timestep, points = torch.tensor([500.0]), model.example_conditions(SIDE, SIDE)["points"]
    none = torch.zeros_like(points)

    def velocity(points: torch.Tensor, conditional: float) -> torch.Tensor:
        with torch.inference_mode():
            flag = torch.tensor([conditional])
            return model.denoise(image_latent, noisy, timestep, points=points, conditional=flag)

    torch.testing.assert_close(velocity(points, 0.0), velocity(none, 0.0), rtol=0, atol=0)
    assert not torch.allclose(velocity(points, 1.0), velocity(none, 1.0), atol=1e-4)
    assert not torch.allclose(velocity(none, 1.0), velocity(none, 0.0), atol=1e-4)
    two = torch.cat([noisy, image_latent])
    with torch.inference_mode():
        together = model.denoise(image_latent, two, timestep, points=points)
    torch.testing.assert_close(together[:1], velocity(points, 1.0), rtol=1e-4, atol=1e-5)


def test_point_order_is_on_the_card(folders: tuple[Path, Path, Path]) -> None:
    assert load(folders, "segmentation", point_order="xy").card_inputs()["points"].order == "xy"
    with pytest.raises(InputError, match="'point-order' is yx or xy"):
        load(folders, "segmentation", point_order="rc")


def test_encoded_prompts_need_no_encoders_any_more(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint, base, prompts = folders
    load(folders, "pose")
    encoders = shutil.ignore_patterns("text_encoder*", "tokenizer*")
    bare = shutil.copytree(base, tmp_path / "bare", ignore=encoders)
    (cached,) = encoded_prompts(CheckpointFiles(str(bare)), ["[[image2pose]]"], prompts)
    (again,) = encoded_prompts(CheckpointFiles(str(base)), ["[[image2pose]]"], None)
    torch.testing.assert_close(cached.tokens, again.tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cached.pooled, again.pooled, rtol=1e-5, atol=1e-6)
    assert cached.tokens.shape == (1, 77 + 256, 48)
    assert (cached.tokens[:, :77, 40:] == 0).all()  # the CLIPs are 16 + 24 wide, T5 is 48
    load((checkpoint, bare, prompts), "pose")
    with pytest.raises(InputError, match="the part 'tokenizer' of the checkpoint"):
        load((checkpoint, bare, tmp_path / "other.safetensors"), "pose")
    assert not (tmp_path / "other.safetensors").exists()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(prompts.read_bytes()[:100])
    with pytest.raises(InputError, match="not a cache of encoded prompts"):
        encoded_prompts(CheckpointFiles(str(bare)), [EMPTY], broken)


def test_what_the_file_lacks_is_the_bases(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    state = torch.load(folders[0] / "DICEPTION_v1.pth", weights_only=True)
    del state["transformer"]["proj_out.weight"]
    state["transformer"]["unknown"] = torch.zeros(1)
    torch.save(state, tmp_path / "DICEPTION_v1.pth")
    loaded = load((tmp_path, *folders[1:]), "pose").transformer
    base = SD3Transformer2DModel.from_pretrained(folders[1] / "transformer")
    torch.testing.assert_close(loaded.proj_out.weight, base.proj_out.weight)
    assert not torch.allclose(loaded.context_embedder.weight, base.context_embedder.weight, atol=1e-3)


def test_wrong_settings_are_named(folders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(InputError, match="80 classes of COCO"):
        load(folders, "semantic", **{"class": "dragon"})
    with pytest.raises(InputError, match="belongs to --task semantic"):
        load(folders, "pose", **{"class": "person"})
    for scale in ("0.5", "much", "nan"):
        with pytest.raises(InputError, match="must be a number from 1 on"):
            load(folders, "pose", guidance_scale=scale)
    assert load(folders, "pose", guidance_scale="1").card_sampler(28)["guidance_scale"] == 1.0


def test_wrong_checkpoints_are_named(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    state = torch.load(folders[0] / "DICEPTION_v1.pth", weights_only=True)
    path = tmp_path / "DICEPTION_v1.pth"
    with pytest.raises(InputError, match=r"no file 'DICEPTION_v1\.pth'"):
        load((tmp_path, *folders[1:]), "pose")
    torch.save({name: value for name, value in state.items() if name != "seg_embeddings"}, path)
    with pytest.raises(InputError, match="lacks 'seg_embeddings'"):
        load((tmp_path, *folders[1:]), "pose")
    torch.save(state | {"transformer": {"proj_out.weight": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match="does not fit this network"):
        load((tmp_path, *folders[1:]), "pose")
    torch.save(state | {"point_embedder": {}}, path)
    with pytest.raises(InputError, match="has no embedding of points"):
        load((tmp_path, *folders[1:]), "pose")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (None, "give --size 768x768"),
        ((60, 64), "nearest size is 64x64"),
        ((64, 256), "up to 128: the nearest size is 64x128"),
    ],
)
def test_sizes_that_it_cannot_take(
    folders: tuple[Path, Path, Path], tmp_path: Path, size: tuple[int, int] | None, message: str
) -> None:
    options = ExportOptions(name="pose", checkpoint="random", size=size, steps=2)
    with pytest.raises(InputError, match=message):
        export_family(load(folders, "pose"), tmp_path / "pose", [], options)
    assert not (tmp_path / "pose").exists()


def test_labels_of_a_class_are_things(folders: tuple[Path, Path, Path]) -> None:
    semantic, _ = load(folders, "semantic", **{"class": "person"}).card_outputs()
    assert isinstance(semantic, SemanticOutput)
    assert [label.is_thing for label in semantic.labels] == [False, True]
