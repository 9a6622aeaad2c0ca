"""Checkpoint of a diffusion backbone → model folder: what the robot reads is what the trainer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from backbone_factory import write_backbone_checkpoint
from toy_rooms import toy_pair

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.inference.backends.onnx_pruning import keep_outputs
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import JOINTS, Prediction, Sample
from diffusion_perception_ros.training.batches import collate
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner
from diffusion_perception_ros.training.diffusion.prompts import draw_prompts, visible_part
from diffusion_perception_ros.training.estimates import Estimates


def export(checkpoint: Path, folder: Path, *options: str) -> Path:
    assert main(["export", "native", "--checkpoint", str(checkpoint), "-o", str(folder), *options]) == 0
    return folder


def robot_says(model: Path, sample: Sample) -> Prediction:
    """With the prompts that the trainer's validation gives."""
    estimator, batch = Estimator.load(model, "cpu", threads=1), collate([sample])
    height, width = sample.rgb.shape[:2]
    prompts: dict[str, Any] = {}
    if estimator.card.points is not None:
        points = draw_prompts(batch, torch.Generator().manual_seed(0), most=1).points[0, :1].double().numpy()
        prompts["points"] = points * (width, height, 1) - (0.5, 0.5, 0)
    if estimator.card.prompt_mask is not None:
        prompts["prompt_mask"] = visible_part(batch)[0].numpy()
    assert sample.previous is not None
    first = estimator.predict(sample.previous, **prompts)
    assert first.flow is None
    return estimator.predict(sample.rgb, **prompts)


@torch.no_grad()
def trainer_says(learner: DiffusionLearner, sample: Sample) -> Estimates:
    return learner.estimates(learner.network, collate([sample]))


def assert_equal(said: Prediction, expected: Estimates, tasks: list[str]) -> None:
    if "depth" in tasks:
        np.testing.assert_allclose(said.depth_relative, expected.depth[0].clamp(0, 1), atol=1e-4)
    if "normals" in tasks:
        normals = torch.nn.functional.normalize(expected.normals[0], dim=0).permute(1, 2, 0)
        np.testing.assert_allclose(said.normals, normals, atol=1e-3)
    if "semantic" in tasks:
        assert np.mean(said.semantic[1::2, 1::2] == expected.semantic[0].numpy()) > 0.99
    if "entity" in tasks:
        np.testing.assert_array_equal(said.instances, expected.instances[0])
    if "alpha" in tasks:
        np.testing.assert_allclose(said.alpha, expected.alpha[0], atol=1e-4)
    if "flow" in tasks:
        np.testing.assert_allclose(said.flow, expected.flow[0].permute(1, 2, 0), atol=1e-3)
    if "mask" in tasks:
        np.testing.assert_allclose(said.mask, expected.mask[0].clamp(0, 1), atol=1e-4)
    if "amodal" in tasks:
        np.testing.assert_allclose(said.mask, expected.amodal[0].clamp(0, 1), atol=1e-4)
    if "pose" in tasks:
        assert said.keypoints.shape == expected.keypoints[0].shape
        np.testing.assert_allclose(said.keypoints, expected.keypoints[0], atol=1e-2)


def test_one_folder_answers_all_tasks(tmp_path: Path) -> None:
    tasks = ["depth", "semantic", "entity", "pose", "flow"]
    learner = write_backbone_checkpoint(tmp_path / "checkpoint", tasks, kind="lotus_d")
    model = export(tmp_path / "checkpoint", tmp_path / "generalist", "--trained-with", "diffusion-perception train x")
    card = read_card(model)
    assert card.tasks == ("depth", "semantic", "instances", "keypoints", "flow")
    assert card.sampler is None
    assert max(card.parity.values()) < 1e-3
    assert tuple(joint.name for joint in card.output("keypoints").joints) == JOINTS
    sample = toy_pair(3)
    assert_equal(robot_says(model, sample), trainer_says(learner, sample), tasks)
    whole = (model / "model.onnx").read_bytes()
    cut = keep_outputs(whole, {"depth"})
    nodes = [len(onnx.load_from_string(graph).graph.node) for graph in (whole, cut)]
    assert nodes[1] < nodes[0] / 4  # the network runs only for what is asked for
    readme = (model / "README.md").read_text()
    assert "| optical flow, end-point error in pixels | 1.50 |" in readme
    assert "`UNet2DConditionModel`" in readme


def test_the_graph_takes_pictures_of_other_shapes(tmp_path: Path) -> None:
    """Flow and points follow the width of the network's picture."""
    tasks = ["mask", "flow", "normals", "alpha"]
    learner = write_backbone_checkpoint(tmp_path / "checkpoint", tasks, side=96, kind="lotus_d")
    model = export(tmp_path / "checkpoint", tmp_path / "wide", "--precision", "fp16")
    sample = toy_pair(4, 96)
    sample = Sample(
        np.ascontiguousarray(sample.rgb[:64]),
        instances=sample.instances[:64].copy(),
        previous=np.ascontiguousarray(sample.previous[:64]),
        flow=sample.flow[:64].copy(),
    )
    said, expected = robot_says(model, sample), trainer_says(learner, sample)
    assert read_card(model).input.size.size_for(96, 64) == (96, 64)
    np.testing.assert_allclose(said.flow, expected.flow[0].permute(1, 2, 0), atol=0.2)  # fp16
    np.testing.assert_allclose(said.mask, expected.mask[0].clamp(0, 1), atol=0.02)
    np.testing.assert_allclose(said.alpha, expected.alpha[0], atol=0.02)
    normals = torch.nn.functional.normalize(expected.normals[0], dim=0)
    assert np.median(np.einsum("hwc,chw->hw", said.normals, normals.numpy())) > 0.999


def test_genpercept_has_its_sign_and_amodal_its_mask(tmp_path: Path) -> None:
    learner = write_backbone_checkpoint(tmp_path / "checkpoint", ["disparity", "amodal"], kind="genpercept")
    model = export(tmp_path / "checkpoint", tmp_path / "model", "--size", "64x64")
    sample = toy_pair(5)
    said, expected = robot_says(model, sample), trainer_says(learner, sample)
    assert read_card(model).output("depth").quantity == "relative_disparity"
    np.testing.assert_allclose(said.depth_relative, expected.depth[0].clamp(0, 1), atol=1e-4)
    np.testing.assert_allclose(said.mask, expected.amodal[0].clamp(0, 1), atol=1e-4)


def test_tasks_do_not_share_their_noise(tmp_path: Path) -> None:
    write_backbone_checkpoint(tmp_path / "checkpoint", ["depth", "alpha"], kind="lotus_g")
    model = export(tmp_path / "checkpoint", tmp_path / "model", "--size", "64x64")
    assert read_card(model).noise.channels == 2 * 48
    estimator, rgb = Estimator.load(model, "cpu", threads=1), toy_pair(5).rgb
    steady, again = estimator.predict(rgb), estimator.predict(rgb)
    other = estimator.predict(rgb, noise_mode="random")
    np.testing.assert_array_equal(steady.alpha, again.alpha)
    assert np.abs(steady.alpha - other.alpha).max() > 1e-3


@pytest.mark.parametrize(
    ("objective", "scheduler"),
    [
        ({"kind": "multi_step", "prediction_type": "v_prediction", "num_inference_steps": 3}, "ddim"),
        ({"kind": "flow_matching", "num_inference_steps": 2}, "euler_flow"),
    ],
)
def test_several_steps_become_three_graphs(tmp_path: Path, objective: dict[str, Any], scheduler: str) -> None:
    """The first step of the three graphs says what the graph of a single step says for the same noise."""
    write_backbone_checkpoint(tmp_path / "checkpoint", ["depth", "flow"], **objective)
    model = export(tmp_path / "checkpoint", tmp_path / "model", "--size", "64x64")
    card, sample = read_card(model), toy_pair(6)
    assert card.sampler.scheduler == scheduler
    assert card.sampler.num_inference_steps == objective["num_inference_steps"]
    assert max(card.parity.values()) < 1e-3
    assert robot_says(model, sample).flow.shape == (64, 64, 2)
    one = Estimator.load(model, "cpu", threads=1).predict(sample.rgb, tasks=["depth"], steps=1)

    options = ["--size", "64x64", "--steps", "1", "--tasks", "depth"]
    fused = export(tmp_path / "checkpoint", tmp_path / "fused", *options)
    noise = np.random.default_rng(0).standard_normal((1, 96, 16, 16), dtype=np.float32)[:, :48]  # depth comes first
    session = onnxruntime.InferenceSession(str(fused / "model.onnx"), providers=["CPUExecutionProvider"])
    image = np.ascontiguousarray(collate([sample]).image.numpy())
    (depth,) = session.run(["depth"], {"image": image, "noise": np.ascontiguousarray(noise)})
    np.testing.assert_allclose(one.depth_relative, np.clip((depth[0, 0] + 1) / 2, 0, 1), atol=1e-3)


def test_one_step_of_a_noise_prediction_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_backbone_checkpoint(checkpoint, ["depth"], kind="multi_step", prediction_type="epsilon")
    arguments = ["export", "native", "--checkpoint", str(checkpoint), "-o", str(tmp_path / "model"), "--steps", "1"]
    assert main(arguments) == 2
    assert "which in a single step from pure noise leaves nothing of the annotation" in capsys.readouterr().err


def test_contradictions_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_backbone_checkpoint(tmp_path / "checkpoint", ["depth", "disparity", "mask", "amodal"], kind="lotus_d")
    arguments = ["export", "native", "--checkpoint", str(tmp_path / "checkpoint"), "-o", str(tmp_path / "model")]
    for options, words in (
        ([], "'depth' and 'disparity' are both the output 'depth' of a model"),
        (["--tasks", "mask,amodal"], "'mask' and 'amodal' are both the output 'mask'"),
        (["--tasks", "depth,flow"], "was not trained on 'flow': choose from depth, disparity, mask, amodal"),
        (["--tasks", "depth", "--metric"], "--metric is for onestep networks"),
        (["--tasks", "depth", "--steps", "3"], "native models predict in one step"),
        (["--tasks", "depth", "--noise", "input"], "takes no noise"),
        (["--tasks", "depth", "--size", "60x64"], "the nearest size is 64x64"),
        (["--tasks", "depth", "--credits", "nowhere.md"], "nowhere.md cannot be read"),
    ):
        assert main([*arguments, *options]) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "model").exists()
