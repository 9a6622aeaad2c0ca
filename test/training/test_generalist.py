"""Every task of a generalist: rendered ground truth as pictures and back, scores, and a network that learns them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from backbone_factory import SMALL_UNET
from sampled_model_factory import OUTPUTS, write_prompted_model
from toy_rooms import toy_pair, toy_room

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.augment import AugmentationConfig, random_view, shift_previous
from diffusion_perception_ros.datasets.shards import ShardWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.metrics.objects import alpha_scores, keypoint_scores, mask_scores
from diffusion_perception_ros.sample import JOINTS, Sample
from diffusion_perception_ros.training.batches import Batch, collate
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.diffusion.annotations import FLOW_LIMIT, annotate, emphasis, estimates_of
from diffusion_perception_ros.training.diffusion.drawings import JOINT_COLOURS, joints_of
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner
from diffusion_perception_ros.training.diffusion.losses import latent_loss
from diffusion_perception_ros.training.diffusion.prompts import condition, draw_prompts, point_map, visible_part
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.settings.names import TASKS
from diffusion_perception_ros.training.trainer import Trainer
from diffusion_perception_ros.training.validation import mean_error, validate
from diffusion_perception_ros.world.config import TARGETS, SceneMixture, WorldConfig
from diffusion_perception_ros.world.generate import render_sample


SIZE = (160, 128)


@pytest.fixture(scope="module")
def rendered() -> Batch:
    """Two pictures of people in rooms."""
    only_people = SceneMixture(**dict.fromkeys(SceneMixture.model_fields, 0.0) | {"portrait": 1.0})
    config = WorldConfig(targets=TARGETS, mixture=only_people)
    return collate([render_sample(seed, config, *SIZE) for seed in (5, 8)])


def answer(task: str, batch: Batch, **options: Any) -> Estimates:
    """What is read from the true annotation."""
    prompts = draw_prompts(batch, torch.Generator().manual_seed(0)) if task == "mask" else None
    annotation = annotate(task, batch, torch.Generator().manual_seed(1), prompts, **options)
    assert annotation.picture.shape == batch.image.shape
    assert annotation.picture.abs().max() <= 1.0 + 1e-6
    assert annotation.known.any()
    said = estimates_of(task, annotation.picture)
    said.objects = None if prompts is None else prompts.objects
    return said


@pytest.mark.parametrize(
    ("task", "options", "bounds"),
    [
        ("mask", {}, {"mask_iou": 0.999}),
        ("amodal", {}, {"amodal_iou": 0.999}),
        ("entity", {"colouring": "random"}, {"entity_coverage": 0.6}),
        ("entity", {"colouring": "position"}, {"entity_coverage": 0.5}),
        ("pose", {}, {"pose_pck": 0.85, "pose_precision": 0.99}),
        ("alpha", {}, {"alpha_mae": -1e-3}),
        ("flow", {}, {}),
    ],
)
def test_rendered_truth_survives_its_picture(
    rendered: Batch, task: str, options: dict[str, Any], bounds: dict[str, float]
) -> None:
    scores = validate(lambda _: answer(task, rendered, **options), [rendered])
    for name, bound in bounds.items():  # negative: an error, at most
        assert scores[name] <= -bound if bound < 0 else scores[name] >= bound, scores
    if task == "flow":
        assert 0 < scores["flow_epe"] < 0.25 * scores["still_flow_epe"]  # vectors beyond the limit are cut
    if task == "amodal":
        assert scores["visible_amodal_iou"] < 0.97
    if task == "entity":
        assert scores["entity_coverage"] > 3 * scores["one_entity_coverage"]
    assert np.isfinite(mean_error(scores))


def test_joints_are_named_by_their_colours(rendered: Batch) -> None:
    colours = np.array(JOINT_COLOURS)
    assert len(colours) == len(JOINTS)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + 9 * np.eye(len(colours))
    assert apart.min() >= 0.5
    people = np.zeros((1, 17, 3), np.float32)
    people[0, 9] = 12, 20, 2  # the left wrist alone
    batch = collate([Sample(rgb=np.zeros((48, 64, 3), np.uint8), keypoints=people)])
    (found,) = answer("pose", batch).keypoints
    np.testing.assert_allclose(found, [(12, 20, 1, JOINTS.index("left_wrist"))], atol=0.01)
    smeared = annotate("pose", batch).picture[0].numpy() / 2 + 0.5
    smeared = np.clip(smeared + np.random.default_rng(0).normal(0, 0.05, smeared.shape), 0, 1).astype(np.float32)
    assert {int(row[3]) for row in joints_of(smeared)} == {9}
    unknown = collate(
        [Sample(rgb=np.zeros((48, 64, 3), np.uint8)), Sample(rgb=np.zeros((48, 64, 3), np.uint8), keypoints=people)]
    )
    assert annotate("pose", unknown).known.flatten(1).any(1).tolist() == [False, True]


def test_prompts_point_at_the_object(rendered: Batch) -> None:
    prompts = draw_prompts(rendered, torch.Generator().manual_seed(3))
    height, width = rendered.image.shape[2:]
    for ids, chosen, points in zip(rendered.instances, prompts.objects, prompts.points, strict=True):
        assert chosen > 0
        u, v = (points[:, 0] * width).long(), (points[:, 1] * height).long()
        used = points[:, :2].any(1)
        assert points[0, 2] == 1
        assert (ids[v, u] == chosen)[used].float().tolist() == points[used, 2].tolist()
    spots = condition("mask", rendered, prompts)
    assert spots.shape == rendered.image.shape
    single = point_map(torch.tensor([[[0.25, 0.5, 1.0]]]), 64, 96)[0]
    assert divmod(int(single[0].argmax()), 96)[1] in (23, 24)
    assert single[0].max() > 0.9
    assert (single[1] == -1).all()
    empty = draw_prompts(
        collate([Sample(rgb=np.zeros((8, 8, 3), np.uint8), instances=np.zeros((8, 8), np.uint16))]), torch.Generator()
    )
    assert not empty.objects.any()
    assert (visible_part(rendered) <= (rendered.amodal > 0)).all()
    assert condition("flow", rendered, None) is rendered.previous
    assert condition("depth", rendered, None) is None


def test_scores_of_masks_opacity_and_joints() -> None:
    truth = np.zeros((4, 6), bool)
    truth[:, :3] = True
    assert mask_scores(truth, truth) == {"iou": 1.0}
    assert mask_scores(~truth, truth) == {"iou": 0.0}
    assert mask_scores(np.ones_like(truth), truth) == {"iou": 0.5}
    assert np.isnan(mask_scores(~truth & truth, truth & ~truth)["iou"])
    alpha = truth.astype(np.float32)
    alpha[0, 0] = np.nan
    assert alpha_scores(np.full((4, 6), 0.5), alpha) == {"mae": 0.5, "sad": 0.0115}
    people = np.zeros((1, 17, 3))
    people[0, :2] = (10, 10, 2), (10, 30, 2)  # 20 high: within 4 pixels
    found = np.array([(12.0, 11, 0.9, 0), (10, 30, 0.9, 5)])
    assert keypoint_scores(found, people) == {"pck": 0.5, "precision": 0.5}
    assert keypoint_scores(found[:, :3], people) == {"pck": 1.0, "precision": 1.0}
    assert keypoint_scores(np.zeros((0, 4)), people)["pck"] == 0.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    for name, seeds in (("train", range(160)), ("val", range(5000, 5016))):
        writer = ShardWriter(folder / name / "a", len(seeds), 64, 64, TARGETS)
        for seed in seeds:
            writer.append(toy_pair(seed), seed)
        writer.finish()
    return folder


def write_config(path: Path, data: Path, tasks: list[str], objective: dict[str, Any], steps: int) -> Path:
    fields = {
        "name": "toy",
        "network": {"kind": "unet", "tasks": tasks, "config": SMALL_UNET},
        "objective": objective,
        "data": {"train": str(data / "train"), "validation": str(data / "val"), "sizes": [[32, 32]], "batch_size": 32},
        "augmentation": {"zoom": [1.0, 1.0], "aspect": 0.0},
        "optimiser": {"learning_rate": 2e-3, "warmup_steps": 5, "ema": 0.9},
        "run": {"threads": 1, "validation_samples": 16, "max_steps": steps, "score": "tasks"},
    }
    path.write_text(yaml.safe_dump(fields))
    return path


def scores(run: Path) -> dict[str, float]:
    return json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])["scores"]


def test_one_network_learns_all_tasks_by_their_embedding(tmp_path: Path, data: Path) -> None:
    write_config(tmp_path / "toy.yaml", data, list(TASKS), {"kind": "lotus_d", "detail_preserver": False}, 150)
    Trainer(load_config(tmp_path / "toy.yaml", ["run.max_steps=1"]), tmp_path / "untrained").train()
    assert Trainer(load_config(tmp_path / "toy.yaml"), tmp_path / "run").train()
    before, after = scores(tmp_path / "untrained"), scores(tmp_path / "run")
    assert after["abs_rel"] < min(before["abs_rel"], after["constant_abs_rel"])
    assert after["normals_mean"] < 0.8 * before["normals_mean"]
    assert after["alpha_mae"] < 0.5 * before["alpha_mae"]
    assert after["pixel_accuracy"] > 5 * before["pixel_accuracy"]
    assert after["entity_coverage"] > after["one_entity_coverage"]
    assert mean_error(after) < 0.9 * mean_error(before)
    assert {"flow_epe", "mask_iou", "amodal_iou", "pose_pck"} <= after.keys()
    assert list((tmp_path / "run" / "pictures").glob("*.jpg"))


def test_masks_are_learnt_from_points_and_visible_parts(tmp_path: Path, data: Path) -> None:
    objective = {"kind": "lotus_d", "detail_preserver": False}
    write_config(tmp_path / "toy.yaml", data, ["mask", "amodal"], objective, 170)
    assert Trainer(load_config(tmp_path / "toy.yaml", ["data.batch_size=24"]), tmp_path / "run").train()
    found = scores(tmp_path / "run")
    assert found["mask_iou"] > 2 * found["whole_mask_iou"]
    assert found["amodal_iou"] > 0.5


def test_what_is_drawn_counts_more() -> None:
    picture = torch.full((1, 3, 8, 8), -1.0)
    picture[..., 5, 6] = 1.0
    weights = emphasis("mask", picture)
    assert weights[0, 0, 5, 6] == 5
    assert weights.sum() == 63 + 5
    assert (emphasis("depth", picture) == 1).all()
    known = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    said, target = torch.zeros(1, 48, 2, 2), torch.zeros(1, 48, 2, 2)
    said[..., 1, 1] = 1.0  # wrong where something is drawn
    assert latent_loss(said, target, known) == 0.25
    assert latent_loss(said, target, known, weights) == 5 / 8


def test_a_shifted_picture_before_keeps_the_flow_exact() -> None:
    sample = toy_pair(7)
    moved = shift_previous(sample, 3, -2)
    v, u = np.mgrid[12:50, 14:50]
    du, dv = (moved.flow[v, u].transpose(2, 0, 1)).astype(int)
    np.testing.assert_array_equal(moved.previous[v + dv, u + du], sample.rgb[v, u])
    view = AugmentationConfig(zoom=(1.0, 1.0), aspect=0.0, shift=0.0, flip=0.0, previous_shift=0.1)
    flows = {tuple(random_view(sample, 64, 64, np.random.default_rng(seed), view).flow[0, 0]) for seed in range(6)}
    assert len(flows) > 3


class Recorder(torch.nn.Module):
    """Stands for the network: keeps what it was given, answers zero."""

    def forward(self, inputs: torch.Tensor, timesteps: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        self.inputs, self.tasks = inputs, task
        return torch.zeros_like(inputs[:, :48])


def test_every_picture_of_a_batch_is_shown_what_its_own_task_needs(tmp_path: Path, data: Path) -> None:
    tasks = ["depth", "amodal", "flow"]
    config = load_config(write_config(tmp_path / "toy.yaml", data, tasks, {"kind": "lotus_d"}, 1))
    learner, recorder = DiffusionLearner(config), Recorder()
    batch = collate([toy_pair(seed) for seed in range(12)])
    learner.losses(recorder, batch, torch.Generator().manual_seed(0))  # the last pass reconstructs: nothing is shown
    assert recorder.inputs.shape[1] == 2 * 48  # the picture, and what is shown
    assert recorder.tasks == len(tasks)
    assert not recorder.inputs[:, 48:].any()
    plain = config.model_copy(update={"objective": config.objective.model_copy(update={"detail_preserver": False})})
    terms = DiffusionLearner(plain).losses(recorder, batch, torch.Generator().manual_seed(0))
    assert set(terms) == {"annotation"}
    assert set(recorder.tasks.tolist()) == {0, 1, 2}
    expected = {1: condition("amodal", batch, None), 2: batch.previous}
    for row, task in enumerate(recorder.tasks.tolist()):
        shown = learner.codec.decode(recorder.inputs[row : row + 1, 48:])[0]
        assert torch.equal(shown, expected[task][row] if task else torch.zeros_like(shown))
        assert torch.equal(learner.codec.decode(recorder.inputs[row : row + 1, :48])[0], batch.image[row])


def test_a_sampling_network_draws_entities_in_random_colours(tmp_path: Path, data: Path) -> None:
    objective = {"kind": "flow_matching", "num_inference_steps": 4}
    write_config(tmp_path / "toy.yaml", data, ["entity", "mask"], objective, 5)
    assert Trainer(load_config(tmp_path / "toy.yaml"), tmp_path / "run").train()
    assert {"entity_coverage", "mask_iou"} <= scores(tmp_path / "run").keys()
    first, second = (
        annotate("entity", collate([toy_pair(1)]), torch.Generator().manual_seed(seed), colouring="random").picture
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_data_without_what_the_tasks_need_is_refused(tmp_path: Path, data: Path) -> None:
    writer = ShardWriter(tmp_path / "bare" / "a", 2, 64, 64)
    for seed in (1, 2):
        writer.append(toy_room(seed), seed)
    writer.finish()
    write_config(tmp_path / "toy.yaml", data, ["flow", "pose"], {"kind": "genpercept"}, 5)
    config = load_config(tmp_path / "toy.yaml", [f"data.train={tmp_path / 'bare'}", "data.batch_size=2"])
    with pytest.raises(
        InputError, match=r"ground truth of none of the tasks flow, pose: render .* with the `targets`"
    ):
        Trainer(config, tmp_path / "run").train()


def test_flow_pictures_hold_the_vectors() -> None:
    sample = toy_pair(4)
    batch = collate([sample])
    annotation = annotate("flow", batch)
    assert annotation.picture[0, 0, 5, 5].item() == pytest.approx(sample.flow[5, 5, 0] / (FLOW_LIMIT * 64))
    assert torch.equal(estimates_of("flow", annotation.picture).flow, batch.flow)


def test_evaluate_asks_what_the_card_asks_for(tmp_path: Path) -> None:
    """The model's opacity is the red channel, its mask is the prompt, its flow the change of brightness."""
    hint = {"task": "mask", "tensor": "hint", "range": [0.0, 1.0]}
    outputs = [{"task": task, **OUTPUTS[task]} for task in ("alpha", "flow")]
    prompts = ["second_image", "prompt_mask"]
    model = write_prompted_model(tmp_path / "tiny", [], prompts=prompts, card={"outputs": [*outputs, hint]})
    writer = ShardWriter(tmp_path / "shards" / "a", 2, 64, 64, ["flow", "alpha", "amodal"])
    for seed, blue in enumerate((20, 220)):
        instances, amodal = np.zeros((2, 64, 64), np.uint16)
        instances[16:48, 16:48], amodal[16:48, 16:56] = 1, 1  # a fifth of it is hidden
        rgb = np.full((64, 64, 3), (0, 0, blue), np.uint8)
        rgb[16:48, 16:48, 0] = 255
        flow = np.full((64, 64, 2), (3.0, 4.0), np.float32)
        alpha = (instances > 0).astype(np.float32)
        sample = Sample(rgb, instances=instances, previous=rgb, flow=flow, alpha=alpha, amodal=amodal)
        writer.append(sample, seed)
    writer.finish()
    arguments = ["--data", str(tmp_path / "shards"), "--model", str(model), "--backend", "cpu", "--threads", "1"]
    assert main(["evaluate", *arguments, "--json", str(tmp_path / "scores.json")]) == 0
    tasks = json.loads((tmp_path / "scores.json").read_text())["tasks"]
    found = {task: groups["all"] for task, groups in tasks.items()}
    assert found["mask"]["model"]["iou"] == pytest.approx(0.8, abs=0.03)
    assert found["mask"]["whole_image"]["iou"] == pytest.approx(32 * 40 / 64**2)
    assert found["alpha"]["model"]["mae"] < 0.03 < found["alpha"]["no_foreground"]["mae"]
    assert found["flow"]["model"]["epe"] == pytest.approx(5.0, abs=0.01)  # nothing changed since the picture before
    assert found["flow"]["model"]["images"] == 2
