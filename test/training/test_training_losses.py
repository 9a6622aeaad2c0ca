"""Losses: zero for the truth, blind to what they should not see, and sensitive to what they are there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_rooms import toy_room

from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.batches import Batch, collate
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.onestep.losses import (
    inverse_frequency_weights,
    log_depth_target,
    multi_task_losses,
    surface_loss,
)
from diffusion_perception_ros.training.onestep.network import NetworkOutputs
from diffusion_perception_ros.training.settings.parts import LossWeights
from diffusion_perception_ros.training.validation import validate
from diffusion_perception_ros.world.labels import LABELS


@pytest.fixture
def batch() -> Batch:
    return collate([toy_room(seed) for seed in range(3)])


def truth(batch: Batch) -> NetworkOutputs:
    log_depth, _ = log_depth_target(batch)
    semantic = torch.nn.functional.one_hot(batch.semantic.clamp(max=len(LABELS) - 1), len(LABELS))
    return NetworkOutputs(
        log_depth[:, None],
        torch.full_like(log_depth[:, None], -4.0),
        batch.normals,
        20.0 * semantic.permute(0, 3, 1, 2).float(),
        batch.offsets.nan_to_num(),
    )


def losses(outputs: NetworkOutputs, batch: Batch) -> dict[str, float]:
    return {name: value.item() for name, value in multi_task_losses(outputs, batch, LossWeights()).items()}


def test_the_truth_costs_nothing(batch: Batch) -> None:
    terms = losses(truth(batch), batch)
    assert terms.pop("confidence") == pytest.approx(-4.0)  # log b of a perfect prediction
    assert terms.pop("surface") < 1e-3
    assert all(value == pytest.approx(0.0, abs=1e-4) for value in terms.values())


def test_a_wrong_scale_costs_only_the_metric_term(batch: Batch) -> None:
    right, scaled = truth(batch), truth(batch)
    scaled = scaled._replace(log_depth=scaled.log_depth + 0.5)
    before, after = losses(right, batch), losses(scaled, batch)
    assert after["metric"] == pytest.approx(0.5, abs=1e-3)
    for name in ("scale_invariant", "gradient", "surface", "confidence"):
        assert after[name] == pytest.approx(before[name], abs=1e-3)


def test_a_bent_plane_costs_more_surface_than_its_depth_error_suggests(batch: Batch) -> None:
    columns = torch.arange(64).float()
    ripple = 0.03 * torch.sin(columns / 3.0)
    bent = log_depth_target(batch)[0] + ripple
    assert surface_loss(bent, batch).item() > 0.02


def test_sky_is_pushed_far_without_weighing_much_and_holes_not_at_all() -> None:
    room = toy_room(0)
    assert room.depth is not None
    room.depth[:10] = np.inf
    room.depth[20:24] = np.nan
    batch = collate([room])
    target, weight = log_depth_target(batch)
    assert torch.exp(target[0, 0, 0]).item() * batch.focal[0].item() == pytest.approx(80.0, rel=1e-4)
    assert 0 < weight[0, 0, 0] < 0.5
    assert (weight[0, 20:24] == 0).all()
    assert (weight[0, 30:] == 1).all()


def test_pictures_without_ground_truth_or_camera_give_finite_gradients() -> None:
    bare = collate([Sample(rgb=toy_room(0).rgb)])
    uncalibrated = toy_room(1)
    uncalibrated.intrinsics = None
    for batch in (bare, collate([uncalibrated])):
        outputs = NetworkOutputs(
            *(
                torch.randn(1, c, s, s, requires_grad=True)
                for c, s in ((1, 64), (1, 64), (3, 64), (len(LABELS), 32), (2, 32))
            )
        )
        terms = multi_task_losses(outputs, batch, LossWeights())
        torch.stack(list(terms.values())).sum().backward()
        assert all(torch.isfinite(term) for term in terms.values())
        assert all(output.grad is None or torch.isfinite(output.grad).all() for output in outputs)


def test_class_weights_favour_rare_classes_within_limits() -> None:
    weights = inverse_frequency_weights(torch.tensor([900_000, 90_000, 10_000, 0]))
    assert weights[0] < weights[1] < weights[2]
    assert weights.min() >= 0.4
    assert weights.max() <= 3.0


def test_validation_knows_the_truth_from_the_baselines(batch: Batch) -> None:
    outputs = truth(batch)
    estimates = Estimates(
        depth=torch.exp(outputs.log_depth[:, 0]) * batch.focal[:, None, None],
        normals=outputs.normals,
        semantic=outputs.semantic.argmax(1),
    )
    scores = validate(lambda _: estimates, [batch])
    assert scores["abs_rel"] < 1e-4
    assert scores["metric_abs_rel"] < 1e-4
    assert scores["delta1"] == 1.0
    assert scores["normals_mean"] < 0.1
    assert scores["miou"] == scores["group_miou"] == scores["pixel_accuracy"] == 1.0
    assert scores["constant_abs_rel"] > scores["row_plane_abs_rel"] > 0.05
    assert scores["constant_normals_mean"] > 30.0
    assert 0.0 < scores["majority_miou"] <= scores["majority_group_miou"] < 0.5
