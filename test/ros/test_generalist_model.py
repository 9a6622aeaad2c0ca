"""A generalist of the trainer in the node: several tasks of one folder, between two images and with prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backbone_factory import write_backbone_checkpoint
from geometry_msgs.msg import PointStamped
from harness import LATCHED, RELIABLE, Process, Ros, header, pixels, rgb_image
from sensor_msgs.msg import Image, PointCloud2
from toy_rooms import toy_pair

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.msg import PerceptionStatus, SegmentationLabels
from diffusion_perception_ros.sample import JOINTS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not trained: it says little, but it has everything that a trained one would give."""
    folder = tmp_path_factory.mktemp("generalist")
    write_backbone_checkpoint(folder / "checkpoint", ["depth", "entity", "mask", "pose", "flow"], kind="lotus_d")
    arguments = ["export", "native", "--checkpoint", str(folder / "checkpoint"), "-o", str(folder / "model")]
    assert main([*arguments, "--tasks", "depth,mask,pose,flow"]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def node(ros: Ros, model: Path) -> Iterator[Process]:
    node = ros.start("perception_node", "-p", f"model:={model}", "-p", "threads:=1")
    yield node
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_the_node_answers_all_tasks_of_the_folder(ros: Ros, node: Process, model: Path) -> None:
    labels = ros.collect(SegmentationLabels, "/keypoints/labels", LATCHED)
    (message,) = ros.wait_for(lambda: labels.messages, "names of the joints")
    assert tuple(label.name for label in message.labels) == JOINTS

    kinds = {"depth_relative/image": Image, "mask/image": Image, "flow/image": Image, "keypoints": PointCloud2}
    topics: dict[str, Any] = {name: ros.collect(kind, f"/{name}") for name, kind in kinds.items()}
    status = ros.collect(PerceptionStatus, "/status")
    images = ros.node.create_publisher(Image, "/image", RELIABLE)
    prompts = ros.node.create_publisher(PointStamped, "/prompt", RELIABLE)
    sample, stamps = toy_pair(3), itertools.count(1)

    def send(rgb: np.ndarray) -> int:
        stamp = next(stamps)
        message = rgb_image(rgb, float(stamp))
        ros.repeat_until(lambda: images.publish(message), lambda: status.at(stamp), f"status {stamp}")
        return stamp

    def everybody_is_there() -> bool:
        return set(status.messages[-1].tasks) == {"depth", "mask", "keypoints", "flow"} if status.messages else False

    assert sample.previous is not None
    prompt = PointStamped(header=header(0.0))
    prompt.point.x, prompt.point.y = 40.0, 20.0
    ros.wait_for(prompts.get_subscription_count, "the node subscribes to prompts")
    first = send(sample.previous)
    assert not topics["mask/image"].at(first)  # nobody has pointed at anything
    prompts.publish(prompt)
    ros.repeat_until(lambda: send(sample.previous), everybody_is_there, "all tasks have subscribers and prompts")
    stamp = send(sample.rgb)

    estimator = Estimator.load(model, threads=1)
    point = [[40.0, 20.0, 1.0]]
    estimator.predict(sample.previous, points=point)
    said = estimator.predict(sample.rgb, points=point)
    depth = ros.wait_for(lambda: topics["depth_relative/image"].at(stamp), "depth")
    np.testing.assert_allclose(pixels(depth), said.depth_relative, atol=1e-5)
    mask = ros.wait_for(lambda: topics["mask/image"].at(stamp), "mask")
    np.testing.assert_array_equal(pixels(mask) > 0, said.mask >= 0.5)
    message = ros.wait_for(lambda: topics["flow/image"].at(stamp), "flow")
    flow = np.frombuffer(message.data, np.float32).reshape(64, 64, 2)
    np.testing.assert_allclose(flow, said.flow, atol=1e-4)
    assert np.abs(flow).max() > 0
    cloud = ros.wait_for(lambda: topics["keypoints"].at(stamp), "keypoints")
    assert [field.name for field in cloud.fields] == ["u", "v", "confidence", "joint"]
    np.testing.assert_allclose(np.frombuffer(cloud.data, np.float32).reshape(-1, 4), said.keypoints, atol=1e-3)
