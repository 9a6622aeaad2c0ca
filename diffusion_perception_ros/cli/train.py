"""`diffusion-perception train`: train a model from a YAML config; the same command continues a run that was cut."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_perception_ros.training.config import TrainingConfig, load_config


_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.add_argument("config", type=Path, help="YAML file, such as config/train/onestep_s.yaml")
    parser.add_argument("-o", "--output", type=Path, help="run folder (default: runs/<name of the config>)")
    parser.add_argument("--check", action="store_true", help="only check the config, without PyTorch")
    parser.add_argument("--plan", action="store_true", help="only say what memory and time the run will take")
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
    config = load_config(args.config, args.overrides)
    if args.check:
        print(f"{args.config}: fine; {_describe(config)}")
        return 0
    if args.plan:
        _print_plan(config)
        return 0
    from diffusion_perception_ros.training.trainer import Trainer  # imports torch: only when it is needed

    finished = Trainer(config, args.output or Path("runs") / config.name).train()
    return 0 if finished else 130


def _describe(config: TrainingConfig) -> str:
    run, images = config.run, config.data.batch_size * config.optimiser.accumulation
    budget = f"{run.max_steps} steps" if run.max_steps else f"{run.max_minutes:g} minutes"
    return f"{config.name}: {config.network.kind}, {config.objective.kind}, {budget} of {images} images a step"


def _print_plan(config: TrainingConfig) -> None:
    from diffusion_perception_ros.training.plan import GPUS, UTILISATION, plan_run

    plan = plan_run(config)
    print(f"{_describe(config)}\n\n| memory of one process | GiB |\n|---|---|")
    for name, size in plan.memory.items():
        print(f"| {name} | {size / _GIB:.2f} |")
    print(f"| **in all** | **{plan.total / _GIB:.1f}** |")
    print("\n| activations by block, without checkpointing | GiB |\n|---|---|")
    for name, size in plan.layers.items():
        print(f"| {name} | {size / _GIB:.2f} |")
    print(
        f"\n{plan.parameters / 1e6:.1f} M parameters, {plan.trained / 1e6:.2f} M of them trained; "
        f"{plan.flops / 1e12:.1f} TFLOP a step of {plan.images} images"
    )
    for gpu in GPUS:
        seconds = plan.seconds(gpu)
        whole = f", {seconds * config.run.max_steps / 3600:.1f} hours in all" if config.run.max_steps else ""
        print(f"one {gpu} at {UTILISATION:.0%} of its bf16 peak: {seconds:.2f} s a step{whole}")
