"""`diffusion-perception research ablate`: a training run per configuration and seed, then a table and a chart.

The output folder gets, per ladder, `<ladder>/<rung>-<seed>/run` (a run folder of the trainer) and, once that run is
done, `<ladder>/<rung>-<seed>/result.json`; the figures of a ladder go to `<ladder>.json`, `<ladder>.md` and
`<ladder>.png`, anew after every seed. The same command goes on where it was cut; finished runs are kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.table import Table

from diffusion_perception_ros.cli.common import TableConsole
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.files import write_bytes, write_json, write_text
from diffusion_perception_ros.research.ladder import (
    Ladder,
    Row,
    Rung,
    baselines,
    power_law,
    read_ladder,
    summarise,
    table_of,
)
from diffusion_perception_ros.research.ladder_chart import draw


if TYPE_CHECKING:
    from diffusion_perception_ros.training.config import TrainingConfig


RESULT = "result.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("ladders", type=Path, nargs="+", help="YAML files, such as config/ablation/lotus.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="where tables go (default: the output)")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="where charts go (default: the output)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override of every run, as run.max_steps=100",
    )


def run(args: argparse.Namespace) -> int:
    """Trains what is missing, ladder by ladder; 130 if a signal ended it early."""
    ladders = {path: read_ladder(path) for path in args.ladders}  # what is wrong is said before anything is trained
    for path, ladder in ladders.items():
        if not _climb(path, ladder, args):
            return 130
    return 0


def _climb(path: Path, ladder: Ladder, args: argparse.Namespace) -> bool:
    """Trains what is missing of one ladder and writes its figures; False if a signal ended it early."""
    folder = args.output / path.stem
    results = []
    for rung, seed in ladder.runs():
        result = _result(path.parent / ladder.base, ladder, rung, seed, folder, args.overrides)
        if result is None:
            return False
        results.append(result)
        if rung is ladder.rungs[-1]:  # a seed of all rungs is something to look at already
            _publish(path, ladder, results, args)
    return True


def _publish(path: Path, ladder: Ladder, results: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    rows, known = summarise(ladder, results), baselines(ladder, results)
    figures, charts = args.figures or args.output, args.charts or args.output
    write_json(figures / f"{path.stem}.json", _figures(path, ladder, results, rows, known))
    table = table_of(ladder, rows, known)
    write_text(figures / f"{path.stem}.md", _markdown(path, ladder, table, _latest(results)))
    write_bytes(charts / f"{path.stem}.png", draw(ladder, rows, known))
    shown = Table(*table[0], title=f"{path.stem}: unseen scenes, end of the run", title_justify="left")
    for row in table[1:]:
        shown.add_row(*row)
    TableConsole().print(shown)


def _result(
    base: Path, ladder: Ladder, rung: Rung, seed: int, folder: Path, overrides: Sequence[str]
) -> dict[str, Any] | None:
    """The stored result of a run, or that of training it now; None if a signal ended it early.

    Raises:
        InputError: a stored result was made with other settings, or the run has none of the scores.
    """
    from diffusion_perception_ros.training.compute import step_cost  # imports torch: only when it is needed
    from diffusion_perception_ros.training.config import load_config
    from diffusion_perception_ros.training.monitor import EVALUATIONS
    from diffusion_perception_ros.training.trainer import Trainer

    own = [Template(override).safe_substitute(seed=seed, ladder=folder) for override in (*ladder.set, *rung.set)]
    config = load_config(base, [*own, f"seed={seed}", *overrides])
    place = folder / f"{rung.name}-{seed}"
    stored = place / RESULT
    if stored.is_file():
        result: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
        if not _made_like(result["settings"], config):
            raise InputError(f"{stored} was made with other settings: choose another folder or delete it")
        return result
    trainer = Trainer(config, place / "run")
    batch, _ = next(iter(trainer.batches()))
    cost = step_cost(config, batch)
    if not trainer.train():
        return None
    lines = (place / "run" / EVALUATIONS).read_text(encoding="utf-8").splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    if not set(ladder.score) & last["scores"].keys():
        known = ", ".join(sorted(last["scores"]))
        raise InputError(f"{place} has no score {' or '.join(ladder.score)} but {known}: name one in the ladder")
    result = {
        "rung": rung.name,
        "seed": seed,
        "settings": config.model_dump(mode="json"),
        "started_as": str(config.init_from),
        "steps": last["step"],
        "samples": last["samples"],
        "parameters": cost.parameters,
        "training_flops": cost.flops * last["step"] + _flops_before(config, folder),
        "start": first["scores"] if first["step"] == 0 else None,
        "scores": last["scores"],
        "made": _circumstances(),
    }
    write_json(stored, result)
    return result


def _made_like(settings: dict[str, Any], config: TrainingConfig) -> bool:
    """Fields that a stored result is too old for count as their defaults."""
    try:
        return type(config).model_validate(settings) == config
    except ValidationError:
        return False


def _flops_before(config: TrainingConfig, folder: Path) -> int:
    """Operations of the run of the same ladder that this one starts from; 0 if it starts from something else."""
    experts = getattr(config.network, "experts", None)
    start: Path | None = experts.upcycle_from if experts else config.init_from
    if start is None or not start.is_relative_to(folder):
        return 0
    stored = folder / start.relative_to(folder).parts[0] / RESULT
    return int(json.loads(stored.read_text(encoding="utf-8"))["training_flops"])


def _circumstances() -> dict[str, str]:
    """When, on what, and with which state of the code."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": environment()["processor"],
    }
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # installed without its repository
        return facts
    return {**facts, "commit": commit}


def _latest(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    made: dict[str, str] = max((result["made"] for result in results), key=lambda made: str(made["date"]))
    return made


def _figures(
    path: Path,
    ladder: Ladder,
    results: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    known: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """What is kept of a ladder: no paths of this machine, nothing that differs between two runs of the same thing."""
    kept = ("rung", "seed", "steps", "samples", "training_flops", "scores")
    figures: dict[str, Any] = {
        "ladder": path.name,
        "title": ladder.title,
        "score": ladder.score,
        "made": _latest(results),
        "baselines": known,
        "rungs": rows,
        "runs": [{name: result[name] for name in kept} for result in results],
    }
    if ladder.over == "compute":
        figures["power_law"] = {
            score: power_law([(row["training_flops"], row["scores"][score]["mean"]) for row in rows])
            for score in ladder.score
        }
    return figures


def _markdown(path: Path, ladder: Ladder, table: Sequence[Sequence[str]], made: dict[str, str]) -> str:
    head, *rows = [f"| {' | '.join(row)} |" for row in table]
    rule = "|---" * len(table[0]) + "|"
    source = f"`config/ablation/{path.name}`, {', '.join(f'{name} {value}' for name, value in made.items())}."
    note = "Mean over the seeds ± sample standard deviation (number of seeds), unseen scenes, end of the run."
    return "\n".join([f"# {ladder.title or path.stem}", "", f"{note} {source}", "", head, rule, *rows, ""])
