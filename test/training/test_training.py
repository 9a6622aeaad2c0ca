"""The trainer on toy rooms: it learns, can be cut anywhere, and runs in several processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from toy_rooms import toy_room, write_toy_shard
from toy_runs import LAUNCHER, environment, evaluations, train_command, train_in_two_processes, write_config

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.training.checkpoint import latest_checkpoint, read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.engine import TrainingEngine
from diffusion_perception_ros.training.muon import orthogonal
from diffusion_perception_ros.training.trainer import BEST, Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(240))
    write_toy_shard(folder / "val", range(5000, 5040))
    return folder


def test_training_learns_unseen_rooms(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=160, validate_minutes=0.02)
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 0
    first, *_, last = [record["scores"] for record in evaluations(tmp_path / "run")]
    assert last["abs_rel"] < first["abs_rel"]
    assert last["abs_rel"] < 0.8 * last["constant_abs_rel"]
    assert last["normals_mean"] < 0.9 * first["normals_mean"]
    assert last["metric_abs_rel"] < first["metric_abs_rel"]
    best = read_checkpoint(tmp_path / "run" / BEST)
    assert best.state["evaluation"]["scores"]["abs_rel"] == min(
        r["scores"]["abs_rel"] for r in evaluations(tmp_path / "run")
    )
    assert list((tmp_path / "run" / "pictures").glob("*.jpg"))
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"loss/total", "loss/normals", "validation/abs_rel", "run/learning_rate"} <= set(curves.Tags()["scalars"])
    steps = [event.step for event in curves.Scalars("validation/abs_rel")]
    assert steps == [record["step"] for record in evaluations(tmp_path / "run")]
    assert [event.step for event in curves.Images("validation/pictures")][-1] == steps[-1]
    assert main(["research", "curves", str(tmp_path / "run"), "-o", str(tmp_path / "curves.png")]) == 0
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10
    assert main(["research", "curves", str(tmp_path / "no-run"), "-o", str(tmp_path / "none.png")]) == 2
    assert not (tmp_path / "none.png").exists()


def test_a_run_starts_from_given_weights(tmp_path: Path, data: Path) -> None:
    write_config(tmp_path / "first.yaml", data, max_steps=60)
    first = Trainer(load_config(tmp_path / "first.yaml"), tmp_path / "first")
    first.train()
    weights = tmp_path / "first" / BEST / "ema.safetensors"
    write_config(tmp_path / "second.yaml", data, max_steps=1)
    second = Trainer(load_config(tmp_path / "second.yaml", [f"init_from={weights}"]), tmp_path / "second")
    second.train()
    scores = evaluations(tmp_path / "second")[0]["scores"]
    assert scores["abs_rel"] == pytest.approx(evaluations(tmp_path / "first")[-1]["scores"]["abs_rel"], rel=0.1)

    other = load_config(tmp_path / "second.yaml", [f"init_from={weights}", "objective.kind=lotus_g"])
    with pytest.raises(InputError, match=r"belongs to another network: 'stem"):
        Trainer(other, tmp_path / "third")


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_cut_by_sigterm_continues_to_the_same_weights(tmp_path: Path, data: Path, optimiser: str) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=14)
    settings = [f"optimiser.kind={optimiser}"]
    Trainer(load_config(config, settings), tmp_path / "whole").train()

    command = [sys.executable, "-m", *train_command(config, tmp_path / "cut", *settings)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 1 "):
            assert "min left" in line
            assert "pictures/s" in line
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait(timeout=120) == 130
    cut = latest_checkpoint(tmp_path / "cut")
    assert cut is not None
    assert 1 <= read_checkpoint(cut).state["step"] < 14

    assert Trainer(load_config(config, settings), tmp_path / "cut").train()
    for name in ("network.safetensors", "ema.safetensors", "optimiser.safetensors"):
        whole, resumed = (load_file(latest_checkpoint(tmp_path / run) / name) for run in ("whole", "cut"))
        assert whole.keys() == resumed.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, resumed[key]), f"{name} {key}"


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_layers_learn_at_their_own_rates(tmp_path: Path, data: Path, optimiser: str) -> None:
    config = write_config(tmp_path / "toy.yaml", data, validation_samples=2)
    moved = {}
    for rate in (1.0, 0.1):
        rates = f"optimiser.rates={{decoder: 0, decoder.2: {rate}}}"
        weights = []
        for steps in (1, 2):
            settings = [f"run.max_steps={steps}", f"optimiser.kind={optimiser}", "optimiser.weight_decay=0", rates]
            run = tmp_path / f"{rate}_{steps}"
            Trainer(load_config(config, settings), run).train()
            weights.append(load_file(latest_checkpoint(run) / "network.safetensors"))
        first, second = weights
        assert torch.equal(first["decoder.0.reduce.weight"], second["decoder.0.reduce.weight"])
        moved[rate] = (first["decoder.2.reduce.weight"] - second["decoder.2.reduce.weight"]).norm()
        assert not torch.equal(first["geometry.out.weight"], second["geometry.out.weight"])
    assert moved[0.1] < 0.3 * moved[1.0]


def test_muon_learns_more_from_the_same_pictures(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=40, validate_minutes=60)
    scores = {}
    for kind, rate in (("adamw", 1.6e-3), ("muon", 4e-3)):
        settings = [f"optimiser.kind={kind}", f"optimiser.learning_rate={rate}"]
        Trainer(load_config(config, settings), tmp_path / kind).train()
        (record,) = evaluations(tmp_path / kind)
        scores[kind] = record["scores"]
    assert scores["muon"]["abs_rel"] < scores["adamw"]["abs_rel"]
    assert scores["muon"]["abs_rel"] < 0.9 * scores["muon"]["constant_abs_rel"]


@pytest.mark.parametrize("shape", [(24, 200), (200, 24), (32, 32)])
def test_the_update_of_muon_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(-2, 1, shape[1])
    u, before, v = torch.linalg.svd(matrix, full_matrices=False)
    after = torch.linalg.svdvals(orthogonal(matrix))
    assert after.max() < 1.2
    clear = int((before > 0.01 * before.norm()).sum())  # five steps do not lift the smallest of a square matrix
    assert after[:clear].min() > 0.7
    assert torch.nn.functional.cosine_similarity(orthogonal(matrix).reshape(-1), (u @ v).reshape(-1), dim=0) > 0.9


def test_a_compiled_run_takes_the_same_steps(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=3)
    trainers = {
        compiled: Trainer(load_config(config, [f"run.compile={compiled}"]), tmp_path / str(compiled))
        for compiled in (False, True)
    }
    for trainer in trainers.values():
        trainer.train()
    plain, compiled = (evaluations(tmp_path / str(key))[-1]["scores"] for key in (False, True))
    assert compiled["abs_rel"] == pytest.approx(plain["abs_rel"], rel=1e-3)


def test_two_machines_train_together(tmp_path: Path, data: Path) -> None:
    """Two launchers that only know one address, each with one process, as on two machines."""
    config = write_config(tmp_path / "toy.yaml", data, max_steps=40, validate_minutes=60)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ["--master_addr", "127.0.0.1", "--master_port", str(free.getsockname()[1])]
    launcher = [*LAUNCHER, "--nnodes", "2", "--nproc_per_node", "1", *address]
    machines = [
        subprocess.Popen(
            [*launcher, "--node_rank", str(rank), "--module", *train_command(config, tmp_path / "run")],
            env=environment(),
        )
        for rank in (0, 1)
    ]
    assert [machine.wait(timeout=500) for machine in machines] == [0, 0]
    (record,) = evaluations(tmp_path / "run")
    assert record["samples"] == 40 * 8 * 2
    assert record["scores"]["abs_rel"] < record["scores"]["constant_abs_rel"]


def test_sharded_processes_take_the_same_steps_and_can_be_continued(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=4, validate_minutes=60)
    train_in_two_processes(config, tmp_path / "copies")
    train_in_two_processes(config, tmp_path / "shards", "run.fully_shard=true")
    for name in ("network.safetensors", "optimiser.safetensors"):
        copies, shards = (load_file(latest_checkpoint(tmp_path / run) / name) for run in ("copies", "shards"))
        assert copies.keys() == shards.keys()
        for key, tensor in copies.items():
            if "running" not in key:  # statistics of each process's own pictures
                torch.testing.assert_close(shards[key], tensor, atol=2e-3, rtol=0.05, msg=lambda m, k=key: f"{k}: {m}")

    train_in_two_processes(config, tmp_path / "shards", "run.fully_shard=true", "run.max_steps=6")
    single = Trainer(load_config(config, ["run.max_steps=7"]), tmp_path / "shards")
    assert single.step == 6
    assert single.train()


def test_the_stochastic_variant_trains_and_is_exported(tmp_path: Path, data: Path) -> None:
    config = load_config(write_config(tmp_path / "toy.yaml", data, max_steps=2), ["objective.kind=lotus_g"])
    assert Trainer(config, tmp_path / "run").train()
    assert read_checkpoint(tmp_path / "run" / BEST).network.noise_channels == 4
    model = tmp_path / "model"
    assert main(["export", "native", "--checkpoint", str(tmp_path / "run" / BEST), "-o", str(model)]) == 0
    estimator, rgb = Estimator.load(model, "cpu", threads=1), toy_room(0).rgb
    answers = []
    for seed in (0, 0, 1):
        answers.append(estimator.predict(rgb, seed=seed).normals)
    assert (answers[0] == answers[1]).all()
    assert (answers[0] != answers[2]).any()


def test_bf16_takes_nearly_the_same_steps_and_keeps_its_weights_in_fp32(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=2, validation_samples=8)
    Trainer(load_config(config, ["run.precision=fp32", "data.batch_size=4"]), tmp_path / "fp32").train()
    command = train_command(config, tmp_path / "bf16", "run.precision=bf16", "data.batch_size=4")
    subprocess.run([sys.executable, "-m", *command], env=environment(), check=True)
    kinds = ("fp32", "bf16")
    full, half = (load_file(tmp_path / kind / "checkpoints/step_00000002/network.safetensors") for kind in kinds)
    assert {name: tensor.dtype for name, tensor in half.items()} == {
        name: tensor.dtype for name, tensor in full.items()
    }
    assert any((full[name] != half[name]).any() for name in full)
    angles = [evaluations(tmp_path / kind)[0]["scores"]["normals_mean"] for kind in kinds]
    assert angles[0] == pytest.approx(angles[1], rel=0.05)


def test_accumulated_batches_count_as_one(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    torch.manual_seed(0)
    inputs, targets, networks = torch.randn(8, 3), torch.randn(8, 2), []
    for parts in (1, 2):
        torch.manual_seed(1)
        engine = TrainingEngine(load_config(config, [f"optimiser.accumulation={parts}"]))
        engine.start(nn.Linear(3, 2))
        norms = []
        for some, wanted in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            with engine.accumulating():
                norms.append(engine.backward((engine.network(some) - wanted).square().mean()))
                engine.update(0.1)
        assert [norm is None for norm in norms] == [True] * (parts - 1) + [False]
        networks.append(engine.network.state_dict())
    torch.testing.assert_close(networks[0], networks[1])


CONFIGS = sorted((Path(__file__).parents[2] / "config" / "train").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path).name in (path.stem.replace("_", "-"), path.stem)
