"""One node, one model, two cameras: each has its own topics, scale, parameters, counts and diagnostics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from harness import RELIABLE, Process, Ros, camera_info, image, pixels, rgb_image
from model_factory import free_the_batch, write_model
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from diffusion_perception_ros.msg import PerceptionStatus


WIDTH, HEIGHT = 128, 96
NODE = "/perception_node"
FRONT, LEFT = (51, 51, 51), (102, 102, 102)
"""Colours of what each camera sees; the model's relative depth is the brightness."""
stamps = itertools.count(5000)


class Camera:
    """A camera of the node under test: what it publishes and what comes of it."""

    def __init__(self, ros: Ros, name: str, image_topic: str) -> None:
        self.ros, self.name, self.frame = ros, name, f"{name}_optical"
        self.images = ros.node.create_publisher(Image, image_topic, RELIABLE)
        info_topic = image_topic.rpartition("/")[0] + "/camera_info"
        self.infos = ros.node.create_publisher(CameraInfo, info_topic, RELIABLE)
        self.sparse = ros.node.create_publisher(Image, f"/{name}/sparse_depth", RELIABLE)
        self.status = ros.collect(PerceptionStatus, f"/{name}/status")
        self.relative = ros.collect(Image, f"/{name}/depth_relative/image")
        self.metric = ros.collect(Image, f"/{name}/depth/image")

    def picture(self, color: tuple[int, int, int], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image:
        """Top half in the colour, bottom half twice as bright."""
        rgb = np.empty((size[1], size[0], 3), np.uint8)
        rgb[: size[1] // 2], rgb[size[1] // 2 :] = color, 2 * np.array(color)
        message = rgb_image(rgb, float(next(stamps)))
        message.header.frame_id = self.frame
        return message

    def predict(self, message: Image) -> PerceptionStatus:
        stamp = message.header.stamp.sec
        return self.ros.repeat_until(
            lambda: self.images.publish(message), lambda: self.status.at(stamp), f"status of {self.name} for {stamp}"
        )

    def values(self, part: str) -> dict[str, str]:
        """Of the diagnostics of this camera."""
        return self.ros.values(f"{self.name}/{part}", NODE)

    def is_subscribed(self) -> bool:
        return f"{self.name}/depth/image, {self.name}/depth_relative/image" in self.values("outputs").get(
            "Subscribed", ""
        )


@pytest.fixture(scope="module")
def node(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    model = write_model(tmp_path_factory.mktemp("models") / "shared", depth="brightness")
    node = ros.start(
        "perception_node",
        *("-p", f"model:={model}", "-p", "threads:=1", "-p", "diagnostics_period:=0.2"),
        *("-p", "cameras:=[front, left]", "-p", "left.publish_normals:=false"),
        *("-r", "left/image:=/rig/left_camera/image_raw"),
        *("-p", "qos_overrides./front/image.subscription.reliability:=reliable"),
    )
    yield node
    assert node.stop() == 0


@pytest.fixture(scope="module")
def front(ros: Ros, node: Process) -> Camera:
    camera = Camera(ros, "front", "/front/image")
    ros.wait_for(camera.images.get_subscription_count, "the node subscribes to the front camera")
    ros.wait_for(lambda: camera.values("outputs") and camera.is_subscribed(), "the node sees our subscriptions")
    return camera


@pytest.fixture(scope="module")
def left(ros: Ros, node: Process) -> Camera:
    camera = Camera(ros, "left", "/rig/left_camera/image_raw")
    ros.wait_for(camera.images.get_subscription_count, "the node subscribes to the left camera")
    ros.wait_for(camera.infos.get_subscription_count, "the node subscribes to the sibling camera_info")
    ros.wait_for(lambda: camera.values("outputs") and camera.is_subscribed(), "the node sees our subscriptions")
    return camera


def test_each_camera_gets_its_own_answer(ros: Ros, front: Camera, left: Camera) -> None:
    pictures = {camera: camera.picture(color) for camera, color in ((front, FRONT), (left, LEFT))}
    for camera, picture in pictures.items():
        status = camera.predict(picture)
        assert status.header == picture.header
        depth = ros.wait_for(lambda c=camera, p=picture: c.relative.at(p.header.stamp.sec), "relative depth")
        assert depth.header == picture.header
    assert pixels(front.relative.messages[-1])[10, 10] == pytest.approx(0.2, abs=0.01)
    assert pixels(left.relative.messages[-1])[10, 10] == pytest.approx(0.4, abs=0.01)
    topics = {name for name, _ in ros.node.get_topic_names_and_types()}
    assert {"/front/points", "/left/points", "/front/segmentation/labels", "/left/segmentation/labels"} <= topics
    assert not {"/depth/image", "/image", "/status"} & topics


def test_parameters_of_one_camera(ros: Ros, front: Camera, left: Camera) -> None:
    normals = [ros.collect(Image, f"/{camera.name}/normals/image") for camera in (front, left)]
    ros.wait_for(
        lambda: "front/normals/image" in front.values("outputs").get("Subscribed", ""), "a subscriber of normals"
    )
    assert "left/normals/image" not in left.values("outputs").get("Subscribed", "")
    assert ros.set_parameters(NODE, **{"left.publish_normals": True})[0].successful
    ros.wait_for(
        lambda: "left/normals/image" in left.values("outputs").get("Subscribed", ""), "left offers normals, too"
    )
    for output in normals:
        output.close()
    (result,) = ros.set_parameters(NODE, atomically=True, **{"max_depth": 5.0, "left.min_depth": 6.0})
    assert not result.successful
    assert result.reason == "left: min_depth 6.0 must be below max_depth 5.0"
    (result,) = ros.set_parameters(NODE, **{"front.image_transport": "compressed"})
    assert not result.successful
    (result,) = ros.set_parameters(NODE, **{"front.points_decimation": 65})
    assert "front.points_decimation" in result.reason
    assert ros.set_parameters(NODE, **{"left.min_depth": 0.5})[0].successful
    assert ros.set_parameters(NODE, **{"left.min_depth": None})[0].successful


def test_scale_belongs_to_one_camera(ros: Ros, front: Camera, left: Camera) -> None:
    ros.wait_for(front.sparse.get_subscription_count, "the node subscribes to sparse depth")
    cloud = ros.collect(PointCloud2, "/front/points")
    picture, other = front.picture(FRONT), left.picture(LEFT)
    rows = np.repeat(np.array([[1000], [3000]], np.uint16), HEIGHT // 2, axis=0)
    measured = np.broadcast_to(rows, (HEIGHT, WIDTH))
    depth = image(np.ascontiguousarray(measured).view(np.uint8), "16UC1", WIDTH, 0.0)
    depth.header = picture.header
    info = camera_info(0.0, WIDTH, HEIGHT)
    info.header = picture.header

    def publish() -> None:
        front.infos.publish(info)
        front.sparse.publish(depth)
        ros.pause(0.2)  # topics have no order between them
        front.images.publish(picture)

    stamp = picture.header.stamp.sec
    ros.repeat_until(publish, lambda: front.metric.at(stamp) and cloud.at(stamp), "metric depth of the front camera")
    metres = pixels(front.metric.at(stamp))
    np.testing.assert_allclose((metres[5, 5], metres[-5, 5]), (1.0, 3.0), rtol=0.03)
    assert left.predict(other).scale_source == PerceptionStatus.SCALE_NONE
    assert not left.metric.messages
    ros.status("left/outputs", "nothing on left/depth/image: the depth of model 'shared' is relative")
    assert "Scale" not in left.values("outputs")
    cloud.close()


def test_a_flood_of_one_camera_does_not_starve_the_other(ros: Ros, front: Camera, left: Camera) -> None:
    flood = front.picture(FRONT, (700, 700))
    before = front.predict(front.picture(FRONT))
    for _ in range(5):
        picture = left.picture(LEFT)

        def publish(picture: Image = picture) -> None:
            left.images.publish(picture)

        def flooding(stamp: int = picture.header.stamp.sec) -> Any:
            front.images.publish(flood)
            return left.status.at(stamp)

        ros.repeat_until(publish, flooding, "an answer for the left camera in between")
    after = front.predict(front.picture(FRONT))
    assert after.frames_dropped > before.frames_dropped
    assert left.status.messages[-1].frames_dropped <= 1


def test_what_is_wrong_with_one_camera_is_said_of_it_alone(ros: Ros, front: Camera, left: Camera) -> None:
    broken = image(np.zeros((4, 4), np.uint8), "no_encoding", 4, float(next(stamps)))
    before = front.predict(front.picture(FRONT))
    ros.repeat_until(
        lambda: left.images.publish(broken),
        lambda: "no_encoding" in ros.message("left/images", NODE),
        "the left camera's complaint",
    )
    after = front.predict(front.picture(FRONT))
    assert after.frames_rejected == before.frames_rejected == 0
    assert "no_encoding" not in ros.message("front/images", NODE)
    assert left.predict(left.picture(LEFT)).frames_rejected >= 1


def test_a_camera_that_dies_is_named_and_the_other_goes_on(ros: Ros, front: Camera, left: Camera) -> None:
    ros.node.destroy_publisher(left.images)

    def left_is_missed_and_front_is_not() -> bool:
        front.images.publish(front.picture(FRONT))
        messages = {name: ros.message(f"{name}/images", NODE) for name in ("front", "left")}
        missed = "waiting for images on /rig/left_camera/image_raw (0 publishers)" in messages["left"]
        return missed and "waiting" not in messages["front"]

    ros.wait_for(left_is_missed_and_front_is_not, "diagnostics miss the left camera only")
    assert front.predict(front.picture(FRONT)).frames_predicted > 0
    network = ros.values("network", NODE)
    assert int(network["Frames received"]) > int(left.values("images")["Frames received"])


def test_images_that_are_ready_together_run_together(ros: Ros, tmp_path: Path) -> None:
    """Both statuses of a batch have the batch's time of inference; alone, no two runs take the same nanoseconds."""
    model = free_the_batch(write_model(tmp_path / "together", depth="brightness"))
    node = ros.start("perception_node", *_two_cameras("pair", model))
    cameras = [Camera(ros, name, f"/{name}/image") for name in ("near", "far")]
    _predict_together(ros, cameras, lambda: _common_time(cameras))
    for camera, color in zip(cameras, (FRONT, LEFT), strict=True):
        status = camera.predict(camera.picture(color))
        depth = ros.wait_for(lambda c=camera, s=status: c.relative.at(s.header.stamp.sec), "relative depth")
        assert pixels(depth)[10, 10] == pytest.approx(color[0] / 255, abs=0.01)
    assert node.stop() == 0


def test_a_graph_that_fails_on_a_batch_runs_one_by_one(ros: Ros, tmp_path: Path) -> None:
    node = ros.start("perception_node", *_two_cameras("single", free_the_batch(_fragile_model(tmp_path / "fragile"))))
    cameras = [Camera(ros, name, f"/{name}/image") for name in ("near", "far")]
    _predict_together(ros, cameras, lambda: "predicted one by one" in node.log)
    for camera in cameras:
        assert camera.predict(camera.picture(FRONT)).frames_rejected == 0

    def warning() -> str | None:
        status = ros.diagnostics.get("/single: network")
        return status.message if status is not None and status.level == b"\x01" else None

    ros.wait_for(warning, "diagnostics with the warning")
    assert "images of several cameras are predicted one by one" in (warning() or "")
    assert node.stop() == 0


def _two_cameras(name: str, model: Path) -> list[str]:
    parameters = [f"model:={model}", "threads:=1", "diagnostics_period:=0.2", "cameras:=[near, far]"]
    return ["-r", f"__node:={name}", *(word for value in parameters for word in ("-p", value))]


def _fragile_model(folder: Path) -> Path:
    """Its depth is reshaped to that of one picture, which fails for two."""
    write_model(folder, ["depth"], depth="brightness", size={"rule": "fixed", "width": WIDTH, "height": HEIGHT})
    model = onnx.load(folder / "model.onnx")
    (last,) = [node for node in model.graph.node if node.output[0] == "depth"]
    last.op_type = "Reshape"
    last.input.append("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, HEIGHT, WIDTH]), "shape"))
    onnx.save(model, folder / "model.onnx")
    return folder


def _predict_together(ros: Ros, cameras: list[Camera], condition: Callable[[], Any]) -> None:
    """Publishes large pictures of all cameras again and again: while one is in work, both have one waiting."""

    def publish_and_check() -> Any:
        for camera in cameras:
            camera.images.publish(camera.picture(FRONT, (600, 450)))
        return condition()

    for camera in cameras:
        ros.wait_for(camera.images.get_subscription_count, f"the node subscribes to {camera.name}")
    ros.wait_for(publish_and_check, "two images together")


def _common_time(cameras: list[Camera]) -> set[float]:
    times = [{message.inference_time for message in camera.status.messages} for camera in cameras]
    return set.intersection(*times) - {0.0}


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ("[front, front]", "every camera needs a name of its own, front is there twice"),
        ("['']", "'' cannot be a camera's namespace"),
        ("[front, 'rear view']", "'rear view' cannot be a camera's namespace"),
        ("['2nd']", "'2nd' cannot be a camera's namespace"),
        ("[front/camera]", "'front/camera' cannot be a camera's namespace"),
        ("[1, 2]", "parameter cameras"),
    ],
)
def test_names_that_cannot_be_used(ros: Ros, cameras: str, words: str) -> None:
    node = ros.start("perception_node", "-r", "__node:=wrong", "-p", f"cameras:={cameras}")
    assert node.wait() == 2
    assert words in node.log
    assert "Traceback" not in node.log
