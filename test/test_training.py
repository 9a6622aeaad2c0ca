"""The trainer on toy rooms: it learns, it can be cut anywhere, and it says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_rooms import write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.checkpoint import latest_checkpoint, load_weights, read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.muon import orthogonal
from diffusion_perception_ros.training.network import NetworkConfig, OneStepNet
from diffusion_perception_ros.training.trainer import BEST, Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(240))
    write_toy_shard(folder / "val", range(5000, 5040))
    return folder


def write_config(path: Path, data: Path, **run: object) -> Path:
    fields = {
        "name": "toy",
        "data": {
            "train": str(data / "train"),
            "validation": str(data / "val"),
            "sizes": [[64, 64]],
            "batch_size": 8,
        },
        "optimiser": {"warmup_steps": 10, "ema": 0.95},
        "run": {"threads": 1, "log_steps": 1, "validation_samples": 40, **run},
    }
    path.write_text(yaml.safe_dump(fields))
    return path


def evaluations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


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
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert list((tmp_path / "run" / "pictures").glob("*.jpg"))


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

    larger = load_config(tmp_path / "second.yaml", [f"init_from={weights}", "network.size=M"])
    with pytest.raises(InputError, match=r"belongs to another network: 'decoder"):
        Trainer(larger, tmp_path / "third")


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_cut_by_sigterm_continues_to_the_same_weights(tmp_path: Path, data: Path, optimiser: str) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=14)
    settings = [f"optimiser.kind={optimiser}"]
    Trainer(load_config(config, settings), tmp_path / "whole").train()

    command = [sys.executable, "-m", "diffusion_perception_ros.cli.main", "train", str(config)]
    command += ["-o", str(tmp_path / "cut"), "--set", *settings]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", "")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 1 "):
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


def train_in_two_processes(config: Path, run: Path, *settings: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--module"]
    command += ["diffusion_perception_ros.cli.main", "train", str(config), "-o", str(run)]
    for setting in settings:
        command += ["--set", setting]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=500)


def test_two_processes_train_together(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=40, validate_minutes=60)
    train_in_two_processes(config, tmp_path / "run")
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


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=2)
    Trainer(load_config(config), tmp_path / "run").train()
    wild = load_config(config, ["run.max_steps=20", "optimiser.learning_rate=1.0e+30", "optimiser.warmup_steps=0"])
    with pytest.raises(InputError, match=r"at step \d+ on the samples seed \d+.*step_00000002"):
        Trainer(wild, tmp_path / "run").train()
    good = latest_checkpoint(tmp_path / "run")
    assert good is not None
    assert good.name == "step_00000002"
    assert all(torch.isfinite(value).all() for value in load_file(good / "network.safetensors").values())


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("in the way")
    assert Trainer(load_config(config), run).train()
    assert "could not be written" in capfd.readouterr().err
    assert len(evaluations(run)) == 1


def test_a_run_folder_of_another_network_is_refused(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    Trainer(load_config(config), tmp_path / "run").train()
    with pytest.raises(InputError, match="another network"):
        Trainer(load_config(config, ["objective.kind=lotus_g"]), tmp_path / "run")
    other = OneStepNet(NetworkConfig(classes=7))
    with pytest.raises(InputError, match=r"labelling\.out\.bias"):
        load_weights(other, tmp_path / "run" / BEST / "ema.safetensors")


def test_the_stochastic_variant_trains(tmp_path: Path, data: Path) -> None:
    config = load_config(write_config(tmp_path / "toy.yaml", data, max_steps=2), ["objective.kind=lotus_g"])
    assert Trainer(config, tmp_path / "run").train()
    assert read_checkpoint(tmp_path / "run" / BEST).network.noise_channels == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lerning_rate=1", "optimiser.lerning_rate: unknown key"),
        ("run.max_minutes=5", "either 'max_steps' or 'max_minutes'"),
        ("data.sizes=[[60, 64]]", "multiples of 32"),
        ("augmentation.zoom=[1.0, 0.5]", "from low to high"),
        ("network={kind: onestep, size: XL}", "network.onestep.size"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, data: Path, override: str, message: str) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    with pytest.raises(InputError, match=r"toy\.yaml") as error:
        load_config(config, [override])
    assert message in str(error.value)


CONFIGS = sorted((Path(__file__).parents[1] / "config" / "train").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path).name in (path.stem.replace("_", "-"), path.stem)


def test_bad_config_files_and_data_end_with_exit_code_2(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [unclosed")
    assert main(["train", str(broken)]) == 2
    assert main(["train", str(tmp_path / "absent.yaml")]) == 2
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    arguments = ["train", str(config), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--set", "data.minimum_samples=1000"]) == 2
    assert main([*arguments, "--set", f"data.train={tmp_path / 'nothing'}"]) == 2
    messages = capsys.readouterr().err
    for part in ("broken.yaml is not YAML", "absent.yaml cannot be read", "240 samples", "nothing"):
        assert part in messages
