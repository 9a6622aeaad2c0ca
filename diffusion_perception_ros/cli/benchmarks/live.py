"""The live part of `diffusion-perception bench`: one camera on the node, over DDS, against the bare estimator."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diffusion_perception_ros.cli.benchmarks.camera_bag import write_camera_bag
from diffusion_perception_ros.cli.benchmarks.comparison import (
    HEIGHT,
    WIDTH,
    Comparison,
    bench_camera,
    bench_picture,
    prediction,
    take_turns,
)
from diffusion_perception_ros.cli.live import NAMESPACE, play_live
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.live_run import analyse
from diffusion_perception_ros.evaluation.summary import percentiles
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model, list_models


LIVE_RATE, LIVE_FRAMES = 30.0, 150


def live(model: str, backend: str, seconds: float) -> list[Comparison]:
    """The node over DDS, all its maps recorded or depth alone, against the bare estimator in this process.

    With the default model, every model that ships with the package is measured.
    """
    folders = _shipped() if model == DEFAULT_MODEL else [find_model(model)]
    latency, throughput, notes = {}, {}, []
    with tempfile.TemporaryDirectory() as temporary:
        bag = write_camera_bag(
            Path(temporary) / "bag", {"/camera": LIVE_RATE}, LIVE_FRAMES / LIVE_RATE, bench_picture(2 * WIDTH, HEIGHT)
        )
        dataset = BagDataset(bag, depth_required=False)
        recording, logs = Path(temporary) / "recording", Path(temporary) / "logs"
        for folder in folders:
            card = read_card(folder)
            for title, recorded in _recorded(card).items():
                published = play_live(dataset, folder.resolve(), recorded, recording, logs, backend)
                run = analyse(recording, NAMESPACE, dataset, recorded, published, show=0)
                latency[title], throughput[title] = percentiles(run.latency_ms)["p50"], run.throughput_hz
                notes.append(
                    f"{title}: {run.received} of {run.published} images received, {run.dropped} dropped as stale"
                )
    picture, camera = bench_picture(), bench_camera()
    bare = {
        f"{folder.name}, no ROS": prediction(Estimator.load(folder, backend), picture, camera, None)
        for folder in folders
    }
    times = take_turns(bare, 2 * seconds)
    return [
        Comparison("image to last map of the node, median", "ms", latency | times, notes=notes),
        Comparison(
            f"camera at {LIVE_RATE:g} Hz, player and recorder on the same processor",
            "Hz",
            throughput | {title: 1000 / value for title, value in times.items()},
            True,
        ),
    ]


def _shipped() -> list[Path]:
    """Folders of the models that lie beside the default one, which comes last."""
    default = find_model(DEFAULT_MODEL)
    names = [entry.name for entry in list_models() if entry.card is not None and entry.folder.parent == default.parent]
    return [*(default.parent / name for name in names if name != DEFAULT_MODEL), default]


def _recorded(card: ModelCard) -> dict[str, ModelCard]:
    """The card as it is, and with nothing but depth, where it has more."""
    recorded = {f"{card.name}, all maps": card}
    depth = card.output("depth")
    if depth is not None and len(card.outputs) > 1:
        recorded[f"{card.name}, depth only"] = card.model_copy(update={"outputs": (depth,)})
    return recorded
