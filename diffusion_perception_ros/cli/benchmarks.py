"""What `diffusion-perception bench` measures. Variants take turns, so that a busy machine slows all alike."""

from __future__ import annotations

import array
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusion_perception_ros.cli.camera_bag import write_camera_bag
from diffusion_perception_ros.cli.live import NAMESPACE, play_live
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.live_run import analyse
from diffusion_perception_ros.evaluation.summary import percentiles
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model, list_models
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


WIDTH, HEIGHT = 640, 480
LIVE_RATE, LIVE_FRAMES = 30.0, 150


@dataclass
class Comparison:
    """Variants that do the same thing, the reference last."""

    title: str
    unit: str
    values: dict[str, float]
    """Variant to median."""
    larger_is_better: bool = False
    notes: list[str] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """How many times better than the reference each variant is."""
        reference = list(self.values.values())[-1]
        return {
            name: value / reference if self.larger_is_better else reference / value
            for name, value in self.values.items()
        }


def take_turns(variants: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each variant, measured in alternation after one run to warm up."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    deadline = time.perf_counter() + seconds * len(variants)
    while time.perf_counter() < deadline:
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def bench_picture(width: int = WIDTH, height: int = HEIGHT) -> UInt8Image:
    """Smooth shapes with noise: neither a flat colour nor incompressible."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def decoding(seconds: float) -> list[Comparison]:
    """Image messages to RGB: this package against cv_bridge."""
    from cv_bridge import CvBridge
    from sensor_msgs.msg import Image

    from diffusion_perception_ros.ros.messages import decode_message

    bridge = CvBridge()
    comparisons = []
    for encoding, channels, kind in (("rgb8", 3, np.uint8), ("bgr8", 3, np.uint8), ("mono16", 1, np.uint16)):
        pixels = np.ascontiguousarray(bench_picture()[..., :channels]).astype(kind)
        message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=WIDTH * channels * pixels.itemsize)
        message.data.frombytes(pixels.tobytes())

        def ours(message: Any = message) -> object:
            return decode_message(message)

        def theirs(message: Any = message) -> object:
            return bridge.imgmsg_to_cv2(message, "rgb8")

        comparisons.append(
            _comparison_of(seconds, f"{encoding} message to RGB", {"this package": ours, "cv_bridge": theirs})
        )
    return comparisons


def encoding(seconds: float) -> list[Comparison]:
    """Arrays to image messages, and the ways to fill a message's data."""
    from cv_bridge import CvBridge
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from diffusion_perception_ros.ros.messages import image_message

    bridge, header = CvBridge(), Header(frame_id="camera")
    rgb, depth = bench_picture(), np.random.default_rng(0).uniform(0, 5, (HEIGHT, WIDTH)).astype(np.float32)
    data = rgb.tobytes()

    def fill(value: object) -> object:
        message = Image()
        message.data = value
        return message

    def frombytes() -> object:
        message = Image()
        message.data.frombytes(rgb.reshape(-1))
        return message

    return [
        _comparison_of(
            seconds,
            "RGB to rgb8 message",
            {
                "this package": lambda: image_message(header, rgb),
                "cv_bridge": lambda: bridge.cv2_to_imgmsg(rgb, "rgb8"),
            },
        ),
        _comparison_of(
            seconds,
            "depth to 32FC1 message",
            {
                "this package": lambda: image_message(header, depth),
                "cv_bridge": lambda: bridge.cv2_to_imgmsg(depth, "32FC1"),
            },
        ),
        _comparison_of(
            seconds,
            "filling data of a message",
            {
                "data.frombytes(ndarray)": frombytes,
                "data = array.array": lambda: fill(array.array("B", data)),
                "data = bytes": lambda: fill(data),
                "data = ndarray": lambda: fill(rgb.reshape(-1)),
            },
        ),
    ]


def estimator(model: str, backend: str, seconds: float) -> list[Comparison]:
    """Stages of one prediction, and predictions per second by how many tasks are asked for."""
    loaded = Estimator.load(model, backend)
    picture, camera = bench_picture(), Intrinsics(WIDTH, HEIGHT, 525.0, 525.0, 319.5, 239.5)
    stages: dict[str, list[float]] = {}
    loaded.warm_up(WIDTH, HEIGHT)
    deadline = time.perf_counter() + 2 * seconds
    while time.perf_counter() < deadline:
        timings = loaded.predict(picture, camera).timings
        for stage, value in [*timings.items(), ("whole prediction", sum(timings.values()))]:
            stages.setdefault(stage, []).append(1000 * value)
    medians = {stage: float(np.median(values)) for stage, values in stages.items()}
    asked = {f"{task} only": {task} for task in loaded.card.tasks} | {"all tasks": set(loaded.card.tasks)}
    times = take_turns({name: _prediction(loaded, picture, camera, tasks) for name, tasks in asked.items()}, seconds)
    return [
        Comparison(f"stages of {loaded.card.name} on {loaded.backend_name}", "ms", medians),
        Comparison("what is asked for", "ms", times),
    ]


def models(backend: str, seconds: float) -> list[Comparison]:
    """All models of this machine side by side, such as int8 and fp32 of one network."""
    loaded = {}
    for entry in list_models():
        if entry.card is not None:
            loaded[f"{entry.name} ({entry.card.precision})"] = Estimator.load(entry.folder, backend)
    if len(loaded) < 2:
        raise InputError("there is only one model on this machine")
    picture, camera = bench_picture(), Intrinsics(WIDTH, HEIGHT, 525.0, 525.0, 319.5, 239.5)
    runs = {name: _prediction(model, picture, camera, None) for name, model in loaded.items()}
    return [_comparison_of(seconds, "models", runs)]


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
    picture, camera = bench_picture(), Intrinsics(WIDTH, HEIGHT, 525.0, 525.0, 319.5, 239.5)
    bare = {
        f"{folder.name}, no ROS": _prediction(Estimator.load(folder, backend), picture, camera, None)
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


def _prediction(
    model: Estimator, picture: UInt8Image, camera: Intrinsics, tasks: set[str] | None
) -> Callable[[], object]:
    return lambda: model.predict(picture, camera, tasks)


def _comparison_of(seconds: float, title: str, variants: Mapping[str, Callable[[], object]]) -> Comparison:
    """Measures what runs on this machine; a variant that does not is noted with its reason."""
    usable, notes = {}, []
    for name, run in variants.items():
        try:
            run()
            usable[name] = run
        except Exception as error:  # other packages fail in their own ways
            notes.append(f"{name} does not work here: {error}")
    return Comparison(f"{title}, {WIDTH}x{HEIGHT}", "ms", take_turns(usable, seconds), notes=notes)
