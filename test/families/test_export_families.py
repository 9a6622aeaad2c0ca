"""`diffusion-perception export FAMILY`: model folders that the runtime opens, and options that it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from family_checkpoints import TWO_LEVELS, write_lotus, write_tiny_vae
from rendered_room import render_room
from safetensors.torch import load_file, save_file

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.export import graphs
from diffusion_perception_ros.families import lotus
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


SIZE = (64, 64)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Lotus-D and a Lotus-G checkpoint."""
    folder = tmp_path_factory.mktemp("lotus")
    return {variant: write_lotus(folder / variant, variant, **TWO_LEVELS) for variant in "dg"}


def export(checkpoint: Path, output: Path, *words: str, task: str = "depth", size: str = "64x64") -> int:
    options = ["--checkpoint", str(checkpoint), "--task", task, "--size", size, "--check-pictures", "1"]
    return main(["export", "lotus", *options, *words, "-o", str(output)])


def exported(checkpoint: Path, output: Path, *words: str, **options: str) -> ModelCard:
    assert export(checkpoint, output, *words, **options) == 0
    return read_card(output)


def predict(folder: Path, width: int = SIZE[0], height: int = SIZE[1]) -> Prediction:
    return Estimator.load(folder).predict(render_room(width, height)[0])


def pytorch_depth(checkpoint: Path, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    rgb = render_room(width, height)[0]
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.no_grad():
        return lotus.load(str(checkpoint), "depth", LoadOptions())(image)[0][0, 0].numpy()


def test_a_fused_graph_says_what_pytorch_says(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    card = exported(checkpoints["d"], tmp_path / "depth")
    assert (card.family, card.graph, card.noise, card.precision) == ("lotus", "model.onnx", None, "fp32")
    assert card.licence == "Apache-2.0"
    assert card.licence_terms is not None
    assert not card.licence_terms.non_commercial
    assert 0 < card.parity["depth_max"] < 1e-4
    assert (tmp_path / "depth" / "README.md").read_text().startswith("# depth\n")
    assert card.source.checkpoint == "d", "a folder's name, not where it lies on this machine"
    for file in ("model.yaml", "README.md"):
        assert str(checkpoints["d"].parent) not in (tmp_path / "depth" / file).read_text()
    assert str(Path.cwd()).encode() not in (tmp_path / "depth" / "model.onnx").read_bytes()
    prediction = predict(tmp_path / "depth")
    assert prediction.depth is None
    assert prediction.depth_quantity == "relative_depth"
    np.testing.assert_allclose(prediction.depth_relative, pytorch_depth(checkpoints["d"]), atol=1e-4)


def test_run_writes_what_an_exported_folder_predicts(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a full-size checkpoint: weights in a second file, then `run`. With int8 and the linear decoder."""
    monkeypatch.setattr(graphs, "EXTERNAL_DATA_BYTES", 100_000)
    words = ["--precision", "int8", "--vae", "none", "--check-pictures", "2"]
    card = exported(checkpoints["d"], tmp_path / "model", *words, task="disparity")
    assert sorted(card.files) == ["model.onnx", "model.onnx.data"]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "model.yaml", *card.files}
    model = onnx.load(tmp_path / "model" / "model.onnx")
    assert onnx.TensorProto.INT8 in {weight.data_type for weight in model.graph.initializer}
    assert card.parity["no_vae_depth_mean"] > 0.001
    (output,) = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx").get_outputs()
    assert output.shape == [1, 1, 8, 8]
    cv2.imwrite(str(tmp_path / "room.png"), render_room(80, 60)[0])
    words = ["run", str(tmp_path / "room.png"), "--model", str(tmp_path / "model"), "--save", "npz"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    saved = np.load(next((tmp_path / "out").rglob("*.npz")))
    assert str(saved["depth_quantity"]) == "relative_disparity"
    assert saved["depth_relative"].shape == (60, 80)
    assert np.isfinite(saved["depth_relative"]).all()


def test_one_graph_for_all_sizes_with_noise_as_input(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    card = exported(checkpoints["g"], tmp_path / "dynamic", size="dynamic")
    assert card.input.size.rule == "longest_side"
    assert card.input.size.size_for(640, 480) == (768, 576)
    assert card.noise is not None
    assert (card.noise.channels, card.noise.downscale, card.noise.latent_tensor) == (4, 8, "clean_latent")
    session = onnxruntime.InferenceSession(tmp_path / "dynamic" / "model.onnx")
    rng = np.random.default_rng(0)
    model = lotus.load(str(checkpoints["g"]), "depth", LoadOptions())
    for width, height in ((64, 64), (200, 136)):  # 25 x 17 cells halve with a remainder
        image = rng.uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
        noise = rng.standard_normal((1, 4, height // 8, width // 8), dtype=np.float32)
        depth, latent = session.run(None, {"image": image, "noise": noise})
        with torch.no_grad():
            expected = model.one_step(torch.from_numpy(image), torch.from_numpy(noise))
            np.testing.assert_allclose(depth, model.decode(expected)[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(latent, expected.numpy(), atol=1e-4)


def test_an_ensemble_over_the_noise_gives_confidence(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    card = exported(checkpoints["g"], tmp_path / "model", "--ensemble", "3", "--precision", "bf16")
    assert card.graphs is not None
    assert card.sampler is not None
    assert (card.sampler.num_inference_steps, card.sampler.ensemble_size) == (1, 3)
    assert 0 < card.parity["image_latent_mean"] < 0.02
    assert 0 < card.parity["prediction_mean"] < 0.02
    model = onnx.load(tmp_path / "model" / "denoise.onnx")
    large = {weight.data_type for weight in model.graph.initializer if np.prod(weight.dims) > 10_000}
    assert large == {onnx.TensorProto.BFLOAT16}
    prediction = predict(tmp_path / "model")
    assert prediction.depth_relative is not None
    assert prediction.confidence is not None
    assert prediction.confidence.min() < 0.999


def test_half_precision_with_a_tiny_autoencoder_and_fixed_noise(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tiny = write_tiny_vae(tmp_path / "tiny")
    words = ["--precision", "fp16", "--vae", "taesd", "--tiny-vae", str(tiny), "--noise", "seed:5"]
    card = exported(checkpoints["g"], tmp_path / "model", *words)
    assert card.noise is None, "the noise of the seed is a constant of the graph"
    assert card.parity["tiny_vae_depth_mean"] > 0.001
    assert card.parity["depth_mean"] < 0.02
    (output,) = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx").get_outputs()
    assert (output.type, output.shape) == ("tensor(float)", [1, 1, 64, 64])
    weights = sum(path.stat().st_size for path in (checkpoints["g"] / "unet").glob("*.safetensors"))
    assert (tmp_path / "model" / "model.onnx").stat().st_size < 0.75 * weights
    assert predict(tmp_path / "model", 80, 60).depth_relative.shape == (60, 80)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "100x64"], "cannot take 100x64 pictures, sides must be multiples of 8: the nearest size is 96x64"),
        (["--size", "80000x80000"], "--size 80000x80000: sides must be between 1 and 4096 pixels"),
        (["--size", "0x64"], "--size 0x64: sides must be between 1 and 4096 pixels"),
        (["--size", "large"], "--size is WIDTHxHEIGHT in pixels"),
        (["--steps", "4"], "lotus models predict in one step: give --steps 1, not 4"),
        (["--steps", "0"], "must be at least 1"),
        (["--noise", "input"], "takes no noise: leave --noise out"),
        (["--ensemble", "3"], "takes no noise: all members of an ensemble would be equal"),
        (["--tiny-vae", "x/y"], "--tiny-vae has a use only with --vae taesd"),
        (["--name", "Not A Name"], "'Not A Name' cannot be a model's name"),
        (["--set", "colour"], "--set takes NAME=VALUE, got 'colour'"),
        (["--vae", "taesd", "--tiny-vae", "nowhere"], "'nowhere' is neither a folder of this machine nor a hub id"),
    ],
)
def test_refused_options_leave_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert export(checkpoints["d"], tmp_path / "model", *words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--noise", "seed:x"], "--noise is 'zeros', 'input' or 'seed:N' with a whole number N, got 'seed:x'"),
        (["--noise", "seed:1", "--size", "dynamic"], "--noise seed:N is a constant of one size"),
    ],
)
def test_refused_noise(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert export(checkpoints["g"], tmp_path / "model", *words) == 2
    assert said in capsys.readouterr().err


def test_an_existing_folder_is_kept_unless_asked(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    assert export(checkpoints["d"], tmp_path / "model") == 2
    assert "exists already" in capsys.readouterr().err
    assert export(checkpoints["d"], tmp_path / "model", "--overwrite") == 2
    assert "is not a model folder, and --overwrite replaces nothing else" in capsys.readouterr().err
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("size", ["80000x80000", "100x64"])
def test_sizes_are_checked_before_weights_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert export(tmp_path / "no checkpoint at all", tmp_path / "model", size=size) == 2
    message = capsys.readouterr().err
    assert "--size 80000x80000" in message or "cannot take 100x64 pictures" in message


def test_weights_that_are_no_numbers_make_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_lotus(tmp_path / "lotus", "d", **TWO_LEVELS)
    path = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"] = torch.full_like(tensors["conv_out.bias"], float("nan"))
    save_file(tensors, path, metadata={"format": "pt"})
    assert export(checkpoint, tmp_path / "models" / "model") == 2
    assert "give values that are not numbers: download the checkpoint again" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []
