"""`diffusion-perception demo`: bag player, perception node and recorder as three processes over DDS, then a report."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from diffusion_perception_ros.cli.common import TableConsole, add_backend_arguments, add_model_argument, progress_bar
from diffusion_perception_ros.cli.live import NAMESPACE, play_live
from diffusion_perception_ros.cli.processes import ChildError
from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.completion_comparison import (
    INTERPOLATIONS,
    CompletionComparison,
    SparseSetting,
    compare_samples,
)
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.evaluation.live_run import LiveRun, analyse, write_live_report
from diffusion_perception_ros.evaluation.reports.temporal_report import VIDEO_FRAMES, video_table
from diffusion_perception_ros.evaluation.summary import percentiles
from diffusion_perception_ros.evaluation.tables import tables
from diffusion_perception_ros.evaluation.temporal import VideoEvaluation, evaluate_video
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.recordings.recording import is_recording


CLIP = "demo/clip"
VIDEO_LENGTH = 30
"""Frames from the start of the bag whose flicker is measured."""
SPARSE_SHARE = 0.01
"""Of the pixels of the bag's depth, which a relative model gets as another sensor's, so that it answers in metres."""
COMPLETED = tuple(SparseSetting(share, pattern) for share in (0.001, 0.01, 0.05) for pattern in ("random", "rows32"))
COMPLETED_FRAMES, COMPLETED_STEP = 4, 4
"""Frames of the bag whose depth is completed, and of which rows and columns are scored."""
NEEDED_SHARE = 0.95
"""Share of the published images that must arrive at the node."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bag", type=Path, help="bag with a camera topic (default: the clip of this package)")
    add_model_argument(parser)
    add_backend_arguments(parser, threads=False)
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed (default: as recorded)")
    parser.add_argument("--image-topic", help="colour topic of the bag (default: found)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), metavar="DIR", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("rclpy") is None:
        raise InputError(
            "the demo runs ROS 2 nodes, and rclpy is not installed: run 'make demo' in a clone, or source a ROS 2 "
            "installation; 'diffusion-perception run' and 'evaluate' need no ROS"
        )
    bag = args.bag or find_resource(CLIP)
    if not is_recording(bag):
        raise InputError(f"{bag} is not a bag: give a rosbag2 folder, a .mcap or .db3 file, or a ROS 1 .bag file")
    model = find_model(args.model).resolve()
    card = read_card(model)
    dataset = BagDataset(bag, args.image_topic, depth_required=False)
    recording = args.output / "recording"
    depth = card.output("depth")
    relative = depth is not None and str(depth.quantity).startswith("relative")
    sparse_share = SPARSE_SHARE if relative and dataset.depth_topic is not None else 0.0
    try:
        with progress_bar() as progress:
            progress.add_task("waiting for node and recorder, then playing", total=None)
            published = play_live(
                dataset, model, card, recording, args.output / "logs", args.backend, args.rate, sparse_share
            )
    except ChildError as error:
        print(f"diffusion-perception demo: {error}", file=sys.stderr)
        return 2
    with progress_bar() as progress:
        task = progress.add_task("scoring", total=published)
        result = analyse(
            recording, NAMESPACE, dataset, card, published, on_frame=lambda n: progress.update(task, completed=n)
        )
    result.video = _video(dataset, model, args.backend)
    result.sparse_share = sparse_share
    if sparse_share:
        result.completion, result.completion_step = _completion(dataset, model, args.backend), COMPLETED_STEP
    facts = environment() | {"backend": result.backend}
    metrics_path, report_path = write_live_report(args.output, result, facts)
    _print(result)
    print(f"{report_path}\n{metrics_path}")
    return _verdict(result)


def _video(dataset: BagDataset, model: Path, backend: str) -> VideoEvaluation | None:
    """Flicker over the start of the bag, without ROS; None where it has no depth to compare with."""
    if dataset.depth_topic is None or dataset.camera_info_topic is None:
        return None
    with progress_bar() as progress:
        task = progress.add_task(
            "flicker, with and without the temporal filter", total=min(len(dataset), VIDEO_LENGTH)
        )
        try:
            return evaluate_video(
                itertools.islice(dataset, VIDEO_LENGTH),
                Estimator.load(model, backend),
                dataset.name,
                show=VIDEO_FRAMES,
                on_image=lambda index: progress.update(task, completed=index + 1),
            )
        except InputError:  # frames without depth, or without anything in common: nothing to show
            return None


def _completion(dataset: BagDataset, model: Path, backend: str) -> CompletionComparison | None:
    """Depth completed from sparse points on a few frames, without ROS; None where it cannot be scored."""
    with progress_bar() as progress:
        task = progress.add_task("completing sparse depth", total=COMPLETED_FRAMES)
        result = compare_samples(
            _some(dataset, COMPLETED_FRAMES),
            Estimator.load(model, backend),
            COMPLETED,
            ("model", *INTERPOLATIONS),
            COMPLETED_STEP,
            on_image=lambda index: progress.advance(task),
        )
    return result if result.scores else None


def _some(dataset: BagDataset, count: int) -> Iterator[tuple[int, EvaluationSample]]:
    """Frames at equal distances that can be read, with their index."""
    for number in range(min(count, len(dataset))):
        index = (2 * number + 1) * len(dataset) // (2 * min(count, len(dataset)))
        with contextlib.suppress(InputError):  # named among the problems of the run
            yield index, dataset[index]


def _print(result: LiveRun) -> None:
    console = TableConsole()
    table = Table(title="Over DDS", title_justify="left", title_style="bold", show_header=False)
    latency, inference = percentiles(result.latency_ms), percentiles(result.stage_ms["inference"])
    table.add_column()
    table.add_column(justify="right")
    for name, value in {
        "images published": f"{result.published}",
        "received by the node": f"{result.received} ({result.received / max(result.published, 1):.1%})",
        "predicted": f"{result.predicted}",
        "replaced by newer ones (dropped)": f"{result.dropped}",
        "wrong stamp or frame": f"{result.header_mismatches}",
        "latency p50 / p95 / p99": " / ".join(f"{latency[name]:.0f}" for name in ("p50", "p95", "p99")) + " ms",
        "inference p50": f"{inference['p50']:.1f} ms",
        "throughput": f"{result.throughput_hz:.1f} Hz",
    }.items():
        table.add_row(name, value)
    console.print(table)
    for accuracy in tables(result.summary):
        console.print(accuracy)
    if result.completion:
        console.print(result.completion.table())
    if result.video:
        console.print(video_table(result.video))


def _verdict(result: LiveRun) -> int:
    """What went wrong, on stderr; the exit code."""
    lines = [f"{problem.name}: {problem.reason}" for problem in result.problems]
    if result.header_mismatches:
        lines.append(f"{result.header_mismatches} messages carry a stamp or frame that no image had")
    if result.received < NEEDED_SHARE * result.published:
        lines.append(
            f"only {result.received} of {result.published} images arrived at the node: "
            "this machine is too busy, or DDS loses images (see 'diffusion-perception doctor')"
        )
    for line in lines:
        print(f"diffusion-perception demo: {line}", file=sys.stderr)
    return 1 if lines else 0
