"""`diffusion-perception research curves`: the evaluations of training runs as learning curves, side by side."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import write_bytes


EVALUATIONS = "evaluations.jsonl"
TITLES = {
    "abs_rel": "depth AbsRel, scale and shift aligned",
    "metric_abs_rel": "depth AbsRel in metres, not aligned",
    "normals_mean": "normals, mean angle (°)",
    "pixel_accuracy": "semantic pixel accuracy",
    "group_miou": "semantic mIoU, coarse groups",
}
"""Scores that can be drawn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `curves`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=f"run folders, each with {EVALUATIONS}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="PNG to write")
    parser.add_argument(
        "--score",
        choices=tuple(TITLES),
        nargs="+",
        default=["abs_rel", "normals_mean", "group_miou"],
        help="what is drawn (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Reads the runs and draws them."""
    curves = {folder.name: read_evaluations(folder) for folder in args.runs}
    write_bytes(args.output, _draw(curves, args.score))
    print(f"{len(curves)} runs, {sum(map(len, curves.values()))} evaluations → {args.output}")
    return 0


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluations of a run folder: `samples`, `scores` and, with `data.real`, `real_scores`, in order.

    Raises:
        InputError: there are none, or a line is no evaluation.
    """
    path = run / EVALUATIONS
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = [{**record, "samples": int(record["samples"]), "scores": dict(record["scores"])} for record in records]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): is {run} a run of `train`?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds a line that is no evaluation: {error}") from error
    if not found:
        raise InputError(f"{path} is empty: the run ended before its first evaluation")
    return found


def _draw(curves: dict[str, list[dict[str, Any]]], scores: Sequence[str]) -> bytes:
    """PNG; rendered scenes as lines, real images dashed in the same colour."""
    figure = Figure(figsize=(4.6 * len(scores), 3.6), layout="constrained")
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        for number, (name, records) in enumerate(curves.items()):
            for key, style, suffix in (("scores", "o-", ""), ("real_scores", "s--", ", real images")):
                points = [(r["samples"] / 1000, r[key][score]) for r in records if score in r.get(key, {})]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), style, color=f"C{number}", markersize=3.5, label=name + suffix
                    )
        axes.set_xlabel("images seen by this run, thousands", fontsize=8.5)
        axes.set_title(TITLES[score], fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7.5)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
