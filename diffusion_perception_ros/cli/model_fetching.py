"""`diffusion-perception models fetch`: download a published checkpoint and export it to a model folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from diffusion_perception_ros.cli.common import TableConsole
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.model_folder import replaced_model
from diffusion_perception_ros.export.sizes import parse_size
from diffusion_perception_ros.families.catalogue import PublishedModel, find_entry, read_catalogue
from diffusion_perception_ros.inference.models import user_models_folder


if TYPE_CHECKING:  # it imports torch
    from diffusion_perception_ros.export.options import ExportOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `models fetch`."""
    parser.add_argument("name", metavar="NAME", help="one of 'models list --available'")
    parser.add_argument("-o", "--output", type=Path, help="model folder to write (default: NAME in the user's folder)")
    parser.add_argument(
        "--accept-licence", action="store_true", help="needed for non-commercial and gated checkpoints"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the checkpoint (default: its newest)")
    parser.add_argument("--download-only", action="store_true", help="do not export; say where the checkpoint is")
    parser.add_argument("--size", metavar="WxH", help="image of the graph, or 'dynamic' (default: the family's own)")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16", "int8"), default="fp32")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the catalogue's)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder, and nothing else")


def run(args: argparse.Namespace) -> int:
    """Shows the licence, downloads, exports."""
    entry = find_entry(args.name)
    output: Path = args.output or user_models_folder() / entry.name
    replaced = None if args.download_only else replaced_model(output, args.overwrite)
    _check_training_packages(args.download_only)
    from diffusion_perception_ros.families import fetching

    _say(f"{entry.name}: {entry.description}")
    _say(f"  licence: {entry.licence}; terms: {', '.join(repository.page for repository in entry.repositories)}")
    _check_acceptance(entry.name, _restrictions(entry), args.accept_licence)
    if not args.download_only:
        _check_export(entry, output, args)
    plans = fetching.plan_download(entry, args.revision)
    for plan in plans:
        said = f"the hub says {plan.licence}" if plan.licence else "the hub names no licence"
        _say(f"  {plan.label}: {said}, {fetching.format_size(plan.size)}")
        if "-nc" in (plan.licence or ""):
            _check_acceptance(entry.name, [f"under {plan.licence}, non-commercial"], args.accept_licence)
    downloads = fetching.downloads_folder()
    folders = [fetching.download(plan, downloads, _say) for plan in plans]
    for plan, folder in zip(plans, folders, strict=True):
        _say(f"{plan.label} is complete in {folder}")
    if args.download_only:
        return 0
    return _export(entry, folders, plans[0].label, output, args, replaced)


def show_available(as_json: bool) -> int:
    """Prints the catalogue."""
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in read_catalogue().values()], indent=2))
        return 0
    names = ("name", "gives", "steps", "about", "licence")
    table = Table(*(Column(name, no_wrap=name != "licence") for name in names))
    for entry in read_catalogue().values():
        licence = entry.licence + (" (gated)" if entry.gated else "")
        table.add_row(entry.name, entry.quantity, str(entry.steps), f"{entry.gigabytes:g} GB", licence)
    TableConsole().print(table)
    return 0


def _export(
    entry: PublishedModel,
    folders: Sequence[Path],
    label: str,
    output: Path,
    args: argparse.Namespace,
    replaced: str | None,
) -> int:
    """Turns a downloaded checkpoint into a model folder.

    Args:
        folders: The checkpoint and, if it has one, its base.
        label: `owner/name@commit` of the checkpoint.
        replaced: What was in the place of the output, in words.
    """
    from diffusion_perception_ros.cli.export import export_and_report
    from diffusion_perception_ros.export.published import Published
    from diffusion_perception_ros.families.recipe import LoadOptions

    load = LoadOptions(base=str(folders[1]) if len(folders) > 1 else None, settings=entry.settings)
    published = Published(entry.family, str(folders[0]), entry.task, load)
    options = _options(entry, label, output, args)
    return export_and_report(published, output, options, replaced, is_default_size=not args.size)


def _check_export(entry: PublishedModel, output: Path, args: argparse.Namespace) -> None:
    """Before gigabytes are downloaded for it.

    Raises:
        InputError: what is asked for cannot be exported.
    """
    from diffusion_perception_ros.export.published import Published, check_published

    published = Published(entry.family, entry.checkpoint.id, entry.task)
    check_published(published, _options(entry, "", output, args), is_default_size=not args.size)


def _options(entry: PublishedModel, label: str, output: Path, args: argparse.Namespace) -> ExportOptions:
    from diffusion_perception_ros.export.options import ExportOptions

    return ExportOptions(
        name=output.name,
        checkpoint=label,
        size=parse_size(args.size) if args.size else None,
        precision=args.precision,
        steps=args.steps or entry.steps,
        command=_command(args),
        overwrite=args.overwrite,
    )


def _command(args: argparse.Namespace) -> str:
    """What a user types to get the same model again."""
    words = ["diffusion-perception models fetch", args.name, "--precision", args.precision]
    for option in ("size", "steps", "revision"):
        value = getattr(args, option)
        words += [f"--{option}", str(value)] if value is not None else []
    return " ".join(words)


def _restrictions(entry: PublishedModel) -> list[str]:
    words = ["for non-commercial use only"] if entry.non_commercial else []
    return [*words, "gated (its publisher wants to know who uses it)"] if entry.gated else words


def _check_acceptance(name: str, restrictions: Sequence[str], accepted: bool) -> None:
    if not restrictions:
        return
    _say(f"  this model is {' and '.join(restrictions)}")
    if not accepted:
        raise InputError(
            f"{name} is {' and '.join(restrictions)}: read the terms, then run the command again with "
            "--accept-licence; nothing was downloaded"
        )


def _check_training_packages(download_only: bool) -> None:
    """Robots do not have what fetching needs; they are given the model folder.

    Raises:
        InputError: a package is missing.
    """
    for package in ("huggingface_hub", "safetensors", *(() if download_only else ("torch", "diffusers"))):
        try:
            __import__(package)
        except ImportError:
            raise InputError(
                f"fetching and exporting a model needs {package}: run 'make setup-test', or pip install with the "
                "extra [train]; a robot only needs the finished model folder"
            ) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
