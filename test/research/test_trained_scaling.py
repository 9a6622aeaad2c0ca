"""Compute at test time and in training (Scaling), on a small transformer that really learns toy rooms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_rooms import write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.mixture_of_experts import MixtureOfExperts
from diffusion_perception_ros.training.checkpoint import AVERAGED, load_weights, read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.diffusion.backbones import new_backbone
from diffusion_perception_ros.training.diffusion.experts import mixtures_of
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner
from diffusion_perception_ros.training.trainer import BEST, Trainer


SMALL_DIT = {
    "sample_size": 8,
    "patch_size": 1,
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rooms to learn from, others to validate on, and the run of a dense network."""
    folder = tmp_path_factory.mktemp("scaling")
    write_toy_shard(folder / "train", range(200))
    write_toy_shard(folder / "val", range(5000, 5016))
    assert Trainer(load_config(write_config(folder)), folder / "dense").train()
    return folder


def write_config(folder: Path, **network: Any) -> Path:
    fields = {
        "name": "toy",
        "network": {"kind": "dit", "tasks": ["depth"], "config": SMALL_DIT, **network},
        "objective": {"kind": "multi_step", "prediction_type": "v_prediction", "num_inference_steps": 2},
        "data": {
            "train": str(folder / "train"),
            "validation": str(folder / "val"),
            "sizes": [[32, 32]],
            "batch_size": 16,
        },
        "optimiser": {"learning_rate": 2e-3, "warmup_steps": 5, "ema": 0.95},
        "run": {"threads": 1, "validation_samples": 16, "max_steps": 200},
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def evaluations(run: Path) -> dict[str, float]:
    return json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])["scores"]


def test_ensembles_are_better_and_their_spread_knows_where_it_is_wrong(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert main(["export", "native", "--checkpoint", str(folder / "dense" / BEST), "-o", str(model)]) == 0
    command = ["scale", str(model), "--data", str(folder / "val"), "--steps", "1,3", "--ensemble", "1,8"]
    assert main([*command, "--threads", "1", "-o", str(tmp_path / "out")]) == 0
    records = json.loads((tmp_path / "out" / "scale.json").read_text())["settings"]
    error = {(record["steps"], record["ensemble_size"]): record["scores"]["depth"]["absrel"] for record in records}
    assert error[1, 1] < evaluations(folder / "dense")["constant_abs_rel"]
    for steps in (1, 3):
        assert error[steps, 8] < error[steps, 1]
    # After one step the members only differ by what the network makes of noise; after several they are other answers.
    sureness = next(record["confidence"]["depth"] for record in records if record["network_evaluations"] == 24)
    assert sureness["correlation"] > 0.15
    assert sureness["aurg"] > 0.1


def test_an_upcycled_network_answers_as_the_dense_one_and_learns_on(folder: Path, tmp_path: Path) -> None:
    dense_file = folder / "dense" / BEST / AVERAGED
    experts = {"count": 4, "upcycle_from": str(dense_file)}
    config = load_config(write_config(folder, experts=experts), ["run.max_steps=120", "optimiser.learning_rate=2e-4"])
    start = DiffusionLearner(config).network.eval()
    dense = new_backbone("dit", SMALL_DIT, 96, 48, 1).eval()
    load_weights(dense, dense_file)
    inputs, timesteps = torch.randn(3, 96, 8, 8), torch.tensor([999, 500, 3])
    with torch.inference_mode():
        torch.testing.assert_close(start(inputs, timesteps, 0), dense(inputs, timesteps, 0), atol=2e-6, rtol=1e-5)
    assert Trainer(config, tmp_path / "experts").train()
    assert evaluations(tmp_path / "experts")["abs_rel"] < 1.02 * evaluations(folder / "dense")["abs_rel"]
    assert not (tmp_path / "experts" / "pipeline").exists()
    learner = DiffusionLearner(config)
    load_weights(learner.network, tmp_path / "experts" / BEST / AVERAGED)
    for mixture in mixtures_of(learner.network.train()):
        first, second = (dict(mixture.experts[index].named_parameters()) for index in (0, 1))
        assert any((first[name] - second[name]).abs().max() > 1e-3 for name in first)  # no longer copies
    learner.network(inputs, timesteps, 0)
    for mixture in mixtures_of(learner.network):
        assert mixture.imbalance is not None
        assert mixture.imbalance < 2.0  # of at most 4: none has all the work
    assert read_checkpoint(tmp_path / "experts" / BEST).identity["experts"] == {"count": 4, "per_token": 2}
    with pytest.raises(InputError, match="another network"):
        Trainer(load_config(write_config(folder)), tmp_path / "experts")


def test_experts_without_a_dense_start_differ_from_each_other(folder: Path) -> None:
    network = DiffusionLearner(load_config(write_config(folder, experts={"count": 3, "per_token": 1}))).network
    mixtures = list(mixtures_of(network))
    assert len(mixtures) == SMALL_DIT["num_layers"]
    weights = [mixtures[0].experts[index].net[2].weight for index in range(3)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize("dense", [False, True])
def test_normalised_experts_are_a_weighted_mean_of_the_best(dense: bool) -> None:
    torch.manual_seed(0)
    layer = MixtureOfExperts([torch.nn.Linear(6, 6) for _ in range(4)], 6, 2, normalised=True, dense=dense)
    tokens = torch.randn(2, 5, 6)
    scores = layer.gate(tokens).softmax(-1)
    best = scores.topk(2, -1)
    expected = torch.zeros_like(tokens)
    for rank in range(2):
        share = best.values[..., rank] / best.values.sum(-1)
        answers = torch.stack([expert(tokens) for expert in layer.experts], -2)
        index = best.indices[..., rank, None, None].expand(-1, -1, 1, 6)
        expected += share[..., None] * answers.gather(-2, index)[..., 0, :]
    torch.testing.assert_close(layer(tokens), expected)
    counts = torch.bincount(best.indices.reshape(-1), minlength=4) / 20
    torch.testing.assert_close(layer.imbalance, 4 * (counts * scores.reshape(-1, 4).mean(0)).sum())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"experts": {"count": 2, "per_token": 3}}, "per_token 3 is more than the 2 experts"),
        ({"experts": {"count": 1}}, "greater than or equal to 2"),
        ({"kind": "unet", "config": {}, "experts": {}}, "'experts' are for 'kind: dit'"),
    ],
)
def test_contradictions_are_named(folder: Path, network: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(write_config(folder, **network))
    assert message in str(error.value)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    path = write_config(folder, experts={"upcycle_from": str(folder / "dense" / BEST / AVERAGED)})
    wider = load_config(path, ["network.config.attention_head_dim=8"])
    with pytest.raises(InputError, match="belongs to another network"):
        DiffusionLearner(wider)
    missing = load_config(path, ["network.experts.upcycle_from=missing.safetensors"])
    with pytest.raises(InputError, match=r"missing\.safetensors cannot be read"):
        DiffusionLearner(missing)
