"""`diffusion-perception scale` through the command, on real graphs with outputs in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MarigoldDepthPipeline
from diffusers.pipelines.marigold import pipeline_marigold_depth
from model_factory import write_model
from sampled_model_factory import DDIM, write_prompted_model, write_sampled_model
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.rendered import RenderedDataset
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.sampling.ensemble import ensemble_depth
from diffusion_perception_ros.metrics.confidence import calibration_error, sparsification_scores
from diffusion_perception_ros.metrics.dense import flow_scores
from diffusion_perception_ros.research.commands.scale import open_data
from diffusion_perception_ros.research.compute_chart import Row, pareto_front
from diffusion_perception_ros.research.compute_scaling import SamplingSetting, measure


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_shard(tmp_path_factory.mktemp("rooms"), range(3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sampled_model(tmp_path_factory.mktemp("models") / "tiny", gain=0.3)


def scale(model: Path, data: Path, output: Path, *options: str) -> int:
    return main(["scale", str(model), "--data", str(data), "-o", str(output), "--threads", "1", *options])


def records(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "scale.json").read_text())["settings"]


def test_every_setting_is_measured_once_and_drawn(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert scale(model, data, out, "--steps", "1,3", "--ensemble", "1,2") == 0
    first = records(out)
    assert [(line["steps"], line["ensemble_size"]) for line in first] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert [line["network_evaluations"] for line in first] == [1, 2, 3, 6]
    assert [line["merging"] for line in first] == [None, "aligned_median", None, "aligned_median"]
    for line in first:
        assert line["sampler"] == {"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}
        assert line["images"] == line["scores"]["depth"]["images"] == 3
        assert 0 < line["scores"]["depth"]["absrel"] < 1
        assert 0 < line["scores"]["normals"]["mean"] < 180
        assert line["cpu_seconds"] > 0
        assert set(line["confidence"]) == (set() if line["ensemble_size"] == 1 else {"depth", "normals"})
    lines = (out / "scale.json").read_text().splitlines()
    assert sum('"steps": ' in line for line in lines) == 4  # one line per setting
    assert cv2.imread(str(out / "scale.png")).shape[0] > 300
    # What is there is not measured again: its times are still the same.
    assert scale(model, data, out, "--steps", "1,3", "--ensemble", "1,2", "--merging", "aligned_median,median") == 0
    second = records(out)
    assert second[:4] == first
    assert [(line["steps"], line["merging"]) for line in second[4:]] == [(1, "median"), (3, "median")]


def test_scores_are_those_of_the_estimator(model: Path, data: Path, tmp_path: Path) -> None:
    """Schedules other than the card's are really used, and every image has its own noise."""
    assert scale(model, data, tmp_path, "--steps", "4", "--ensemble", "1", "--beta-schedule", "squaredcos_cap_v2") == 0
    (line,) = records(tmp_path)
    image = toy_room(0).rgb
    estimator = Estimator.load(model, "cpu", 1, sampler={"beta_schedule": "squaredcos_cap_v2"})
    said = estimator.predict(image, tasks=["normals"], steps=4, seed=11).normals
    fields = {name: DDIM[name] for name in ("beta_start", "beta_end", "timestep_spacing")}
    scheduler = DDIMScheduler(**fields, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(4)
    large = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
    latent = torch.from_numpy(cv2.resize(large / 127.5 - 1, (16, 16), interpolation=cv2.INTER_AREA)).permute(2, 0, 1)
    noisy = torch.from_numpy(np.random.default_rng(11).standard_normal((1, 3, 16, 16), dtype=np.float32))
    for timestep in scheduler.timesteps:
        noisy = scheduler.step(latent + 0.3 * noisy + 1e-4 * timestep, timestep, noisy).prev_sample
    expected = noisy[0].permute(1, 2, 0).numpy() * (1, -1, -1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    assert np.abs(said[2::4, 2::4] - expected).mean() < 0.01  # the image is rounded when it is resized
    default = Estimator.load(model, "cpu", 1)
    assert np.abs(default.predict(image, steps=4, seed=11).normals - said).mean() > 0.03
    assert line["sampler"]["beta_schedule"] == "squaredcos_cap_v2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "1001"], "steps must be 1 to 1000"),
        (["--shift", "3"], "has a sampler 'ddim', for which --shift has no meaning"),
        (["--group", "nowhere", "--data", "."], "nothing to score"),
    ],
)
def test_what_cannot_be_measured_is_said_first(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    options = [str(tmp_path / "empty") if word == "." else word for word in options]
    assert scale(model, data, tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_models_that_gain_nothing_are_refused_with_the_reason(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scale(write_model(tmp_path / "fused"), data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "model 'fused' predicts in one step from the image alone" in error
    assert "cannot change its answer" in error
    zeros = write_sampled_model(tmp_path / "zeros", sampler={"start": "zeros"})
    assert scale(zeros, data, tmp_path / "out") == 2
    assert "all 2 samples of an ensemble would be equal" in capsys.readouterr().err
    code = scale(zeros, data, tmp_path / "out", "--ensemble", "1", "--steps", "1,2")
    assert code == 0, capsys.readouterr().err


def test_a_file_of_something_else_is_left_alone(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--steps", "1", "--ensemble", "1")
    assert scale(model, data, tmp_path, *few) == 0
    before = (tmp_path / "scale.json").read_bytes()
    assert scale(model, data, tmp_path, *few, "--seed", "5") == 2
    assert "was measured with another seed" in capsys.readouterr().err
    assert scale(model, data, tmp_path, *few, "--images", "2") == 2
    assert "was measured with another images" in capsys.readouterr().err
    assert (tmp_path / "scale.json").read_bytes() == before
    (tmp_path / "scale.json").write_bytes(before[:-20])
    assert scale(model, data, tmp_path, *few) == 2
    assert "is not a file of this command" in capsys.readouterr().err


def test_rendered_scenes_are_data_too() -> None:
    dataset = open_data("world:7", None, 1)
    assert isinstance(dataset, RenderedDataset)
    assert len(dataset) == 1
    sample = dataset[0]
    assert sample.rgb.shape == (240, 320, 3)
    assert sample.label_set == "world"
    assert np.isfinite(sample.depth).any()


def test_flow_is_measured_towards_the_samples_own_previous_picture(tmp_path: Path) -> None:
    """The test model's flow is 10 pixels right per unit that the previous image is brighter."""
    folder = write_prompted_model(tmp_path / "flow", ["flow"], prompts=["second_image", "noise"])
    estimator = Estimator.load(folder, "cpu", threads=1)
    base = RenderedDataset("rooms", [toy_room(0)])[0]
    samples = [
        replace(
            base,
            rgb=np.full((96, 128, 3), now, np.uint8),
            previous=np.full((96, 128, 3), before, np.uint8),
            depth=None,
            intrinsics=None,
            flow=np.full((96, 128, 2), (3.0, 0.0), np.float32),
        )
        for now, before in ((51, 102), (0, 153))
    ]
    record, failed = measure(estimator, samples, SamplingSetting(1, 2, "median"))
    assert not failed
    assert record["scores"]["flow"]["epe"] == pytest.approx((1.0 + 3.0) / 2, abs=0.01)  # flows of 2 and 6 pixels
    assert record["scores"]["flow"]["outliers"] == pytest.approx(0.0)
    found = flow_scores(np.array([[0.0, 0.0], [8.0, 6.0]]), np.array([[3.0, 4.0], [8.0, 6.5]]))
    assert found == {"epe": pytest.approx(2.75), "outliers": 0.5}


def test_calibration_is_the_gap_between_confidence_and_share_of_right_pixels() -> None:
    confidence = np.repeat([0.9, 0.3], 100)
    right = np.arange(200) % 10 < np.repeat([9, 3], 100)
    assert calibration_error(right, confidence) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(right, np.full(200, 1.0)) == pytest.approx(0.4)  # 60 % are right
    holes = np.where(np.arange(200) < 100, confidence, np.nan)
    assert calibration_error(right, holes) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(calibration_error(right, np.full(200, np.nan)))


def test_sparsification_knows_perfect_useless_and_wrong_confidence() -> None:
    generator = np.random.default_rng(3)
    error = generator.exponential(size=20_000)
    perfect = sparsification_scores(error, -error)
    assert perfect["ause"] == pytest.approx(0.0, abs=1e-12)
    assert perfect["correlation"] == pytest.approx(1.0)
    # Mean of an exponential below its (1 - f) quantile: 1 + f log(f) / (1 - f); its mean over f is 1 - (pi² / 6 - 1).
    assert perfect["aurg"] == pytest.approx(math.pi**2 / 6 - 1, abs=0.02)
    chance = sparsification_scores(error, generator.random(error.shape))
    assert chance["aurg"] == pytest.approx(0.0, abs=0.03)
    assert chance["ause"] == pytest.approx(perfect["aurg"], abs=0.05)
    wrong = sparsification_scores(error, error)
    assert wrong["aurg"] < -0.5
    assert math.isnan(sparsification_scores(error, np.ones_like(error))["ause"])
    holes = np.where(np.arange(error.size) % 2 == 0, error, np.nan)
    assert sparsification_scores(holes, -error)["ause"] == pytest.approx(0.0, abs=1e-12)


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    row = Row("depth", "absrel", "scores")
    settings = [(1, 0.3), (2, 0.35), (4, 0.2), (4, 0.25), (8, 0.2), (9, 0.1), (20, math.nan)]
    lines = [
        {"network_evaluations": cost, "scores": {"depth": {"absrel": error}}, "confidence": {}}
        for cost, error in settings
    ]
    assert [line["network_evaluations"] for line in pareto_front(lines, row)] == [1, 4, 9]
    assert row.value(pareto_front(lines, row)[1]) == 0.2


class DoublePrecision:
    """`torch` for diffusers' module, in which its alignment computes in float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def test_the_mean_of_aligned_members_is_diffusers_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    base = cv2.GaussianBlur(generator.random((40, 50)), (0, 0), 6)
    base = (base - base.min()) / np.ptp(base)
    errors = generator.standard_normal((4, 40, 50)) * 0.02
    members = np.stack([np.clip((base + error) * s + t, 0, 1) for error, s, t in zip(errors, *_scales(), strict=True)])
    merged, spread = ensemble_depth(members.astype(np.float32), reduction="mean")
    monkeypatch.setattr(pipeline_marigold_depth, "torch", DoublePrecision())
    expected, expected_spread = MarigoldDepthPipeline.ensemble_depth(
        torch.from_numpy(members.astype(np.float32))[:, None], output_uncertainty=True, reduction="mean"
    )
    np.testing.assert_allclose(merged, expected[0, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(spread, expected_spread[0, 0].numpy(), atol=1e-4)


def _scales() -> tuple[list[float], list[float]]:
    return [0.9, 0.5, 0.7, 0.6], [0.05, 0.2, 0.1, 0.3]


def test_two_members_are_averaged_and_their_spread_is_not_nothing(model: Path) -> None:
    image = toy_room(1).rgb
    estimator = Estimator.load(model, "cpu", 1)
    two = estimator.predict(image, ensemble_size=2)
    assert two.confidence is not None
    assert two.confidence.min() < 0.95
    unaligned = estimator.predict(image, ensemble_size=2, merging="median")
    alone = estimator.predict(image).depth_relative
    assert np.abs(unaligned.depth_relative - alone).max() > 1e-3
    assert np.abs(unaligned.depth_relative - two.depth_relative).max() > 1e-3
