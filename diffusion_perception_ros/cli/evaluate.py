"""`diffusion-perception evaluate`: metrics against ground truth and trivial baselines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffusion_perception_ros.cli.common import TableConsole, add_backend_arguments, add_model_argument, progress_bar
from diffusion_perception_ros.datasets import EvaluationDataset, Skipped
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.completion_comparison import SparseSetting, compare
from diffusion_perception_ros.evaluation.depth_unit import unit_question
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.evaluation.reports.completion_report import write_comparison_report
from diffusion_perception_ros.evaluation.reports.report import NO_TRUTH, write_evaluation_report
from diffusion_perception_ros.evaluation.reports.temporal_report import VIDEO_FRAMES, video_table, write_video_report
from diffusion_perception_ros.evaluation.run import Evaluation, evaluate
from diffusion_perception_ros.evaluation.tables import image_count, tables
from diffusion_perception_ros.evaluation.temporal import evaluate_video
from diffusion_perception_ros.files import write_json
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.temporal.filter import TIME_CONSTANT
from diffusion_perception_ros.metrics.sparse_patterns import RANDOM, rows_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="data set as published, folder with ground truth, annotations, shards, or a bag with a depth topic",
    )
    add_model_argument(parser)
    add_backend_arguments(parser)
    parser.add_argument("--group", action="append", metavar="NAME", help="only this group of the data (repeatable)")
    parser.add_argument("--image-topic", help="bags: colour topic (default: the first that has depth)")
    parser.add_argument("--depth-topic", help="bags: depth topic, registered to the colour image")
    parser.add_argument(
        "--depth-scale", type=float, metavar="METRES", help="bags: metres per unit of integer depth (default: 0.001)"
    )
    parser.add_argument(
        "--sparse",
        type=_share,
        nargs="+",
        metavar="SHARE",
        help="give this share of the depth pixels (0.01 = 1 %%) to the model, score the others in metres",
    )
    parser.add_argument(
        "--sparse-pattern",
        type=_pattern,
        nargs="+",
        default=[RANDOM],
        metavar="PATTERN",
        help="which pixels: random, rows (a lidar's 32 scan lines) or rows16 (default: random)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="with --sparse: only depth, against interpolation of the same points; takes several shares and patterns",
    )
    parser.add_argument(
        "--temporal",
        type=float,
        nargs="?",
        const=TIME_CONSTANT,
        metavar="SECONDS",
        help="bags: flicker with and without the temporal filter of this time constant (default: %(const)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html with images here")
    parser.add_argument("--show", type=int, default=8, metavar="N", help="images in the report (default: %(default)s)")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"a share is between 0 and 1, got {text}")
    return value


def _pattern(text: str) -> str:
    try:
        rows_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def run(args: argparse.Namespace) -> int:
    settings = [SparseSetting(share, pattern) for share in args.sparse or () for pattern in args.sparse_pattern]
    if args.compare and not settings:
        raise InputError("--compare needs the share of depth pixels to give away: --sparse 0.001 0.01 0.05")
    if len(settings) > 1 and not args.compare:
        raise InputError("several shares or patterns of sparse depth can only be compared: add --compare")
    if args.temporal is not None and settings:
        raise InputError("--temporal scores the model's own depth as a video: leave out --sparse, or --temporal")
    dataset = open_dataset(args.data, args.group, args.image_topic, args.depth_topic, args.depth_scale)
    estimator = Estimator.load(args.model, args.backend, args.threads)
    if args.temporal is not None:
        return _run_temporal(args, dataset, estimator)
    if args.compare:
        return _compare(args, dataset, estimator, settings)
    setting = settings[0] if settings else None
    result = _evaluate_with_progress(dataset, estimator, args.show if args.report else 0, setting)
    # First what nothing can keep from being seen.
    console = TableConsole()
    for table in tables(result.summary):
        console.print(table)
    if isinstance(dataset, BagDataset) and dataset.has_integer_depth:
        asked = unit_question(dataset, estimator, args.depth_scale or 0.001)
        dataset.notes += [asked] if asked else []
    _say_notes(dataset)
    facts = environment() | {"backend": estimator.backend_name}
    if args.json:
        write_json(args.json, result.as_dict() | _sparse_facts(setting) | {"environment": facts})
    if args.report:
        print(write_evaluation_report(args.report, result, facts), file=sys.stderr)
    if result.unscored:
        print(
            f"diffusion-perception evaluate: {image_count(len(result.unscored))} with {NO_TRUTH} "
            f"({', '.join(estimator.card.tasks)}), such as {result.unscored[0]}",
            file=sys.stderr,
        )
    return _report_problems(len(result.images), result.skipped, result.failed)


def _run_temporal(args: argparse.Namespace, dataset: EvaluationDataset, estimator: Estimator) -> int:
    """The video instead of its single images."""
    with progress_bar() as progress:
        task = progress.add_task(f"{estimator.card.name} on {dataset.name}", total=len(dataset))
        result = evaluate_video(
            dataset,
            estimator,
            dataset.name,
            args.temporal,
            show=VIDEO_FRAMES if args.report else 0,
            on_image=lambda index: progress.update(task, completed=index + 1),
        )
    TableConsole().print(video_table(result))
    _say_notes(dataset)
    facts = environment() | {"backend": estimator.backend_name}
    if args.json:
        write_json(args.json, result.as_dict() | {"environment": facts})
    if args.report:
        print(write_video_report(args.report, result, facts), file=sys.stderr)
    for entry in dataset.skipped:
        print(f"diffusion-perception evaluate: skipped {entry.name}: {entry.reason}", file=sys.stderr)
    return 1 if dataset.skipped else 0


def _say_notes(dataset: EvaluationDataset) -> None:
    for note in dataset.notes:
        print(f"diffusion-perception evaluate: note: {note}", file=sys.stderr)


def _sparse_facts(setting: SparseSetting | None) -> dict[str, object]:
    return {"sparse": setting and setting.share, "sparse_pattern": setting and setting.pattern}


def _compare(
    args: argparse.Namespace, dataset: EvaluationDataset, estimator: Estimator, settings: list[SparseSetting]
) -> int:
    """Prints the table of depth completion; the exit code."""
    with progress_bar() as progress:
        task = progress.add_task(f"{estimator.card.name} on {dataset.name}", total=len(dataset))
        show = args.show if args.report else 0
        result = compare(dataset, estimator, settings, lambda index: progress.update(task, completed=index + 1), show)
    TableConsole(160).print(result.table())
    facts = environment() | {"backend": estimator.backend_name}
    if args.json:
        scores = {"data": dataset.name, "model": {"name": estimator.card.name}, "completion": result.as_dict()}
        problems = {"failed": [vars(entry) for entry in result.failed]}
        write_json(args.json, scores | problems | {"environment": facts})
    if args.report:
        print(write_comparison_report(args.report, result, dataset.name, estimator.card, facts), file=sys.stderr)
    return _report_problems(len(dataset) - len(result.skipped), result.skipped, result.failed)


def _evaluate_with_progress(
    dataset: EvaluationDataset, estimator: Estimator, show: int, setting: SparseSetting | None
) -> Evaluation:
    given = {"sparse": setting.share, "pattern": setting.pattern} if setting else {}
    with progress_bar() as progress:
        task = progress.add_task(f"{estimator.card.name} on {dataset.name}", total=len(dataset))
        return evaluate(dataset, estimator, show, lambda index: progress.update(task, completed=index + 1), **given)  # type: ignore[arg-type]


def _report_problems(scored: int, skipped: list[Skipped], failed: list[Skipped]) -> int:
    """Names every image that is missing from the tables; the exit code."""
    problems = [("skipped", entry) for entry in skipped] + [("failed", entry) for entry in failed]
    for word, entry in problems:
        print(f"diffusion-perception evaluate: {word} {entry.name}: {entry.reason}", file=sys.stderr)
    if problems:
        print(
            f"diffusion-perception evaluate: {image_count(scored)} scored, {len(problems)} left out", file=sys.stderr
        )
    return 1 if problems else 0
