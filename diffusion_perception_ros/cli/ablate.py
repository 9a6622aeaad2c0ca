"""`diffusion-perception ablate`: one training run per rung of a ladder and seed, then a table and a chart of a score.

The folder gets `<rung>-<seed>/run` (a run folder of the trainer), `<rung>-<seed>/result.json` once that run is done,
`ladder.json` and `ladder.png`. The same command goes on where it was cut; finished runs are kept.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.output import write_bytes, write_json


class Rung(BaseModel):
    """One configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._]*$")
    title: str
    set: tuple[str, ...] = ()
    """Overrides of the base config, as `train --set` takes them."""


class Ladder(BaseModel):
    """What is compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path
    """Training config, relative to the ladder's own file."""
    score: str
    """Of the validation scenes, at the end of a run; lower is better."""
    seeds: tuple[int, ...] = Field(min_length=1)
    rungs: tuple[Rung, ...] = Field(min_length=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("ladder", type=Path, help="YAML file, such as config/ablation/lotus.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where results are collected")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override of every run, as run.max_steps=100",
    )


def run(args: argparse.Namespace) -> int:
    """Trains what is missing; 130 if a signal ended it early."""
    ladder = read_ladder(args.ladder)
    results = []
    for seed in ladder.seeds:  # a whole ladder before the next seed
        for rung in ladder.rungs:
            result = _result(args.ladder.parent / ladder.base, ladder, rung, seed, args.output, args.overrides)
            if result is None:
                return 130
            results.append(result)
    rows = summarise(ladder, results)
    write_json(args.output / "ladder.json", {"score": ladder.score, "rungs": rows, "runs": results})
    write_bytes(args.output / "ladder.png", _chart(ladder.score, rows))
    Console().print(_table(ladder.score, rows))
    return 0


def read_ladder(path: Path) -> Ladder:
    """A ladder's file.

    Raises:
        InputError: it cannot be read, or a field is unknown, missing or wrong.
    """
    try:
        return Ladder.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"{path} is not a ladder: {fields}") from error


def _result(
    base: Path, ladder: Ladder, rung: Rung, seed: int, output: Path, overrides: Sequence[str]
) -> dict[str, Any] | None:
    """The stored result of a run, or that of training it now; None if a signal ended it early.

    Raises:
        InputError: a stored result was made with other settings, or the run does not have the score.
    """
    from diffusion_perception_ros.training.config import load_config  # imports torch: only when it is needed
    from diffusion_perception_ros.training.trainer import Trainer

    config = load_config(base, [*rung.set, f"seed={seed}", *overrides])
    settings = config.model_dump(mode="json")
    folder = output / f"{rung.name}-{seed}"
    stored = folder / "result.json"
    if stored.is_file():
        result: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
        if result["settings"] != settings:
            raise InputError(f"{stored} was made with other settings: choose another folder or delete it")
        return result
    if not Trainer(config, folder / "run").train():
        return None
    last = json.loads((folder / "run" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    if ladder.score not in last["scores"]:
        known = ", ".join(sorted(last["scores"]))
        raise InputError(f"{folder} has no score '{ladder.score}' but {known}: name one of them in the ladder")
    result = {"rung": rung.name, "seed": seed, "settings": settings, **last}
    write_json(stored, result)
    return result


def summarise(ladder: Ladder, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per rung: mean, standard deviation over the seeds (None for one), and the values."""
    rows = []
    for rung in ladder.rungs:
        values = [float(result["scores"][ladder.score]) for result in results if result["rung"] == rung.name]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        rows.append({"name": rung.name, "title": rung.title, "mean": float(np.mean(values)), "spread": spread})
        rows[-1]["values"] = values
    return rows


def _table(score: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("", f"{score} ↓", "runs", title="Validation scenes, end of the run", title_justify="left")
    for row in rows:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        table.add_row(row["title"], f"{row['mean']:.4f}{spread}", str(len(row["values"])))
    return table


def _chart(score: str, rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: a bar per rung, a dot per run."""
    figure = Figure(figsize=(7.0, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.barh(places, [row["mean"] for row in rows], color="#9ecae1")
    for place, row in zip(places, rows, strict=True):
        axes.plot(row["values"], [place] * len(row["values"]), "o", color="#08519c", markersize=4)
    axes.set_yticks(places, [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{score} on the validation scenes, lower is better")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    return picture.getvalue()
