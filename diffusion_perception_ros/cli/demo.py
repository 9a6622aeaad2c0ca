"""`diffusion-perception demo`: bag player, perception node and recorder as three processes over DDS, then a report."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from diffusion_perception_ros.cli.processes import ChildError, Children, children
from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.datasets.bag_reading import is_bag
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.evaluation.live_run import LiveRun, analyse, last_json, write_live_report
from diffusion_perception_ros.evaluation.recording import STATUS_TOPIC, output_topics
from diffusion_perception_ros.evaluation.summary import percentiles
from diffusion_perception_ros.evaluation.tables import tables
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model


NAMESPACE = "/perception"
CLIP = "demo/clip"
DDS_PROFILE = "config/fastdds_large_images.xml"
START_TIMEOUT = 120.0
"""Seconds for the node to load its model and for all processes to find each other."""
DRAIN_TIME = 2.0
"""Seconds after the last image until the recorder is stopped: the node may still be predicting."""
NEEDED_SHARE = 0.95
"""Share of the published images that must arrive at the node."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bag", type=Path, help="bag with a camera topic (default: the clip of this package)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of a model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="auto, cpu, cuda or tensorrt (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed (default: as recorded)")
    parser.add_argument("--image-topic", help="colour topic of the bag (default: found)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), metavar="DIR", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    bag = args.bag or find_resource(CLIP)
    if not is_bag(bag):
        raise InputError(f"{bag} is not a bag: give a rosbag2 folder, a .mcap or .db3 file, or a ROS 1 .bag file")
    model = find_model(args.model).resolve()
    card = read_card(model)
    dataset = BagDataset(bag, args.image_topic, depth_required=False)
    recording = args.output / "recording"
    try:
        published = _play(args, dataset, model, card, recording)
    except ChildError as error:
        print(f"diffusion-perception demo: {error}", file=sys.stderr)
        return 2
    with _progress() as progress:
        task = progress.add_task("scoring", total=published)
        result = analyse(
            recording, NAMESPACE, dataset, card, published, on_frame=lambda n: progress.update(task, completed=n)
        )
    facts = environment() | {"backend": result.backend}
    metrics_path, report_path = write_live_report(args.output, result, facts)
    _print(result)
    print(f"{report_path}\n{metrics_path}")
    return _verdict(result)


def _play(args: argparse.Namespace, dataset: BagDataset, model: Path, card: ModelCard, recording: Path) -> int:
    """Runs the three processes to the end of the bag; the number of images published."""
    shutil.rmtree(recording, ignore_errors=True)
    duration = (max(dataset.stamps) - min(dataset.stamps)) * 1e-9 / args.rate
    # Recorded last, so whoever sees its second subscriber (after the node) knows that all outputs are recorded.
    trigger = dataset.camera_info_topic or dataset.image_topic
    with children(args.output / "logs", _environment()) as group, _progress() as progress:
        progress.add_task("waiting for the node and the recorder, then playing", total=None)
        recorder = _start(
            group,
            "recorder",
            output=str(recording),
            topics=[f"{NAMESPACE}/{topic}" for topic in [*output_topics(card), STATUS_TOPIC]] + [trigger],
        )
        transport, base = _transport(dataset.image_topic)
        remaps = ["-r", f"__ns:={NAMESPACE}", "-r", f"image:={base}"]
        node = _start(
            group, "perception_node", remaps, model=str(model), backend=args.backend, image_transport=transport
        )
        player = _start(
            group,
            "bag_player",
            bag=str(dataset.path.resolve()),
            rate=args.rate,
            topics=list(dict.fromkeys([dataset.image_topic, trigger])),
            wait_for=[trigger],
            wait_for_subscribers=2,
            wait_timeout=START_TIMEOUT,
            clock=False,
        )
        # Exit code 1: played except for damaged parts, which the dataset has named too.
        player.wait(START_TIMEOUT + 2 * duration + 30, others=[recorder, node], success=(0, 1))
        time.sleep(DRAIN_TIME)
        node.check()
        recorder.process.send_signal(signal.SIGINT)
        # Exit code 1: some topics had no publisher, such as a bag without camera_info.
        recorder.wait(30, success=(0, 1))
        return int(last_json(player.output().splitlines())["published"][dataset.image_topic])


def _start(group: Children, name: str, remaps: list[str] | None = None, **parameters: object):  # type: ignore[no-untyped-def]
    arguments = ["--ros-args", *(remaps or [])]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={_yaml(value)}"]
    return group.start(name, f"diffusion_perception_ros.ros.{name}", arguments)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(entry) for entry in value) + "]"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _transport(topic: str) -> tuple[str, str]:
    """The image_transport of a topic and the base name that the node asks for."""
    if topic.endswith("/compressed"):
        return "compressed", topic.removesuffix("/compressed")
    return "raw", topic


def _environment() -> dict[str, str]:
    """Of the children: large images pass through shared memory, and only this machine is looked at."""
    profile = str(find_resource(DDS_PROFILE).resolve())
    variable = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else "FASTDDS"
    settings = {f"{variable}_DEFAULT_PROFILES_FILE": profile, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    # A domain of its own keeps other nodes of this machine out of the measurement; 1 to 101 are free of clashes
    # with the ephemeral ports of Linux.
    domain = os.environ.get("ROS_DOMAIN_ID") or str(1 + os.getpid() % 101)
    return os.environ | settings | {"ROS_DOMAIN_ID": domain, "PYTHONUNBUFFERED": "1"}


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _print(result: LiveRun) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
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


def _verdict(result: LiveRun) -> int:
    """What went wrong, on stderr; the exit code."""
    complaints = [f"{problem.name}: {problem.reason}" for problem in result.problems]
    if result.header_mismatches:
        complaints.append(f"{result.header_mismatches} messages carry a stamp or frame that no image had")
    if result.received < NEEDED_SHARE * result.published:
        complaints.append(
            f"only {result.received} of {result.published} images arrived at the node: "
            "this machine is too busy, or DDS loses images (see 'diffusion-perception doctor')"
        )
    for complaint in complaints:
        print(f"diffusion-perception demo: {complaint}", file=sys.stderr)
    return 1 if complaints else 0
