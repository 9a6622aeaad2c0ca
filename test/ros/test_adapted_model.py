"""A model adapted to a robot's own classes, in the node."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptation_factory import SIDE, floor_view, write_base_model, write_masks
from harness import LATCHED, RELIABLE, Process, Ros, pixels, rgb_image
from sensor_msgs.msg import Image

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.msg import SegmentationLabels
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapted in two steps: it says little, but it has everything that a longer run would give."""
    folder = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(0)
    base = write_base_model(folder / "toy", OneStepNet(NetworkConfig(classes=32)).eval())
    data = write_masks(folder / "masks", range(7000, 7014), ["mark", "floor"])
    arguments = ["adapt", "--model", str(base), "--data", str(data), "--task", "semantic", "--labels", "own"]
    arguments += ["--images", "10", "--steps", "2", "--set", "run.threads=1", "--even-if-worse", "--precision", "fp32"]
    assert main([*arguments, "-o", str(folder / "model"), "--run", str(folder / "run")]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def node(ros: Ros, model: Path) -> Iterator[Process]:
    node = ros.start("perception_node", "-p", f"model:={model}", "-p", "threads:=1")
    yield node
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_the_node_publishes_the_robots_own_classes(ros: Ros, node: Process, model: Path) -> None:
    labels = ros.collect(SegmentationLabels, "/segmentation/labels", LATCHED)
    (message,) = ros.wait_for(lambda: labels.messages, "labels")
    assert [(label.id, label.name) for label in message.labels] == [(0, "mark"), (1, "floor")]

    masks, depths = ros.collect(Image, "/segmentation/mask"), ros.collect(Image, "/depth_relative/image")
    images = ros.node.create_publisher(Image, "/image", RELIABLE)
    rgb, stamps = floor_view(9300).rgb, itertools.count(1)
    ros.repeat_until(
        lambda: images.publish(rgb_image(rgb, float(next(stamps)))),
        lambda: masks.messages and depths.messages,
        "mask and depth",
    )
    said = Estimator.load(model, threads=1).predict(rgb)
    assert said.semantic is not None
    np.testing.assert_array_equal(pixels(masks.messages[0]), said.semantic)
    assert pixels(depths.messages[0]).shape == (SIDE, SIDE)
    assert said.depth_relative is not None
    np.testing.assert_allclose(pixels(depths.messages[0]), said.depth_relative, atol=1e-5)
