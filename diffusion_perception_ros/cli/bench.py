"""`diffusion-perception bench`: benchmarks, as ratios measured side by side in one run."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusion_perception_ros.cli.benchmarks import cameras, flicker, live, messages, metric_scale, prediction
from diffusion_perception_ros.cli.benchmarks.comparison import Comparison
from diffusion_perception_ros.cli.common import TableConsole, add_backend_arguments, add_model_argument
from diffusion_perception_ros.cli.processes import ChildError
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.files import write_json


SECTIONS = ("decoding", "encoding", "estimator", "models", "scale", "live", "cameras", "flicker", "world", "training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    add_backend_arguments(parser, threads=False)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section (repeatable)")
    parser.add_argument("--seconds", type=float, default=1.5, help="measuring time per variant (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path("out/bench/bench.json"), metavar="FILE", help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    sections: dict[str, Callable[[], list[Comparison]]] = {
        "decoding": functools.partial(messages.decoding, args.seconds),
        "encoding": functools.partial(messages.encoding, args.seconds),
        "estimator": functools.partial(prediction.estimator, args.model, args.backend, args.seconds),
        "models": functools.partial(prediction.models, args.backend, args.seconds),
        "scale": functools.partial(metric_scale.alignment, args.model, args.backend, args.seconds),
        "live": functools.partial(live.live, args.model, args.backend, args.seconds),
        "cameras": functools.partial(cameras.cameras, args.model, args.backend, args.seconds),
        "world": functools.partial(_training_side, "world", args.seconds),
        "training": functools.partial(_training_side, "training", args.seconds),
        "flicker": functools.partial(flicker.flicker, args.model, args.backend, args.seconds),
    }
    results: dict[str, list[Comparison]] = {}
    left_out: dict[str, str] = {}
    console = Console(stderr=True)
    for name in args.only or SECTIONS:
        with console.status(f"measuring: {name}"):
            try:
                results[name] = sections[name]()
            except (ImportError, InputError, ChildError, RuntimeError) as error:
                left_out[name] = str(error)
    if not results:
        raise InputError("nothing could be measured: " + "; ".join(f"{key}: {why}" for key, why in left_out.items()))
    _print(results)
    write_json(args.json, {"sections": _as_dict(results), "left_out": left_out, "environment": environment()})
    print(args.json)
    for name, reason in left_out.items():
        print(f"diffusion-perception bench: {name} left out: {reason}", file=sys.stderr)
    return 0


def _training_side(name: str, seconds: float) -> list[Comparison]:
    """What needs the `train` extra: without it, it is left out with the import's reason."""
    from diffusion_perception_ros.cli.benchmarks import training

    measured: list[Comparison] = getattr(training, name)(seconds)
    return measured


def _as_dict(results: dict[str, list[Comparison]]) -> dict[str, object]:
    return {name: [vars(entry) | {"ratios": entry.ratios()} for entry in entries] for name, entries in results.items()}


def _print(results: dict[str, list[Comparison]]) -> None:
    table = Table(title="Benchmarks (ratio: times better than the last of its block)", title_justify="left")
    for column in ("what", "variant", "median", "ratio"):
        table.add_column(column, justify="right" if column in ("median", "ratio") else "left")
    for entries in results.values():
        for entry in entries:
            ratios = entry.ratios()
            for index, (variant, value) in enumerate(entry.values.items()):
                title = entry.title if index == 0 else ""
                table.add_row(title, variant, f"{value:.3g} {entry.unit}", f"{ratios[variant]:.3g}")
            for note in entry.notes:
                table.add_row("", f"[dim]{note}[/dim]", "", "")
            table.add_section()
    TableConsole().print(table)
