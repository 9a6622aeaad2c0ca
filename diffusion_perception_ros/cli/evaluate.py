"""`diffusion-perception evaluate`: metrics against ground truth and trivial baselines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_perception_ros.datasets import EvaluationDataset
from diffusion_perception_ros.datasets.bag_reading import is_bag
from diffusion_perception_ros.datasets.folder import FolderDataset
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.evaluation.output import write_json
from diffusion_perception_ros.evaluation.report import write_evaluation_report
from diffusion_perception_ros.evaluation.run import Evaluation, evaluate
from diffusion_perception_ros.evaluation.tables import tables
from diffusion_perception_ros.evaluation.temporal import evaluate_video
from diffusion_perception_ros.evaluation.temporal_report import VIDEO_FRAMES, video_table, write_video_report
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import DEFAULT_MODEL
from diffusion_perception_ros.inference.temporal import TIME_CONSTANT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", required=True, type=Path, help="folder with ground truth, or a bag with a depth topic"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of a model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="auto, cpu, cuda or tensorrt (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 = all cores")
    parser.add_argument("--group", action="append", metavar="NAME", help="only this group of the data (repeatable)")
    parser.add_argument("--image-topic", help="bags: colour topic (default: the first that has depth)")
    parser.add_argument("--depth-topic", help="bags: depth topic, registered to the colour image")
    parser.add_argument(
        "--sparse",
        type=_share,
        metavar="SHARE",
        help="give this share of the depth pixels (0.01 = 1 %%) to the model, score the others in metres",
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
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html with pictures here")
    parser.add_argument(
        "--show", type=int, default=8, metavar="N", help="pictures in the report (default: %(default)s)"
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"a share is between 0 and 1, got {text}")
    return value


def run(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.data, args.group, args.image_topic, args.depth_topic)
    estimator = Estimator.load(args.model, args.backend, args.threads)
    if args.temporal is not None:
        return _run_temporal(args, dataset, estimator)
    result = _evaluate_with_progress(dataset, estimator, args.show if args.report else 0, args.sparse)
    # First what nothing can keep from being seen.
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(result.summary):
        console.print(table)
    facts = environment() | {"backend": estimator.backend_name}
    if args.json:
        write_json(args.json, result.as_dict() | {"sparse": args.sparse, "environment": facts})
    if args.report:
        print(write_evaluation_report(args.report, result, facts), file=sys.stderr)
    return _report_problems(result)


def _run_temporal(args: argparse.Namespace, dataset: EvaluationDataset, estimator: Estimator) -> int:
    """The video instead of its single pictures."""
    with _progress() as progress:
        task = progress.add_task(f"{estimator.card.name} on {dataset.name}", total=len(dataset))
        result = evaluate_video(
            dataset,
            estimator,
            dataset.name,
            args.temporal,
            show=VIDEO_FRAMES if args.report else 0,
            on_image=lambda index: progress.update(task, completed=index + 1),
        )
    Console(width=None if sys.stdout.isatty() else 140).print(video_table(result))
    facts = environment() | {"backend": estimator.backend_name}
    if args.json:
        write_json(args.json, result.as_dict() | {"environment": facts})
    if args.report:
        print(write_video_report(args.report, result, facts), file=sys.stderr)
    for entry in dataset.skipped:
        print(f"diffusion-perception evaluate: skipped {entry.name}: {entry.reason}", file=sys.stderr)
    return 1 if dataset.skipped else 0


def open_dataset(
    data: Path, groups: list[str] | None, image_topic: str | None = None, depth_topic: str | None = None
) -> EvaluationDataset:
    """A folder or a bag, whichever `data` is.

    Raises:
        InputError: neither, or nothing in it that can be scored.
    """
    if is_bag(data):
        return BagDataset(data, image_topic, depth_topic)
    return FolderDataset(data, groups)


def _evaluate_with_progress(
    dataset: EvaluationDataset, estimator: Estimator, show: int, sparse: float | None
) -> Evaluation:
    with _progress() as progress:
        task = progress.add_task(f"{estimator.card.name} on {dataset.name}", total=len(dataset))
        return evaluate(dataset, estimator, show, lambda index: progress.update(task, completed=index + 1), sparse)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _report_problems(result: Evaluation) -> int:
    """Names every picture that is missing from the tables; the exit code."""
    problems = [("skipped", entry) for entry in result.skipped] + [("failed", entry) for entry in result.failed]
    for word, entry in problems:
        print(f"diffusion-perception evaluate: {word} {entry.name}: {entry.reason}", file=sys.stderr)
    if problems:
        print(
            f"diffusion-perception evaluate: {len(result.images)} pictures scored, {len(problems)} left out",
            file=sys.stderr,
        )
    return 1 if problems else 0
