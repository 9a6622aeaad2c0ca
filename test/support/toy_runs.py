"""Short runs of the trainer on toy rooms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml


ROOT = Path(__file__).parents[2]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run"]
IN_TWO_PROCESSES = [*LAUNCHER, "--nproc_per_node", "2", "--standalone", "--module"]
"""A `train_command` follows."""


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


def environment() -> dict[str, str]:
    """For a child that runs the command from this checkout, with one thread."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def train_command(config: Path, run: Path, *settings: str) -> list[str]:
    """What comes after `python -m`: the command of a run."""
    command = ["diffusion_perception_ros.cli.main", "train", str(config), "-o", str(run)]
    for setting in settings:
        command += ["--set", setting]
    return command


def train_in_two_processes(config: Path, run: Path, *settings: str) -> None:
    """A whole run."""
    command = [*IN_TWO_PROCESSES, *train_command(config, run, *settings)]
    subprocess.run(command, env=environment(), check=True, timeout=500)
