"""What came out of a live run: the recording of perception_node's outputs against the bag that was played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_perception_ros.datasets import Skipped
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.completion_comparison import CompletionComparison
from diffusion_perception_ros.evaluation.recording import STAGES, RecordedFrame, read_recording
from diffusion_perception_ros.evaluation.reports.completion_report import completion_facts, completion_view
from diffusion_perception_ros.evaluation.reports.report import (
    HEADLINE_METHODS,
    OWN_METHODS,
    REPORT_NAME,
    Fact,
    Page,
    TableView,
    accuracy_facts,
    card_rows,
    frame_views,
    metres_caption,
    percent,
    table_views,
    time_charts,
    write_page,
)
from diffusion_perception_ros.evaluation.reports.scale_report import ScaleState, scale_charts, scale_summary
from diffusion_perception_ros.evaluation.reports.temporal_report import video_facts, video_frame_view, video_table_view
from diffusion_perception_ros.evaluation.run import EvaluatedFrame, spread
from diffusion_perception_ros.evaluation.scoring import ImageScores, score_completed
from diffusion_perception_ros.evaluation.summary import Summary, percentiles, summarise
from diffusion_perception_ros.evaluation.temporal import VideoEvaluation
from diffusion_perception_ros.files import write_json
from diffusion_perception_ros.inference.card import ModelCard


METRICS_NAME = "metrics.json"


@dataclass
class LiveRun:
    """A run of player, node and recorder, analysed."""

    data: str
    model: ModelCard
    backend: str = ""
    published: int = 0
    received: int = 0
    predicted: int = 0
    dropped: int = 0
    rejected: int = 0
    header_mismatches: int = 0
    """Recorded messages whose stamp and frame_id belong to no published image."""
    latency_ms: list[float] = field(default_factory=list)
    """Arrival of an image at the node to its last output published."""
    stage_ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    times: list[int] = field(default_factory=list)
    """Nanoseconds, when the recorder got each frame's last message."""
    images: list[ImageScores] = field(default_factory=list)
    frames: list[EvaluatedFrame] = field(default_factory=list)
    problems: list[Skipped] = field(default_factory=list)
    video: VideoEvaluation | None = None
    """Flicker with and without the temporal filter, on the start of the same bag."""
    sparse_share: float = 0.0
    """Of the pixels of the bag's depth, which the node got as `sparse_depth`."""
    scales: list[ScaleState] = field(default_factory=list)
    """Of every frame with a status."""
    completion: CompletionComparison | None = None
    """Depth completed from sparse points, on a few frames of the same bag."""
    completion_step: int = 1
    """Every so many rows and columns of them were scored."""

    @property
    def throughput_hz(self) -> float:
        """Predicted frames per second, from the first to the last."""
        if len(self.times) < 2 or self.times[-1] <= self.times[0]:
            return float("nan")
        return (len(self.times) - 1) / ((self.times[-1] - self.times[0]) * 1e-9)

    @property
    def summary(self) -> Summary:
        return summarise(self.images)


def analyse(
    recording: Path,
    namespace: str,
    dataset: BagDataset,
    card: ModelCard,
    published: int,
    show: int = 4,
    on_frame: Callable[[int], None] | None = None,
) -> LiveRun:
    """Reads a recording and scores what has ground truth.

    Args:
        recording: The recorder's bag.
        namespace: Of the node.
        dataset: The bag that was played, opened with `depth_required=False`.
        card: Of the model that ran.
        published: Images that the player published.
        show: Images to keep for the report.
        on_frame: Called with the number of frames read so far.

    Raises:
        InputError: the recording holds no prediction.
    """
    run = LiveRun(dataset.name, card, published=published)
    damage: list[str] = []
    index_of = {stamp: index for index, stamp in reversed(list(enumerate(dataset.stamps)))}
    targets = spread([""] * len(dataset), show)
    for frame in read_recording(recording, namespace, card, damage):
        _count(run, frame)
        index = index_of.get(frame.stamp)
        if index is None:
            run.header_mismatches += len(frame.frame_ids)
            continue
        try:
            sample = dataset[index]
        except InputError as error:
            run.problems.append(Skipped(dataset.name_of(index), str(error)))
            continue
        run.header_mismatches += sum(frame_id != sample.frame_id for frame_id in frame.frame_ids)
        run.images.append(score_completed(sample, frame.prediction, card))
        if targets and index >= targets[0]:
            run.frames.append(EvaluatedFrame(sample, frame.prediction))
            targets = [target for target in targets if target > index]
        if on_frame:
            on_frame(run.predicted)
    run.problems += [Skipped(recording.name, sentence) for sentence in damage]
    run.problems += dataset.damage
    if not run.times:
        raise InputError(f"{recording} holds no prediction: see the node's log")
    return run


def _count(run: LiveRun, frame: RecordedFrame) -> None:
    status = frame.status
    if status is None:
        return
    run.backend = status.backend
    run.received, run.predicted = int(status.frames_received), int(status.frames_predicted)
    run.dropped, run.rejected = int(status.frames_dropped), int(status.frames_rejected)
    run.latency_ms.append(1000 * float(status.latency))
    for stage, seconds in frame.prediction.timings.items():
        run.stage_ms[stage].append(1000 * seconds)
    run.times.append(frame.time)
    run.scales.append(ScaleState.of(frame.stamp, status))


def metrics(run: LiveRun, environment: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of a run, for `metrics.json`."""
    return {
        "data": run.data,
        "model": run.model.name,
        "backend": run.backend,
        "frames_published": run.published,
        "frames_received": run.received,
        "frames_predicted": run.predicted,
        "frames_dropped": run.dropped,
        "frames_rejected": run.rejected,
        "frames_recorded": len(run.times),
        "received_share": run.received / run.published if run.published else None,
        "header_mismatches": run.header_mismatches,
        "latency_ms": percentiles(run.latency_ms),
        "inference_ms": percentiles(run.stage_ms["inference"]),
        "stage_ms": {stage: percentiles(values) for stage, values in run.stage_ms.items()},
        "throughput_hz": run.throughput_hz,
        "accuracy": run.summary,
        "flicker": run.video.as_dict() if run.video else None,
        "sparse_depth_share": run.sparse_share,
        "scale": scale_summary(run.scales),
        "completion": run.completion.as_dict() if run.completion else None,
        "problems": [vars(problem) for problem in run.problems],
        "environment": dict(environment),
    }


def write_live_report(folder: Path, run: LiveRun, environment: Mapping[str, str]) -> tuple[Path, Path]:
    """Writes `metrics.json` and `report.html`; their paths.

    Raises:
        InputError: the folder cannot be written.
    """
    write_json(folder / METRICS_NAME, metrics(run, environment))
    strip = video_frame_view(run.video) if run.video else None
    page = Page(
        title=f"{run.model.name} on {Path(run.data).name}",
        subtitle=f"{run.published} images played over DDS: bag player → perception node → recorder, three processes",
        facts=_facts(run),
        frames=[*frame_views(run.frames, run.model, metres_caption(run.sparse_share)), *([strip] if strip else [])],
        tables=_tables(run),
        scale_charts=scale_charts(run.scales),
        charts=time_charts("From image to last output", run.latency_ms, run.stage_ms),
        sections={"Run": _run_rows(run), "Model": card_rows(run.model), "Measured on": dict(environment)},
        problems=run.problems,
    )
    return folder / METRICS_NAME, write_page(folder / REPORT_NAME, page)


def _facts(run: LiveRun) -> list[Fact]:
    facts = [*_live_facts(run), *accuracy_facts(run.summary, OWN_METHODS if run.sparse_share else HEADLINE_METHODS)]
    if run.completion:
        facts += completion_facts(run.completion)
    return [*facts, *video_facts(run.video)] if run.video else facts


def _tables(run: LiveRun) -> list[TableView]:
    tables = table_views(run.summary)
    if run.sparse_share and "depth" in run.summary:
        tables[0].note += (
            f" “In metres”: completed from {percent(run.sparse_share)} of the true depth, which the node got as "
            "sparse_depth; those pixels are scored, too."
        )
    if run.completion:
        tables.append(completion_view(run.completion, run.completion_step))
    return [*tables, video_table_view(run.video)] if run.video else tables


def _live_facts(run: LiveRun) -> list[Fact]:
    latency = percentiles(run.latency_ms)
    return [
        Fact(f"{latency['p50']:.0f} ms", "latency", f"image to last output; 95% below {latency['p95']:.0f} ms"),
        Fact(f"{run.throughput_hz:.1f} Hz", "predictions", f"{run.predicted} of {run.received} images received"),
        Fact(
            f"{run.received / max(run.published, 1):.0%}",
            "of the images arrived",
            f"{run.published} published, {run.dropped} replaced by newer ones while the network was busy",
        ),
    ]


def _run_rows(run: LiveRun) -> dict[str, str]:
    return {
        "images published": str(run.published),
        "received by the node": str(run.received),
        "predicted": str(run.predicted),
        "replaced by newer ones": str(run.dropped),
        "could not be used": str(run.rejected),
        "wrong stamp or frame": str(run.header_mismatches),
        "sparse_depth": f"{percent(run.sparse_share)} of the pixels of the bag's depth, at random"
        if run.sparse_share
        else "none",
        "backend": run.backend,
    }
