"""`diffusion-perception adapt`: adapt a model to a robot's own place and camera, from a few of its images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from diffusion_perception_ros.cli.common import TableConsole, add_model_argument
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.model_folder import replaced_model
from diffusion_perception_ros.inference.card import Label, ModelCard, read_card
from diffusion_perception_ros.inference.models import find_model


if TYPE_CHECKING:
    from diffusion_perception_ros.training.onestep.adapted_model import AdaptationComparison, AdaptedModel


_TASKS = ("depth", "normals", "semantic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `adapt`."""
    add_model_argument(parser)
    parser.add_argument(
        "--data", type=Path, required=True, help="bag with depth, folder with rgb/ and depth/, or pictures with masks"
    )
    parser.add_argument("--task", nargs="+", choices=_TASKS, required=True, help="what the data has labels for")
    parser.add_argument(
        "--images", type=int, default=50, metavar="N", help="images to adapt on (default: %(default)s)"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="last part of the images, kept to measure on (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--name", help="name on the card (default: the output folder's)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder, and nothing else")
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: as in the config)")
    parser.add_argument(
        "--config", type=Path, help="how it is trained (default: the package's config/train/adapt.yaml)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override in the config, as optimiser.learning_rate=1e-3",
    )
    parser.add_argument("--run", type=Path, help="folder for checkpoints (default: runs/adapt-<name>)")
    parser.add_argument("--precision", choices=("fp32", "int8"), help="of the graph (default: as the model's)")
    parser.add_argument(
        "--labels",
        choices=("card", "own"),
        default="card",
        help="semantic: the classes of the model, or those of the data instead (default: %(default)s)",
    )
    parser.add_argument("--background", metavar="NAME", help="semantic: class of what is outside of drawn objects")
    parser.add_argument("--image-topic", help="bags: colour topic (default: the one with most depth)")
    parser.add_argument("--depth-topic", help="bags: depth topic, registered to the colour image")
    parser.add_argument("--even-if-worse", action="store_true", help="write the model even if it is not better")


def run(args: argparse.Namespace) -> int:
    """Adapts, measures and writes the model; 130 if a signal ended it early (the same command goes on)."""
    base = find_model(args.model)
    card = read_card(base)
    _check(args, card)
    from diffusion_perception_ros.cli.adaptation_run import prepare  # imports torch: only when it is needed
    from diffusion_perception_ros.training.config import load_config
    from diffusion_perception_ros.training.trainer import Trainer

    folder = args.run or Path("runs") / f"adapt-{_name(args)}"
    record = prepare(args, _name(args), base, card, folder)
    if not Trainer(load_config(folder / "config.yaml"), folder).train():
        return 130
    return _deliver(args, base, card, folder, record)


def _check(args: argparse.Namespace, card: ModelCard) -> None:
    if card.family != "onestep":
        raise InputError(
            f"'{card.name}' is of the family '{card.family}': adapt bundled models here, diffusion networks with "
            "'adaptation' in the config of `diffusion-perception train` (docs/adaptation.md)"
        )
    if not 0 < args.held_out < 1:
        raise InputError(f"--held-out is a share between 0 and 1, got {args.held_out:g}")
    if args.images < 1:
        raise InputError(f"--images must be at least 1, got {args.images}")
    replaced_model(args.output, args.overwrite)
    if missing := [task for task in args.task if task not in card.tasks]:
        raise InputError(f"'{card.name}' has no {', '.join(missing)}: it has {', '.join(card.tasks)}")
    if "semantic" not in args.task and (args.background or args.labels == "own"):
        raise InputError("--labels and --background are for --task semantic")


def _name(args: argparse.Namespace) -> str:
    return str(args.name or args.output.resolve().name)


def _deliver(args: argparse.Namespace, base: Path, card: ModelCard, folder: Path, record: dict[str, Any]) -> int:
    """Prints before and after, and writes the model if it is better."""
    from diffusion_perception_ros.datasets.shards import ShardDataset
    from diffusion_perception_ros.training.onestep.adapted_model import (
        AdaptedModel,
        compare_before_and_after,
        export_adapted,
        last_state,
        learnt_share,
    )

    comparison = compare_before_and_after(folder)
    learnt, share = learnt_share(last_state(folder))
    model = AdaptedModel(
        name=_name(args),
        base=base,
        data=record["data"],
        images=len(record["images"]),
        held_out=len(record["held_out"]),
        tasks=tuple(args.task),
        labels=tuple(Label.model_validate(fields) for fields in record["labels"]),
        precision=args.precision or ("int8" if card.precision == "int8" else "fp32"),
        command=_command(args),
        overwrite=args.overwrite,
    )
    TableConsole(120).print(_table(comparison, model, card.name))
    print(f"{learnt} parameters learnt, {share:.2%} of the network's")
    if share > 0.01:
        print(f"that is above 1 %: {len(model.labels)} new classes need rows of their own, or --set asked for it")
    worse = comparison.not_better(args.task)
    if worse and not args.even_if_worse:
        print(
            f"not better on the held-out images ({', '.join(worse)}): {args.output} was not written. More images, "
            "more --steps or another learning rate may help; --even-if-worse writes it all the same. "
            f"The run is in {folder}"
        )
        return 0
    replaced = replaced_model(args.output, args.overwrite)
    with Console(file=sys.stderr).status(f"exporting {args.output}"):
        written = export_adapted(folder, args.output, list(ShardDataset(folder / "data" / "adapt")), model)
    if replaced:
        print(f"{args.output}: replaced {replaced}", file=sys.stderr)
    verdict = f"not better ({', '.join(worse)})" if worse else "better"
    print(f"{args.output}: {written.name}, {written.precision}, {verdict} on the held-out images; run in {folder}")
    return 0


def _table(comparison: AdaptationComparison, model: AdaptedModel, base: str) -> Table:
    table = Table(title=f"{model.held_out} held-out images of {model.data}")
    table.add_column("measure")
    for title in (base, model.name):
        table.add_column(title, justify="right")
    for row in comparison.rows():
        table.add_row(*row)
    return table


def _command(args: argparse.Namespace) -> str:
    """The options that made a folder, for its card; folders of this machine are named without their parents."""
    words = ["diffusion-perception", "adapt", "--model", Path(args.model).name, "--data", args.data.resolve().name]
    words += ["--task", *args.task, "--images", str(args.images), "--held-out", f"{args.held_out:g}"]
    words += ["--labels", args.labels] if "semantic" in args.task else []
    optional = {"--steps": args.steps, "--background": args.background, "--config": args.config and args.config.name}
    words += [str(word) for name, value in optional.items() if value for word in (name, value)]
    return " ".join([*words, *(f"--set {override}" for override in args.overrides)])
