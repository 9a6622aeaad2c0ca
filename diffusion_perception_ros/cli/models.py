"""`diffusion-perception models`: list, show, verify, build and fetch model folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from diffusion_perception_ros.cli import model_fetching, model_wrapping
from diffusion_perception_ros.cli.common import TableConsole
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import BACKENDS, ENGINE_PRECISIONS, build_engines
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import ModelEntry, find_model, list_models, search_path
from diffusion_perception_ros.sample import Intrinsics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what models there are")
    listing.add_argument("--available", action="store_true", help="the published checkpoints that can be fetched")
    show = actions.add_parser("show", help="the card of one model")
    show.add_argument("model", help="name or folder")
    verify = actions.add_parser("verify", help="check hashes and card, open the graph and run it once")
    verify.add_argument("models", nargs="*", metavar="MODEL", help="names or folders (default: all that are found)")
    verify.add_argument("--backend", default="auto", choices=BACKENDS, help="what runs the graph (default: auto)")
    build = actions.add_parser("build", help="build a model's TensorRT engines now, which takes minutes")
    build.add_argument("model", help="name or folder")
    build.add_argument("--backend", default="tensorrt", choices=("tensorrt",), help="the one that has engines")
    build.add_argument(
        "--precision", default="fp16", choices=ENGINE_PRECISIONS, help="of an fp32 model's engine (default: fp16)"
    )
    fetch = actions.add_parser("fetch", help="download a published checkpoint and export it to a model folder")
    model_fetching.add_arguments(fetch)
    wrap = actions.add_parser("wrap", help="make a model folder of anyone's ONNX file, and draw what it answers")
    model_wrapping.add_arguments(wrap)
    for action in (listing, show, verify):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Runs one action: 0 everything is fine, 1 some models are broken, 2 none is usable."""
    if args.action == "fetch":
        return model_fetching.run(args)
    if args.action == "wrap":
        return model_wrapping.run(args)
    if args.action == "build":
        return _build(args.model, args.precision)
    if args.action == "list" and args.available:
        return model_fetching.show_available(args.json)
    if args.action == "list":
        return _list(args.json)
    if args.action == "show":
        return _show(args.model, args.json)
    return _verify(args.models, args.backend, args.json)


def _list(as_json: bool) -> int:
    entries = list_models()
    if as_json:
        print(json.dumps([_facts(entry) for entry in entries], indent=2))
    else:
        columns = (Column(name, overflow="fold") for name in ("family", "tasks", "steps", "precision", "licence"))
        table = Table(
            Column("name", no_wrap=True), *columns, Column("size", no_wrap=True), Column("folder", overflow="fold")
        )
        for entry in entries:
            facts = _facts(entry)
            if entry.card:
                size = f"{facts['bytes'] / 1e6:.1f} MB"
                card = entry.card
                licence = card.licence + ("\nnon-commercial" if facts["non_commercial"] else "")
                table.add_row(
                    entry.name,
                    card.family,
                    _tasks(facts),
                    _sampling(facts),
                    card.precision,
                    licence,
                    size,
                    facts["folder"],
                )
        TableConsole().print(table)
        if not entries:
            print(f"no models in {', '.join(map(str, search_path()))}", file=sys.stderr)
    for entry in entries:
        if entry.error:
            print(f"diffusion-perception models: {entry.error}", file=sys.stderr)
    return _exit_code([entry.card is not None for entry in entries])


def _show(name: str, as_json: bool) -> int:
    folder = find_model(name)
    card = read_card(folder, verify_files=False)
    fields = card.model_dump(mode="json", exclude_none=True)
    if as_json:
        print(json.dumps({"folder": str(folder), "bytes": _size(folder), "card": fields}, indent=2))
    else:
        print(f"# {folder}, {_size(folder) / 1e6:.1f} MB")
        print(yaml.safe_dump(fields, sort_keys=False, width=119), end="")
    return 0


def _verify(names: list[str], backend: str, as_json: bool) -> int:
    results = [_verify_one(name, backend) for name in names or [entry.name for entry in list_models()]]
    if not results:
        raise InputError(f"there are no models in {', '.join(map(str, search_path()))}")
    if as_json:
        print(json.dumps(results, indent=2))
    for result in results:
        if result["error"]:
            print(f"diffusion-perception models: {result['model']}: {result['error']}", file=sys.stderr)
        elif not as_json:
            print(
                f"{result['model']}: ok, {result['milliseconds']:.0f} ms on {result['backend']} ({result['folder']})"
            )
    return _exit_code([result["error"] is None for result in results])


def _verify_one(name: str, backend: str) -> dict[str, Any]:
    """Hashes and card are checked on loading; then an image of every colour goes through all tasks."""
    facts: dict[str, Any] = {"model": name, "folder": None, "backend": None, "milliseconds": None, "error": None}
    try:
        facts["folder"] = str(find_model(name))
        estimator = Estimator.load(name, backend)
        estimator.warm_up()
        rgb = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        prediction = estimator.predict(rgb, Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5))
        facts["backend"] = estimator.backend_name
        facts["milliseconds"] = round(1e3 * sum(prediction.timings.values()), 2)
    except (InputError, RuntimeError) as error:
        facts["error"] = str(error)
    return facts


def _build(name: str, precision: str) -> int:
    folder = find_model(name)
    card = read_card(folder)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"building engines of {card.name}", total=1.0)
        for engine in build_engines(
            folder, card, precision, lambda share, phase: progress.update(task, completed=share, description=phase)
        ):
            progress.console.print(f"{engine}: checked against the CPU")
    return 0


def _facts(entry: ModelEntry) -> dict[str, Any]:
    card = entry.card
    return {
        "name": entry.name,
        "folder": str(entry.folder),
        "bytes": _size(entry.folder),
        "error": entry.error,
        "family": card and card.family,
        "precision": card and card.precision,
        "licence": card and card.licence,
        "non_commercial": bool(card and card.licence_terms and card.licence_terms.non_commercial),
        "steps": card and (card.sampler.num_inference_steps if card.sampler else 1),
        "ensemble_size": card and (card.sampler.ensemble_size if card.sampler else 1),
        "tasks": {output.task: output.quantity for output in card.outputs} if card else {},
    }


def _tasks(facts: dict[str, Any]) -> str:
    """`depth (metric), normals, …`"""
    return ", ".join(
        f"{task} ({quantity.replace('_', ' ')})" if task == "depth" else task
        for task, quantity in facts["tasks"].items()
    )


def _sampling(facts: dict[str, Any]) -> str:
    """`1`, `4`, `4 x 5 members`: what the card says, which can be changed unless there is only one graph."""
    members = f" x {facts['ensemble_size']} members" if facts["ensemble_size"] > 1 else ""
    return f"{facts['steps']}{members}"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _exit_code(fine: list[bool]) -> int:
    if all(fine):
        return 0
    return 1 if any(fine) else 2
