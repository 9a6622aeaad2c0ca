"""`diffusion-perception train`: train a model from a YAML config; the same command continues a run that was cut."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.add_argument("config", type=Path, help="YAML file, such as config/train/onestep_s.yaml")
    parser.add_argument("-o", "--output", type=Path, help="run folder (default: runs/<name of the config>)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, as run.max_steps=100",
    )


def run(args: argparse.Namespace) -> int:
    """Trains; 130 if a signal ended it early (the state is saved)."""
    from diffusion_perception_ros.training.config import load_config  # imports torch: only when it is needed
    from diffusion_perception_ros.training.trainer import Trainer

    config = load_config(args.config, args.overrides)
    finished = Trainer(config, args.output or Path("runs") / config.name).train()
    return 0 if finished else 130
