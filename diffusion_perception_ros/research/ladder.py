"""A ladder: configurations of the trainer that are compared, each with several seeds, and what came of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.safe_files import read_yaml


START = "before training"
BASELINES = {"constant_": "best constant", "row_plane_": "row plane", "majority_": "most frequent class"}
"""Prefix of the scores of answers that never look at the image → what to call them."""
SCORES = {
    "abs_rel": "depth AbsRel",
    "delta1": "depth δ1",
    "normals_mean": "normals, mean angle in °",
    "group_miou": "classes, mIoU over groups",
    "miou": "classes, mIoU",
    "pixel_accuracy": "classes, pixels right",
    "entity_coverage": "entities, coverage",
}
HIGHER_IS_BETTER = ("delta1", "miou", "group_miou", "pixel_accuracy", "normals_30", "entity_coverage", "entity_found")
_FEWEST_TO_FIT = 4
_LEAST_R2 = 0.9

Row = dict[str, Any]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Rung(BaseModel):
    """One configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._]*$")
    title: str
    set: tuple[str, ...] = ()
    """Overrides of the base config, as `train --set` takes them. `$seed` stands for the seed of the run, `$ladder` for
    the folder with the runs of this ladder, such as `$ladder/dense-$seed/run/best/ema.safetensors`."""
    curve: str | None = None
    """Of a chart over compute: points of the same curve are joined."""


class Ladder(BaseModel):
    """What is compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    """Of the chart."""
    base: Path
    """Training config, relative to the ladder's own file."""
    set: tuple[str, ...] = ()
    """Overrides of the base config for all rungs; see `Rung.set`."""
    score: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
    """One or several scores of the validation scenes, at the end of a run. A rung may lack some of them, not all."""
    over: Literal["rungs", "compute"] = "rungs"
    """What the chart is drawn over: a bar per rung, or the operations of its training."""
    seeds: tuple[int, ...] = Field(min_length=1)
    rungs: tuple[Rung, ...] = Field(min_length=1)

    def runs(self) -> list[tuple[Rung, int]]:
        """Every rung with every seed, all rungs of a seed before the next one."""
        return [(rung, seed) for seed in self.seeds for rung in self.rungs]


def read_ladder(path: Path) -> Ladder:
    """A ladder's file.

    Raises:
        InputError: it cannot be read, or a field is unknown, missing or wrong.
    """
    try:
        return Ladder.model_validate(read_yaml(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"{path} is not a ladder: {fields}") from error


def summarise(ladder: Ladder, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Per rung that has a result: `parameters`, `training_flops`, and per score its `values`, their `mean` and, for
    more than one, their sample standard deviation as `spread`.

    Args:
        results: with `rung`, `parameters`, `training_flops` and `scores`.
    """
    rows = []
    for rung in ladder.rungs:
        runs = [result for result in results if result["rung"] == rung.name]
        if not runs:
            continue
        row: Row = {"name": rung.name, "title": rung.title, "curve": rung.curve, "scores": {}}
        row |= {name: runs[0][name] for name in ("parameters", "training_flops")}
        for score in ladder.score:
            values = [float(run["scores"][score]) for run in runs if score in run["scores"]]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row["scores"][score] = {"mean": float(np.mean(values)), "spread": spread, "values": values}
        rows.append(row)
    return rows


def baselines(ladder: Ladder, results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Score → what to call an answer → its score: answers that never look at the image, and those of the weights
    that all runs started from, if they were trained before."""
    found: dict[str, dict[str, float]] = {}
    for score in ladder.score:
        values: dict[str, list[float]] = {}
        for result in results:
            if score not in result["scores"]:
                continue
            for prefix, title in BASELINES.items():
                if prefix + score in result["scores"]:
                    values.setdefault(title, []).append(result["scores"][prefix + score])
            if score in (result.get("start") or {}) and len({run["started_as"] for run in results}) == 1:
                values.setdefault(START, []).append(result["start"][score])
        found[score] = {title: float(np.mean(numbers)) for title, numbers in values.items()}
    return found


def table_of(ladder: Ladder, rows: Sequence[Row], known: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Header, rungs, answers that never look at the image; a column per score, over compute one for that, too."""
    over = ladder.over == "compute"
    table = [("", *(["parameters", "operations"] if over else []), *map(title_of, ladder.score))]
    for row in rows:
        compute = [f"{row['parameters'] / 1e6:.2f} M", f"{row['training_flops']:.1e}"] if over else []
        table.append((row["title"], *compute, *(_cell(row["scores"].get(score)) for score in ladder.score)))
    for title in dict.fromkeys(title for values in known.values() for title in values):
        cells = (known[score].get(title) for score in ladder.score)
        blank = [""] * (2 if over else 0)
        table.append((title, *blank, *("" if value is None else f"{value:.3f}" for value in cells)))
    return table


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    spread = "" if found["spread"] is None else f" ± {found['spread']:.3f}"
    return f"{found['mean']:.3f}{spread} ({len(found['values'])})"


def title_of(score: str) -> str:
    """What a score is called, and which way is better."""
    return f"{SCORES.get(score, score)} {'↑' if score in HIGHER_IS_BETTER else '↓'}"


def power_law(points: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """error = factor · compute^exponent through the points that no cheaper one equals, in the logarithm.

    Returns:
        `factor`, `exponent`, `r2` and the `low` and `high` end of what it was fitted to; None where fewer than four
        points are left, or where they do not lie on such a line.
    """
    front: list[tuple[float, float]] = []
    for compute, error in sorted(points):
        if not front or error < front[-1][1]:
            front.append((compute, error))
    if len(front) < _FEWEST_TO_FIT:
        return None
    x, y = np.log(np.array(front)).T
    exponent, offset = np.polyfit(x, y, 1)
    r2 = 1 - float(np.square(y - (exponent * x + offset)).sum() / np.square(y - y.mean()).sum())
    if r2 < _LEAST_R2:
        return None
    fit = {"factor": math.exp(offset), "exponent": float(exponent), "r2": r2}
    return fit | {"low": front[0][0], "high": front[-1][0]}
