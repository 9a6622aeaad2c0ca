"""`diffusion-perception export`: turn a checkpoint, of the trainer or a published one, into a model folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.model_folder import read_credits, replaced_model
from diffusion_perception_ros.export.sizes import parse_size
from diffusion_perception_ros.families import FAMILIES
from diffusion_perception_ros.inference.card import CARD_NAME


if TYPE_CHECKING:  # these import torch
    from diffusion_perception_ros.export.options import ExportOptions
    from diffusion_perception_ros.export.published import Published
    from diffusion_perception_ros.families.recipe import Recipe
    from diffusion_perception_ros.inference.card import ModelCard
    from diffusion_perception_ros.training.checkpoint import Checkpoint


CHECK_PICTURES = 2
"""Frames of the demo clip that a graph is compared with PyTorch on, unless --check-pictures says otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    _add_native(families.add_parser("native", help="a checkpoint of `diffusion-perception train`"))
    for family in FAMILIES:
        _add_family(families.add_parser(family, help=f"a published {family} checkpoint"))


def run(args: argparse.Namespace) -> int:
    """Writes the folder."""
    return _run_native(args) if args.family == "native" else _run_family(args)


def _add_native(native: argparse.ArgumentParser) -> None:
    native.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="checkpoint folder, such as runs/NAME/best, or a onestep model folder, to make its graph anew",
    )
    _add_output(native)
    native.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        default="fp32",
        help="onestep networks: fp32 or int8 (default fp32)",
    )
    native.add_argument("--credits", type=Path, help="attribution of the training data, becomes CREDITS.md")
    native.add_argument("--trained-with", metavar="COMMAND", help="how the checkpoint was trained, for the card")
    onestep = native.add_argument_group("onestep networks")
    onestep.add_argument(
        "--pictures", type=Path, help="folder with shards, to calibrate and compare with (default: the training data)"
    )
    onestep.add_argument(
        "--metric", action="store_true", help="declare the depth metric (first prove it on real data)"
    )
    backbones = native.add_argument_group("diffusion backbones (network.kind: unet or dit)")
    backbones.add_argument("--tasks", metavar="T,T", help="tasks of the folder, separated by commas (default: all)")
    backbones.add_argument(
        "--size", metavar="WxH", help="of the graph's picture, or 'dynamic' (default: dynamic for a U-Net)"
    )
    backbones.add_argument("--steps", type=int, help="denoising steps (default: as the objective was validated)")
    backbones.add_argument("--ensemble", type=int, help="predictions that are merged (default 1)")
    backbones.add_argument("--noise", metavar="zeros|seed:N|input", help="what it starts from (default: as trained)")


def _add_family(family: argparse.ArgumentParser) -> None:
    family.add_argument("--checkpoint", required=True, metavar="ID_OR_DIR", help="hub id or folder of the checkpoint")
    family.add_argument("--revision", help="branch, tag or commit of a hub id")
    family.add_argument(
        "--published-as", metavar="ID", help="hub id, with @commit, of a checkpoint that was downloaded, for the card"
    )
    family.add_argument(
        "--base",
        metavar="ID_OR_DIR",
        help="base checkpoint for the parts that the checkpoint lacks (VAE, text encoder)",
    )
    family.add_argument("--task", required=True, help="what the checkpoint predicts; a wrong one lists the right ones")
    family.add_argument(
        "--size",
        metavar="WxH",
        help="of the graph's image, or 'dynamic' for one graph that keeps the aspect of every image (default: dynamic "
        "where the family keeps the aspect, its only size elsewhere)",
    )
    family.add_argument("--precision", choices=("fp32", "fp16", "bf16", "int8"), default="fp32")
    family.add_argument("--steps", type=int, default=1, help="denoising steps; 1 gives one fused graph (default 1)")
    family.add_argument("--ensemble", type=int, default=1, help="predictions that are merged (default 1)")
    family.add_argument("--noise", metavar="zeros|seed:N|input", help="what it starts from (default: as trained)")
    family.add_argument(
        "--vae",
        choices=("full", "taesd", "none"),
        default="full",
        help="taesd: tiny autoencoder; none: linear decoder",
    )
    family.add_argument("--tiny-vae", metavar="ID_OR_DIR", help="AutoencoderTiny for --vae taesd")
    family.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a family's own setting; a wrong one lists all",
    )
    family.add_argument(
        "--check-pictures", type=int, default=CHECK_PICTURES, metavar="N", help="pictures to compare with PyTorch on"
    )
    _add_output(family)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--name", help="name on the card (default: the output folder's)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder, and nothing else")


def parse_settings(words: list[str]) -> dict[str, str]:
    """`["a=1"]` → {"a": "1"}.

    Raises:
        InputError: a word without '='.
    """
    wrong = next((word for word in words if "=" not in word), None)
    if wrong is not None:
        raise InputError(f"--set takes NAME=VALUE, got '{wrong}'")
    return dict(word.split("=", 1) for word in words)


def _run_family(args: argparse.Namespace) -> int:
    replaced = replaced_model(args.output, args.overwrite)
    from diffusion_perception_ros.export.options import ExportOptions  # imports torch: only when it is needed
    from diffusion_perception_ros.export.published import Published
    from diffusion_perception_ros.families.recipe import LoadOptions

    options = ExportOptions(
        name=args.name or args.output.name,
        checkpoint=args.published_as or _checkpoint_name(args),
        size=parse_size(args.size) if args.size else None,
        precision=args.precision,
        steps=args.steps,
        ensemble=args.ensemble,
        noise=args.noise,
        vae=args.vae,
        tiny_vae=args.tiny_vae,
        command=_command(args),
        overwrite=args.overwrite,
    )
    load = LoadOptions(revision=args.revision, base=args.base, settings=parse_settings(args.set))
    published = Published(args.family, args.checkpoint, args.task, load)
    return export_and_report(published, args.output, options, replaced, not args.size, args.check_pictures)


def export_and_report(
    published: Published,
    output: Path,
    options: ExportOptions,
    replaced: str | None,
    is_default_size: bool,
    images: int = CHECK_PICTURES,
) -> int:
    """Writes the folder and prints what it is.

    Args:
        replaced: What was in its place, in words.
        is_default_size: The family's own size in the place of the options'.
        images: Frames of the demo clip to compare with PyTorch on.
    """
    from rich.console import Console

    from diffusion_perception_ros.export.published import export_published

    pictures = check_pictures(images) if images > 0 else []
    with Console(file=sys.stderr).status("") as status:
        card = export_published(
            published, output, options, pictures, is_default_size=is_default_size, say=status.update
        )
    _say_replaced(output, replaced)
    print(f"{output}: {card.name}, {card.precision}, {', '.join(f'{k} {v:g}' for k, v in card.parity.items())}")
    return 0


def _say_replaced(output: Path, replaced: str | None) -> None:
    if replaced is not None:
        print(f"{output}: replaced {replaced}", file=sys.stderr)


def _command(args: argparse.Namespace) -> str:
    """The options that made a folder, for its card; folders of this machine are named without their parents."""
    checkpoint = args.published_as or _without_parents(args.checkpoint)
    words = ["diffusion-perception", "export", args.family, "--checkpoint", checkpoint]
    words += ["--task", args.task, "--precision", args.precision, "--steps", str(args.steps)]
    optional = {
        "--size": args.size,
        "--revision": args.revision,
        "--base": args.base and _without_parents(args.base),
        "--noise": args.noise,
    }
    if args.ensemble != 1:
        optional["--ensemble"] = str(args.ensemble)
    if args.vae != "full":
        optional["--vae"] = args.vae
    words += [word for name, value in optional.items() if value for word in (name, value)]
    return " ".join([*words, *(f"--set {_setting_without_parents(setting)}" for setting in args.set)])


def _setting_without_parents(setting: str) -> str:
    name, _, value = setting.partition("=")
    return f"{name}={_without_parents(value)}"


def _checkpoint_name(args: argparse.Namespace) -> str:
    name = _without_parents(args.checkpoint)
    return f"{name}@{args.revision}" if args.revision else name


def _without_parents(checkpoint: str) -> str:
    path = Path(checkpoint)
    return path.resolve().name if path.exists() else checkpoint


def check_pictures(count: int) -> list:  # type: ignore[type-arg]
    """Frames spread over the bundled demo clip, (H, W, 3) uint8 RGB each."""
    from diffusion_perception_ros.datasets.frames import open_frames

    frames = open_frames(find_resource("demo/clip"))
    step = max(len(frames) // count, 1)
    return [frame.rgb for number, frame in enumerate(frames) if number % step == 0][:count]


def _run_native(args: argparse.Namespace) -> int:
    from rich.console import Console

    from diffusion_perception_ros.datasets.shards import ShardDataset  # imports torch: only when it is needed
    from diffusion_perception_ros.export.options import ExportOptions
    from diffusion_perception_ros.training.checkpoint import read_checkpoint
    from diffusion_perception_ros.training.onestep.export import export_model
    from diffusion_perception_ros.training.sources import open_sources, stored_sources

    if (args.checkpoint / CARD_NAME).is_file():
        return _run_again(args)
    checkpoint = read_checkpoint(args.checkpoint)
    if checkpoint.identity.get("kind") in ("unet", "dit"):
        return _run_backbone(args, checkpoint)
    backbone_only = [name for name in ("tasks", "size", "steps", "ensemble", "noise") if getattr(args, name)]
    if backbone_only:
        raise InputError(f"--{backbone_only[0]} is for diffusion backbones: {args.checkpoint} is a onestep network")
    if args.precision not in ("fp32", "int8"):
        raise InputError(f"a onestep network is exported with --precision fp32 or int8, not {args.precision}")
    state = checkpoint.state
    pictures = ShardDataset(args.pictures) if args.pictures else open_sources(stored_sources(state))
    replaced = replaced_model(args.output, args.overwrite)
    step = max(1, len(pictures) // 104)
    samples = [pictures[index] for index in range(0, len(pictures), step)]
    options = ExportOptions(
        name=args.name or args.output.name,
        precision=args.precision,
        metric=args.metric,
        command=args.trained_with,
        credits=read_credits(args.credits),
        overwrite=args.overwrite,
    )
    with Console(file=sys.stderr).status(f"exporting {args.checkpoint}"):
        card = export_model(args.checkpoint, args.output, samples, options)
    _say_replaced(args.output, replaced)
    print(f"{args.output}: {card.name}, {card.precision}, largest depth difference {card.parity['depth_max']:g}")
    return 0


def _run_again(args: argparse.Namespace) -> int:
    """The graph of a model folder anew, from its own weights."""
    from diffusion_perception_ros.datasets.shards import ShardDataset  # imports torch: only when it is needed
    from diffusion_perception_ros.export.options import ExportOptions
    from diffusion_perception_ros.training.onestep.reexport import export_again

    if args.pictures is None:
        raise InputError(
            f"{args.checkpoint} is a model folder: give --pictures a folder with shards to calibrate with"
        )
    if args.precision not in ("fp32", "int8"):
        raise InputError(f"a onestep network is exported with --precision fp32 or int8, not {args.precision}")
    replaced = replaced_model(args.output, args.overwrite)
    pictures = ShardDataset(args.pictures)
    samples = [pictures[index] for index in range(0, len(pictures), max(1, len(pictures) // 56))]
    options = ExportOptions(
        name=args.name or args.output.name,
        precision=args.precision,
        metric=args.metric,
        overwrite=args.overwrite,
    )
    card = export_again(args.checkpoint, args.output, samples, options)
    _say_replaced(args.output, replaced)
    print(f"{args.output}: {card.name}, {card.precision}, largest depth difference {card.parity['depth_max']:g}")
    return 0


def _run_backbone(args: argparse.Namespace, checkpoint: Checkpoint) -> int:
    from rich.console import Console

    from diffusion_perception_ros.export.exporter import export_family
    from diffusion_perception_ros.export.options import ExportOptions
    from diffusion_perception_ros.training.diffusion.joint_model import load_joint
    from diffusion_perception_ros.training.diffusion.trained_model import load_trained
    from diffusion_perception_ros.training.readme import trained_readme

    if args.pictures or args.metric:
        raise InputError(f"--{'pictures' if args.pictures else 'metric'} is for onestep networks")
    replaced = replaced_model(args.output, args.overwrite)
    size = parse_size(args.size) if args.size else None
    load = load_joint if checkpoint.identity.get("joint") else load_trained
    model = load(checkpoint, args.tasks.split(",") if args.tasks else ())
    options = ExportOptions(
        name=args.name or args.output.name,
        checkpoint=f"{checkpoint.state['name']}, step {checkpoint.state['step']}",
        size=size if args.size else model.recipe.fixed_size,
        precision=args.precision,
        steps=args.steps or model.steps,
        ensemble=args.ensemble or 1,
        noise=args.noise,
        command=args.trained_with,
        overwrite=args.overwrite,
        credits=read_credits(args.credits),
    )

    def readme(_: Recipe, card: ModelCard) -> str:
        return trained_readme(checkpoint, card, model.description, has_credits=bool(options.credits))

    with Console(file=sys.stderr).status(f"exporting {args.checkpoint} and comparing it with PyTorch"):
        card = export_family(model, args.output, check_pictures(CHECK_PICTURES), options, readme)
    differences = ", ".join(f"{name} {value:g}" for name, value in card.parity.items() if name.endswith("_max"))
    _say_replaced(args.output, replaced)
    print(f"{args.output}: {card.name}, {card.precision}, {differences}")
    return 0
