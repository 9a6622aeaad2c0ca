"""`diffusion-perception research scale`: accuracy against compute at test time, for models that sample."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from diffusion_perception_ros.cli.common import TableConsole, add_backend_arguments, progress_bar
from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.datasets.rendered import RenderedDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.evaluation.run import spread
from diffusion_perception_ros.evaluation.tables import format_value
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.sampling.ensemble import MERGINGS
from diffusion_perception_ros.research.compute_chart import pareto_front, rows_of, write_chart
from diffusion_perception_ros.research.compute_scaling import (
    Measurements,
    Record,
    SamplingSetting,
    check_gain,
    check_settings,
    measure,
    settings_of,
)


JSON_NAME, CHART_NAME = "scale.json", "scale.png"
WORLD = "world"
WORLD_SIZE = (320, 240)
SCHEDULE_FIELDS = {"ddim": ("timestep_spacing", "beta_schedule"), "lcm": ("beta_schedule",), "euler_flow": ("shift",)}
"""Kind of sampler → fields that say which noise the steps go through."""
_SPACINGS = ("leading", "trailing", "linspace")
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scale`."""
    parser.add_argument("model", help="name or folder of a model with several steps, or that takes noise")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR|BAG|world[:SEED]",
        help="folder with ground truth or shards, bag with a depth topic, or scenes rendered from this seed on",
    )
    parser.add_argument(
        "--steps", type=_list_of(_count), default=[1, 2, 5, 10], metavar="N,…", help="default 1,2,5,10"
    )
    parser.add_argument("--ensemble", type=_list_of(_count), default=[1, 2, 5], metavar="M,…", help="default 1,2,5")
    parser.add_argument(
        "--merging",
        type=_list_of(_one_of(MERGINGS)),
        default=[MERGINGS[0]],
        metavar="WORD,…",
        help=f"how the depth of an ensemble becomes one: {', '.join(MERGINGS)} (default {MERGINGS[0]})",
    )
    schedule = parser.add_argument_group("noise schedules, by default the card's")
    schedule.add_argument(
        "--timestep-spacing", type=_list_of(_one_of(_SPACINGS)), metavar="WORD,…", help=", ".join(_SPACINGS)
    )
    schedule.add_argument(
        "--beta-schedule",
        type=_list_of(_one_of(_SCHEDULES)),
        metavar="WORD,…",
        help=f"{', '.join(_SCHEDULES)} (the cosine)",
    )
    schedule.add_argument("--shift", type=_list_of(float), metavar="X,…", help="of flow-matching models")
    parser.add_argument("--group", action="append", metavar="NAME", help="only this group of the data (repeatable)")
    parser.add_argument(
        "--images", type=_count, default=50, metavar="N", help="most images, spread over the groups (default 50)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise (default 0)")
    add_backend_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help=f"gets {JSON_NAME} and {CHART_NAME}; a second run measures only what is missing",
    )


def run(args: argparse.Namespace) -> int:
    """Measures every setting, then draws."""
    card = read_card(find_model(args.model))
    check_gain(card)
    samplers = _samplers(args, card)
    settings = settings_of(args.steps, args.ensemble, args.merging, samplers)
    estimator = _open_model(args, {})
    check_settings(estimator, settings)
    dataset = open_data(args.data, args.group, args.images)
    samples, skipped = read_samples(dataset, args.images)
    subject = {
        "model": {"name": card.name, "files": card.files},
        "backend": estimator.backend_name,
        "data": dataset.name,
        "images": [sample.name for sample in samples],
        "seed": args.seed,
    }
    del estimator  # a large model fits into memory once
    measurements = Measurements(args.output / JSON_NAME, subject, environment())
    missing = [setting for setting in settings if not measurements.has(setting)]
    failed = _measure_all(args, missing, samples, measurements)
    TableConsole().print(_table(measurements.records))
    title = f"{card.name} on {dataset.name}, {len(samples)} images"
    write_chart(args.output / CHART_NAME, measurements.records, title)
    print(f"{args.output / JSON_NAME}\n{args.output / CHART_NAME}", file=sys.stderr)
    problems = dict.fromkeys([*(("skipped", entry) for entry in skipped), *(("failed", entry) for entry in failed)])
    for word, entry in problems:
        print(f"diffusion-perception research scale: {word} {entry.name}: {entry.reason}", file=sys.stderr)
    return 1 if problems else 0


def open_data(data: str, groups: list[str] | None, images: int) -> EvaluationDataset:
    """What `--data` names.

    Raises:
        InputError: it is nothing that can be scored.
    """
    word, _, seed = data.partition(":")
    if word == WORLD and (not seed or seed.isdecimal()):
        from diffusion_perception_ros.datasets.world_stream import WorldDataset  # a renderer: only when it is needed
        from diffusion_perception_ros.world.config import WorldConfig

        return RenderedDataset(data, WorldDataset(WorldConfig(), WORLD_SIZE, images, int(seed or 0)))
    return open_dataset(Path(data), groups)


def read_samples(dataset: EvaluationDataset, most: int) -> tuple[list[EvaluationSample], list[Skipped]]:
    """Samples spread over the groups, and those among them that cannot be used.

    Raises:
        InputError: not one can be used.
    """
    samples, skipped = [], []
    for index in spread([dataset.group_of(index) for index in range(len(dataset))], most):
        try:
            samples.append(dataset[index])
        except InputError as error:
            skipped.append(Skipped(dataset.name_of(index), str(error)))
    if not samples:
        raise InputError(f"not one image of {dataset.name} can be used: {skipped[0].reason if skipped else 'empty'}")
    return samples, skipped


def _samplers(args: argparse.Namespace, card: ModelCard) -> list[dict[str, Any]]:
    """Every combination of the schedules asked for; what was not asked for is as the card says."""
    asked = {name: getattr(args, name) for name in ("timestep_spacing", "beta_schedule", "shift")}
    fields = SCHEDULE_FIELDS[card.sampler.scheduler] if card.sampler else ()
    for name, values in asked.items():
        if values and name not in fields:
            kind = f"a sampler '{card.sampler.scheduler}'" if card.sampler else "one step"
            option = name.replace("_", "-")
            raise InputError(f"model '{card.name}' has {kind}, for which --{option} has no meaning: leave it out")
    choices = [dict.fromkeys(asked[name] or [getattr(card.sampler, name)]) for name in fields]
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*choices)]


def _open_model(args: argparse.Namespace, sampler: Mapping[str, Any]) -> Estimator:
    return Estimator.load(args.model, args.backend, args.threads, sampler=sampler)


def _measure_all(
    args: argparse.Namespace,
    settings: Sequence[SamplingSetting],
    samples: Sequence[EvaluationSample],
    measurements: Measurements,
) -> list[Skipped]:
    """Adds what was measured to the file, setting by setting; the images on which the model failed."""
    failed: list[Skipped] = []
    with progress_bar() as progress:
        total = sum(setting.steps * setting.ensemble_size for setting in settings) * len(samples)
        task = progress.add_task("network evaluations", total=total)
        for _, members in itertools.groupby(settings, key=lambda setting: setting.sampler):
            group = list(members)
            estimator = _open_model(args, group[0].sampler)
            estimator.warm_up(samples[0].rgb.shape[1], samples[0].rgb.shape[0])
            for setting in group:
                cost = setting.steps * setting.ensemble_size
                advance = functools.partial(progress.advance, task, cost)
                record, lost = measure(estimator, samples, setting, args.seed, advance)
                measurements.add(record)
                failed += lost
            del estimator
    return failed


def _table(records: Sequence[Record]) -> Table:
    """All settings, the cheap ones first; bold what is on the Pareto front of a metric."""
    rows = rows_of(records)
    fronts = [pareto_front(records, row) for row in rows]
    title = "Test-time compute, means over the images; evaluations of the network and CPU seconds per image"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("steps", "ensemble", "merging", "schedule"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("merging", "schedule") else "right")
    for name in ("evaluations", "CPU s", *(row.title for row in rows)):
        table.add_column(name, justify="right")
    for record in sorted(records, key=lambda item: item["network_evaluations"]):
        cells = []
        for row, front in zip(rows, fronts, strict=True):
            text = format_value(row.metric, row.value(record))
            cells.append(f"[bold]{text}[/bold]" if record in front else text)
        table.add_row(
            str(record["steps"]),
            str(record["ensemble_size"]),
            record["merging"] or "",
            ", ".join(str(value) for value in record["sampler"].values()),
            str(record["network_evaluations"]),
            f"{record['cpu_seconds']:.3f}",
            *cells,
        )
    return table


def _list_of(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def values(text: str) -> list[Any]:
        return list(dict.fromkeys(convert(word) for word in text.split(",")))

    return values


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def word(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(choices)}")
        return text

    return word
