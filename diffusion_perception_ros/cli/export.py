"""`diffusion-perception export native`: turn a checkpoint of the trainer into a model folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    native = families.add_parser("native", help="a checkpoint of `diffusion-perception train`")
    native.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder, such as runs/NAME/best")
    native.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    native.add_argument("--name", help="name on the card (default: the output folder's)")
    native.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    native.add_argument(
        "--pictures", type=Path, help="folder with shards, to calibrate and compare with (default: the training data)"
    )
    native.add_argument("--metric", action="store_true", help="declare the depth metric (first prove it on real data)")
    native.add_argument("--credits", type=Path, help="attribution of the training data, becomes CREDITS.md")
    native.add_argument("--trained-with", metavar="COMMAND", help="how the checkpoint was trained, for the card")
    native.add_argument("--overwrite", action="store_true", help="replace the output folder")


def run(args: argparse.Namespace) -> int:
    """Writes the folder."""
    from rich.console import Console

    from diffusion_perception_ros.training.checkpoint import read_checkpoint
    from diffusion_perception_ros.training.export import ExportOptions, export_model
    from diffusion_perception_ros.training.sources import Shards, open_sources, stored_sources

    state = read_checkpoint(args.checkpoint).state
    pictures = open_sources([Shards(path=args.pictures)] if args.pictures else stored_sources(state))
    step = max(1, len(pictures) // 104)
    samples = [pictures[index] for index in range(0, len(pictures), step)]
    options = ExportOptions(
        name=args.name or args.output.name,
        precision=args.precision,
        metric=args.metric,
        command=args.trained_with,
        credits=args.credits,
        overwrite=args.overwrite,
    )
    with Console(file=sys.stderr).status(f"exporting {args.checkpoint}"):
        card = export_model(args.checkpoint, args.output, samples, options)
    print(f"{args.output}: {card.name}, {card.precision}, largest depth difference {card.parity['depth_max']:g}")
    return 0
