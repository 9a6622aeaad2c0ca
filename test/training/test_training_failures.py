"""What goes wrong in a training run: bad data, a full disk, processes that die, checkpoints that do not fit."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_rooms import toy_room, write_toy_shard
from toy_runs import IN_TWO_PROCESSES, environment, evaluations, train_command, write_config

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.shards import ShardWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.checkpoint import latest_checkpoint, load_weights, write_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet
from diffusion_perception_ros.training.trainer import BEST, Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(240))
    write_toy_shard(folder / "val", range(5000, 5040))
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms whose ceiling has a class id that no class has."""
    folder = tmp_path_factory.mktemp("odd")
    writer = ShardWriter(folder / "00000", 4, 64, 64)
    for seed in range(4):
        room = toy_room(seed)
        assert room.semantic is not None
        room.semantic[:4] = 77
        writer.append(room, seed)
    writer.finish()
    return folder


def test_labels_of_no_class_are_passed_over_with_a_count(
    tmp_path: Path, data: Path, odd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=6)
    both = f"[{{kind: shards, path: {data / 'val'}}}, {{kind: shards, path: {odd}}}]"
    arguments = ["train", str(config), "-o", str(tmp_path / "run"), "--set", f"data.train={both}"]
    arguments += ["--set", f"data.validation={both}", "--set", "run.validation_samples=44"]
    assert main([*arguments, "--set", f"data.real={odd}"]) == 0
    said = capfd.readouterr().err
    assert re.search(r"\d training samples could not be read and were passed over: seed \d has the class id 77", said)
    assert "4 validation samples could not be read" in said
    assert "the real pictures are left out: none of 4 samples can be read" in said
    assert "the 32 classes of 'data.classes' end at 31" in said


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.train", "50 training samples in a row cannot be read, the last because seed"),
        ("data.validation", "none of 4 samples can be read, the first because seed"),
    ],
)
def test_data_of_which_nothing_can_be_used_ends_the_run(
    tmp_path: Path, data: Path, odd: Path, key: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    assert main(["train", str(config), "-o", str(tmp_path / "run"), "--set", f"{key}={odd}"]) == 2
    assert message in capsys.readouterr().err


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


def test_a_full_disk_costs_what_could_not_be_written(tmp_path: Path, data: Path) -> None:
    """In a child that may not let any file grow beyond 100 bytes: every write breaks off, as on a full disk."""
    config, run = write_config(tmp_path / "toy.yaml", data, max_steps=1, validation_samples=8), tmp_path / "run"
    assert Trainer(load_config(config), run).train()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    child = subprocess.run(
        [sys.executable, "-m", *train_command(config, run, "run.max_steps=2")],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    for what in ("step_00000002", "a line of evaluations.jsonl", "a picture"):
        assert re.search(rf"{what} could not be written \(.*too large.*\); training goes on", child.stderr), (
            child.stderr
        )
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert after == before

    trainer = Trainer(load_config(config, ["run.max_steps=2"]), run)
    assert trainer.step == 1
    assert trainer.train()
    assert [record["step"] for record in evaluations(run)] == [1, 2]


def test_a_damaged_checkpoint_costs_what_came_after_the_one_before(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the step that is taken once more is logged with the same loss, a running mean over all steps."""
    run = tmp_path / "run"
    config = load_config(write_config(tmp_path / "toy.yaml", data, max_steps=4, checkpoint_minutes=1e-6))
    Trainer(config, run).train()
    newest = latest_checkpoint(run)
    assert newest is not None
    assert newest.name == "step_00000004"
    weights = newest / "optimiser.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert Trainer(config, run).train()
    assert re.search(r"step_00000004 is left out.*optimiser\.safetensors is damaged", capfd.readouterr().err)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    first, second = (event.value for event in events.Scalars("loss/total") if event.step == 4)
    assert first == second
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000003", "step_00000004"]

    for folder in (run / "checkpoints").iterdir():
        (folder / "checkpoint.json").write_text("{}")
    with pytest.raises(InputError, match=r"no checkpoint of .* is whole, the newest \(step_00000004\)"):
        Trainer(config, run)


@pytest.mark.parametrize("name", ["checkpoint.json", "network.safetensors", "ema.safetensors", "SHA256SUMS"])
def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path: Path, name: str) -> None:
    tensors = {"w": torch.arange(6.0)}
    files = dict.fromkeys(("network.safetensors", "ema.safetensors", "optimiser.safetensors"), tensors)
    write_checkpoint(tmp_path / "checkpoints" / "step_1", {"kind": "toy"}, {"step": 1}, files)
    path = tmp_path / "checkpoints" / "step_1" / name
    whole = path.read_bytes()
    assert latest_checkpoint(tmp_path) == path.parent
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        assert latest_checkpoint(tmp_path) is None
    path.write_bytes(whole[:-2])
    assert latest_checkpoint(tmp_path) is None


def start_in_two_processes(config: Path, run: Path) -> subprocess.Popen[str]:
    """A run without end, when it has taken its first step."""
    command = [*IN_TWO_PROCESSES, *train_command(config, run, "run.max_steps=100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.match(r"step \d+ \(", line):
            return process
    raise AssertionError("".join(lines))


def test_processes_that_are_ended_or_die_cost_at_most_what_came_after_the_last_checkpoint(
    tmp_path: Path, data: Path
) -> None:
    config, run = write_config(tmp_path / "toy.yaml", data, max_steps=1, checkpoint_minutes=60), tmp_path / "run"
    ended = start_in_two_processes(config, run)
    ended.send_signal(signal.SIGTERM)
    ended.communicate(timeout=300)
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

    broken = start_in_two_processes(config, run)
    children = Path(f"/proc/{broken.pid}/task/{broken.pid}/children").read_text().split()
    subprocess.run(["kill", "-KILL", children[-1]], check=True)
    broken.communicate(timeout=300)
    assert broken.returncode != 0
    assert latest_checkpoint(run) == checkpoint
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before

    step = int(checkpoint.name.removeprefix("step_"))
    trainer = Trainer(load_config(config, [f"run.max_steps={step + 1}"]), run)
    assert trainer.step == step >= 1
    assert trainer.train()


def test_a_run_folder_that_cannot_be_written_is_named(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    (tmp_path / "run").write_text("in the way")
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 2
    assert f"{tmp_path / 'run'} cannot be written" in capsys.readouterr().err


def test_a_run_folder_of_another_network_is_refused(tmp_path: Path, data: Path) -> None:
    config = write_config(tmp_path / "toy.yaml", data, max_steps=1)
    Trainer(load_config(config), tmp_path / "run").train()
    with pytest.raises(InputError, match="another network"):
        Trainer(load_config(config, ["objective.kind=lotus_g"]), tmp_path / "run")
    other = OneStepNet(NetworkConfig(classes=7))
    with pytest.raises(InputError, match=r"labelling\.out\.bias"):
        load_weights(other, tmp_path / "run" / BEST / "ema.safetensors")


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
