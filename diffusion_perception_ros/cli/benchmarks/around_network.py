"""What is spent around the network: CPU time against the bare session, on the same tensors in the same rounds.

Run as a program it measures in a process of its own, with a node's memory settings and one thread, and prints JSON.
CPU time of one thread hardly depends on what else the machine does; of interleaved rounds the fastest counts.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends.onnx_pruning import keep_outputs
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.decoder import Decoder
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.memory import keep_freed_memory
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.preprocess import Preprocessor
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.outputs import OUTPUTS
from diffusion_perception_ros.ros.perception_node import PerceptionNode
from diffusion_perception_ros.ros.qos import IMAGE_QOS
from diffusion_perception_ros.sample import UInt8Image


SIZES = {"640x480": (640, 480), "1280x720": (1280, 720), "1920x1080": (1920, 1080)}
MAPS = (
    "depth_relative/image",
    "depth/confidence",
    "normals/image",
    "segmentation/mask",
    "segmentation/confidence",
    "instances/image",
)
COLORS = ("depth/image_color", "normals/image_color", "segmentation/image_color")
ONE = ("depth_relative/image",)
IMAGES = 2
"""Of the clip, per round."""

Runs = Mapping[str, Callable[[], object]]


class LiveNode:
    """The perception node of this process, and somebody who listens to some of its topics."""

    def __init__(self, model: str) -> None:
        overrides = [Parameter("model", value=model), Parameter("threads", value=1), Parameter("backend", value="cpu")]
        self._node = PerceptionNode(parameter_overrides=overrides)
        self._node.trigger_configure()
        self._node.trigger_activate()
        self._listener = Node("listener")
        self._types = {output.topic: output.type for output in OUTPUTS}

    def listen(self, topics: Sequence[str]) -> None:
        """Subscribes to just these topics, and waits until the node knows."""
        for subscription in list(self._listener.subscriptions):
            self._listener.destroy_subscription(subscription)
        for topic in topics:
            self._listener.create_subscription(self._types[topic], topic, lambda message: None, IMAGE_QOS)
        while {topic for topic in self._types if self._node.count_subscribers(topic)} != set(topics):
            time.sleep(0.05)
        time.sleep(0.5)  # publishers hear of it a little later than the graph

    def process(self, messages: Sequence[Image]) -> None:
        """From callback to published, in this thread."""
        pipeline = self._node.pipeline
        assert pipeline is not None
        for message in messages:
            pipeline([("", Job(message, time.perf_counter()))])

    def close(self) -> None:
        """Takes both nodes back."""
        self._node.destroy_node()
        self._listener.destroy_node()


def measure(model: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU per image by what is done, and page faults per image of the node."""
    folder = find_model(model)
    card = read_card(folder)
    graph = folder / card.graph_files["fused"]
    tensors = Decoder(card).tensors_for({"depth"})
    whole, depth = _session(graph.read_bytes()), _session(keep_outputs(graph.read_bytes(), tensors))
    estimator = Estimator.load(folder, "cpu", 1)
    node = LiveNode(str(folder))
    results: dict[str, Any] = {}
    peer = _peer(folder, results)
    for name, size in SIZES.items():
        images = _clip(size)
        inputs = [{card.input.tensor: Preprocessor(card.input)(image).copy()} for image in images]
        messages = [_message(image) for image in images]
        here = peer if name == "640x480" else None
        results[name] = _measure_size(whole, depth, estimator, node, here, images, inputs, messages, rounds)
    results["memory_growth"] = _growth(node, [_message(image) for image in _clip(SIZES["640x480"])])
    node.close()
    return results


def _peer(folder: Path, results: dict[str, Any]) -> Any:
    """The obvious node, None where it cannot run; `results` says why."""
    try:
        from diffusion_perception_ros.cli.benchmarks.obvious_node import ObviousNode

        return ObviousNode(folder)
    except (ImportError, InputError) as error:
        results["peer_left_out"] = f"needs cv_bridge, PyTorch and the model's weights: {error}"
        return None


def _measure_size(
    whole: onnxruntime.InferenceSession,
    depth: onnxruntime.InferenceSession,
    estimator: Estimator,
    node: LiveNode,
    peer: Any,
    images: Sequence[UInt8Image],
    inputs: Sequence[Mapping[str, Any]],
    messages: Sequence[Image],
    rounds: int,
) -> dict[str, Any]:
    _wait_for_pruning(estimator, images[0])
    direct: Runs = {
        "bare, all": lambda: [whole.run(None, tensors) for tensors in inputs],
        "bare, depth": lambda: [depth.run(None, tensors) for tensors in inputs],
        "predict, all": lambda: [estimator.predict(image) for image in images],
        "predict, depth": lambda: [estimator.predict(image, tasks={"depth"}) for image in images],
    }
    times: dict[str, list[float]] = {}
    faults: dict[str, float] = {}
    for title, topics, bare in (
        ("node, all maps", MAPS, "bare, all"),
        ("node, depth", ONE, "bare, depth"),
        ("node, all maps and colours", MAPS + COLORS, "bare, all"),
    ):
        node.listen(topics)
        runs = {bare: direct[bare], title: lambda: node.process(messages)}
        if title == "node, all maps":
            runs |= {"predict, all": direct["predict, all"]}
            if peer is not None:
                runs |= {"obvious node, all": lambda: peer.process(messages, True)}
        if title == "node, depth":
            node.process(messages)
            time.sleep(2.0)  # the graph of this output alone is made in the background
            runs |= {"predict, depth": direct["predict, depth"]}
            if peer is not None:
                runs |= {"obvious node, depth": lambda: peer.process(messages, False)}
        _take_turns(runs, rounds, times)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            node.process(messages)
        faults[title] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (3 * len(messages))
    return {
        "cpu_ms": {name: 1000 * min(values) / len(images) for name, values in times.items()},
        "median_ms": {name: 1000 * float(np.median(values)) / len(images) for name, values in times.items()},
        "page_faults": faults,
    }


def _take_turns(runs: Runs, rounds: int, times: dict[str, list[float]]) -> None:
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            start = time.process_time()
            run()
            times.setdefault(name, []).append(time.process_time() - start)


def _growth(node: LiveNode, messages: Sequence[Image], images: int = 300) -> dict[str, float]:
    """Resident memory before and after so many images, in MB."""
    node.listen(MAPS)
    node.process([*messages] * 5)
    before = _resident()
    for _ in range(images // len(messages)):
        node.process(messages)
    return {"images": images, "before_mb": before, "after_mb": _resident()}


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _wait_for_pruning(estimator: Estimator, image: UInt8Image) -> None:
    """The graph of one output alone is made in the background when it is first asked for."""
    estimator.predict(image, tasks={"depth"})
    time.sleep(2.0)


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _clip(size: tuple[int, int]) -> list[UInt8Image]:
    """Images of the bundled clip, spread over it."""
    from diffusion_perception_ros.cli.demo import CLIP
    from diffusion_perception_ros.cli.resources import find_resource

    samples = list(BagDataset(find_resource(CLIP)))
    chosen = [samples[index].rgb for index in np.linspace(0, len(samples) - 1, IMAGES).astype(int)]
    return [np.asarray(cv2.resize(image, size), np.uint8) for image in chosen]


def _message(image: UInt8Image) -> Image:
    message = Image(height=image.shape[0], width=image.shape[1], encoding="rgb8", step=3 * image.shape[1])
    message.header.frame_id = "camera_optical_frame"
    message.data.frombytes(image.tobytes())
    return message


def main() -> None:
    """`python -m … MODEL ROUNDS`: prints one line of JSON."""
    keep_freed_memory()
    cv2.setNumThreads(1)
    os.environ["ROS_DOMAIN_ID"] = str(100 + os.getpid() % 100)  # nobody else's topics
    rclpy.init()
    model, rounds = sys.argv[1:3]
    print(json.dumps(measure(model, int(rounds))))
    sys.stdout.flush()
    os._exit(0)  # what is measured is measured: no thread of a library may hold up the end


if __name__ == "__main__":
    main()
