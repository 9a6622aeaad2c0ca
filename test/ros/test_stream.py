"""Streams of images: faster than the network, with stamps that jump back, in simulated time, above the rate limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from harness import LATCHED, RELIABLE, Process, Ros, header, rgb_image, seconds
from model_factory import write_model
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from diffusion_perception_ros.msg import PerceptionStatus


stamps = itertools.count(3000)


@pytest.fixture(scope="module")
def node(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    model = write_model(tmp_path_factory.mktemp("models") / "busy")
    node = ros.start(
        "perception_node",
        *("-p", f"model:={model}", "-p", "threads:=1", "-p", "use_sim_time:=true", "-p", "diagnostics_period:=0.2"),
        *("-p", "qos_overrides./image.subscription.reliability:=reliable"),
    )
    yield node
    assert node.stop() == 0


@pytest.fixture(scope="module")
def images(ros: Ros, node: Process) -> Iterator:
    """Publisher of the images; the outputs of the node are subscribed to."""
    publisher = ros.node.create_publisher(Image, "/image", 1)
    outputs = [ros.collect(Image, topic) for topic in ("/normals/image", "/segmentation/image_color")]
    ros.wait_for(publisher.get_subscription_count, "the node subscribes")
    ros.wait_for(
        lambda: ros.value("outputs", "Subscribed") == "normals/image, segmentation/image_color",
        "the node sees its subscribers",
    )
    yield publisher
    for output in outputs:
        output.close()


@pytest.fixture(scope="module")
def statuses(ros: Ros, images: object):
    statuses = ros.collect(PerceptionStatus, "/status")
    ros.repeat_until(lambda: images.publish(_picture(2999, 32)), lambda: statuses.messages, "a first status")
    return statuses


def _picture(stamp: float, size: int) -> Image:
    return rgb_image(np.full((size, size, 3), 120, np.uint8), stamp)


def test_old_images_are_dropped_for_the_newest(ros: Ros, images, statuses) -> None:
    before = statuses.messages[-1]
    sent = [float(next(stamps)) for _ in range(60)]
    for stamp in sent:  # 700 x 700: the network and its outputs take much longer than sending
        images.publish(_picture(stamp, 700))
        ros.pause(0.002)
    newest = _picture(sent[-1], 700)
    after = ros.repeat_until(lambda: images.publish(newest), lambda: statuses.at(sent[-1]), "the newest image")
    predicted = [seconds(item.header) for item in statuses.messages if seconds(item.header) in sent]
    assert predicted == sorted(predicted)
    assert len(predicted) < len(sent)
    assert after.frames_predicted - before.frames_predicted == len(predicted)
    dropped = after.frames_dropped - before.frames_dropped
    assert dropped > 0
    # At most the repetition of the newest image is waiting.
    assert 0 <= after.frames_received - before.frames_received - dropped - len(predicted) <= 1


def test_stamps_that_jump_back_are_predicted_too(ros: Ros, images, statuses, node: Process) -> None:
    first, second = float(next(stamps)), float(next(stamps))
    for round_number in (1, 2):
        for stamp in (first, second):
            ros.repeat_until(
                lambda stamp=stamp: images.publish(_picture(stamp, 64)),
                lambda stamp=stamp, n=round_number: _count(statuses, stamp) >= n,
                f"prediction {round_number} for {stamp}",
            )
    assert "image stamps jumped back by 1.000 s" in node.log


def _count(statuses, stamp: float) -> int:
    return sum(seconds(item.header) == stamp for item in statuses.messages)


def test_age_is_measured_on_the_simulated_clock(ros: Ros, images, statuses) -> None:
    clock = ros.node.create_publisher(Clock, "/clock", RELIABLE)
    ros.wait_for(clock.get_subscription_count, "the node listens to /clock")

    def image_aged_half_a_second() -> bool:
        stamp = float(next(stamps))
        clock.publish(Clock(clock=header(stamp + 0.5).stamp))
        ros.pause(0.2)
        images.publish(_picture(stamp, 64))
        ros.pause(0.2)
        status = statuses.at(stamp)
        return status is not None and status.age == 0.5

    ros.wait_for(image_aged_half_a_second, "an age of 0.5 s")


def test_rate_limit(ros: Ros, images, statuses) -> None:
    assert ros.set_parameters(max_rate=0.001)[0].successful
    sent = [float(next(stamps)) for _ in range(20)]
    for stamp in sent:
        images.publish(_picture(stamp, 64))
        ros.pause(0.03)
    assert ros.set_parameters(max_rate=0)[0].successful
    last = float(next(stamps))
    ros.repeat_until(lambda: images.publish(_picture(last, 64)), lambda: statuses.at(last), "predictions again")
    assert sum(statuses.at(stamp) is not None for stamp in sent) == 1
    assert statuses.at(last).frames_skipped >= 15


def test_incompatible_qos_is_reported(ros: Ros, images, statuses) -> None:
    best_effort = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    ros.status("images", "incompatible QoS on /image: RELIABILITY")
    latched = ros.collect(Image, "/normals/image", LATCHED)
    ros.status("outputs", "incompatible QoS on normals/image: DURABILITY")
    ros.node.destroy_publisher(best_effort)
    latched.close()
