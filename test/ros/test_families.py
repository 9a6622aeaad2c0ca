"""What the published families give, through the right topics with the right meaning: one node, model after model.

The models are small graphs of the same build: three graphs with a sampler, drawings, prompts, two pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PointStamped
from harness import RELIABLE, Process, Ros, camera_info, header, image, pixels, rgb_image
from model_factory import edit_card
from sampled_model_factory import write_prompted_model, write_sampled_model
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from diffusion_perception_ros.evaluation.recording import output_topics, read_recording
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.msg import PerceptionStatus


WIDTH, HEIGHT = 128, 96
NODE = "/perception_node"
stamps = itertools.count(7000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    terms = {"spdx": "LicenseRef-OpenRAIL", "non_commercial": True, "url": "https://example.org/terms"}
    disparity = write_sampled_model(folder / "disparity", ["depth", "normals"], card={"licence_terms": terms})
    outputs = yaml.safe_load((disparity / "model.yaml").read_text())["outputs"]
    outputs[0]["quantity"] = "relative_disparity"
    edit_card(disparity, outputs=outputs)
    write_prompted_model(folder / "drawing", ["alpha", "albedo", "shading", "keypoints", "instances"])
    write_prompted_model(folder / "flow", ["flow"], prompts=["second_image"])
    write_prompted_model(folder / "points", ["mask"], prompts=["points"])
    amodal = write_prompted_model(folder / "amodal", ["mask"], prompts=["prompt_mask"])
    edit_card(amodal, outputs=[{"task": "mask", "tensor": "hint", "range": [0.0, 1.0]}])
    return folder


class Camera:
    """Publishes images and gets what comes of them."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.images = ros.node.create_publisher(Image, "/image", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
        self.status = ros.collect(PerceptionStatus, "/status")

    def use(self, model: str, **topics: Any) -> dict[str, Any]:
        """Switches the node to a model; subscribes to topics of these types and waits until the node has noticed."""
        states = {"active": ("deactivate", "cleanup"), "inactive": ("cleanup",), "unconfigured": ()}
        for transition in states[self.ros.state(NODE)]:
            assert self.ros.change_state(transition, NODE)
        assert self.ros.set_parameters(NODE, model=model)[0].successful
        for transition in ("configure", "activate"):
            assert self.ros.change_state(transition, NODE)
        outputs = {name: self.ros.collect(kind, f"/{name}") for name, kind in topics.items()}
        self.wait_until_subscribed(topics)
        return outputs

    def wait_until_subscribed(self, topics: Collection[str]) -> None:
        """Until the node knows exactly these subscribers."""

        def known() -> set[str]:
            return {topic for topic in self.values("outputs").get("Subscribed", "?").split(", ") if topic}

        self.ros.wait_for(lambda: known() == set(topics), f"the node sees subscribers of {topics}")

    def send(self, rgb: np.ndarray) -> int:
        """Publishes an image until it is predicted; returns its stamp."""
        message = rgb_image(rgb, float(next(stamps)))
        stamp = message.header.stamp.sec
        self.ros.repeat_until(lambda: self.images.publish(message), lambda: self.status.at(stamp), f"status {stamp}")
        return stamp

    def values(self, part: str) -> dict[str, str]:
        """Of the diagnostics."""
        return self.ros.values(part, NODE)


@pytest.fixture(scope="module")
def node(ros: Ros, models: Path) -> Iterator[Process]:
    node = ros.start(
        "perception_node",
        *("-p", "model:=disparity", "-p", "threads:=1", "-p", "diagnostics_period:=0.2"),
        DIFFUSION_PERCEPTION_MODELS=str(models),
    )
    yield node
    assert node.stop() == 0
    assert "Traceback" not in node.log


@pytest.fixture(scope="module")
def camera(ros: Ros, node: Process) -> Camera:
    camera = Camera(ros)
    ros.wait_for(camera.images.get_subscription_count, "the node subscribes to the image")
    return camera


def filled(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), (red, green, blue), np.uint8)


def get(ros: Ros, outputs: dict[str, Any], topic: str, stamp: int) -> np.ndarray:
    return pixels(ros.wait_for(lambda: outputs[topic].at(stamp), topic))


def close(outputs: dict[str, Any]) -> None:
    for output in outputs.values():
        output.close()


def test_relative_disparity_never_becomes_metres(ros: Ros, camera: Camera) -> None:
    topics = {"depth/image": Image, "depth_relative/image": Image, "depth/image_color": Image, "points": PointCloud2}
    outputs = camera.use("disparity", **topics)
    camera.infos.publish(camera_info(0.0, WIDTH, HEIGHT))
    rgb = filled(51, 51, 51)
    rgb[HEIGHT // 2 :] = 153  # nearer: disparity is larger
    stamp = camera.send(rgb)
    disparity = get(ros, outputs, "depth_relative/image", stamp)
    assert disparity[80, 64] - disparity[10, 64] == pytest.approx(0.4, abs=0.1)
    colors = get(ros, outputs, "depth/image_color", stamp).astype(int).sum(axis=2)
    assert colors[80, 64] > colors[10, 64]  # near is bright, whichever way the quantity grows
    ros.status("outputs", "nothing on depth/image, points: the depth of model 'disparity' is relative")
    assert not outputs["depth/image"].messages
    assert not outputs["points"].messages
    assert camera.status.at(stamp).scale_source == PerceptionStatus.SCALE_NONE
    close(outputs)


def test_a_licence_that_forbids_commerce_is_announced_once_per_start(node: Process, camera: Camera) -> None:
    notices = [line for line in node.log.splitlines() if "non-commercial" in line]
    assert len(notices) == node.log.count("model 'disparity' on")
    assert "disparity" in notices[0]
    assert "LicenseRef-OpenRAIL" in notices[0]


def test_sampling_follows_the_parameters(ros: Ros, camera: Camera, models: Path) -> None:
    topics = ("depth_relative/image", "depth/confidence", "normals/confidence")
    outputs = camera.use("disparity", **dict.fromkeys(topics, Image))
    stamp = camera.send(filled(100, 100, 100))
    one = get(ros, outputs, "depth_relative/image", stamp)
    assert camera.values("network")["Steps"] == "2"
    assert ros.set_parameters(NODE, atomically=True, steps=4, ensemble_size=3)[0].successful
    stamp = camera.send(filled(100, 100, 100))
    several = get(ros, outputs, "depth_relative/image", stamp)
    assert np.abs(several - one).max() > 1e-3
    assert not outputs["depth/confidence"].at(stamp - 1)  # one member has no spread
    said = Estimator.load(models / "disparity", "cpu").predict(filled(100, 100, 100), steps=4, ensemble_size=3)
    np.testing.assert_allclose(get(ros, outputs, "depth/confidence", stamp), said.confidence, atol=1e-4)
    np.testing.assert_allclose(get(ros, outputs, "normals/confidence", stamp), said.normals_confidence, atol=1e-4)
    assert 0 <= said.confidence.min() < said.confidence.max() <= 1
    ros.wait_for(lambda: camera.values("network")["Steps"] == "4", "diagnostics know the steps")
    assert camera.values("network")["Ensemble size"] == "3"
    again = get(ros, outputs, "depth_relative/image", camera.send(filled(100, 100, 100)))
    np.testing.assert_array_equal(again, several)  # the noise is fixed
    assert ros.set_parameters(NODE, noise_mode="random")[0].successful
    other = get(ros, outputs, "depth_relative/image", camera.send(filled(100, 100, 100)))
    assert np.abs(other - several).max() > 1e-3
    for values, words in (
        ({"steps": 1001}, "steps"),
        ({"ensemble_size": -1}, "ensemble_size"),
        ({"noise_mode": "pink"}, "noise_mode"),
        ({"tile": "12x12"}, "SIZE/OVERLAP"),
    ):
        (result,) = ros.set_parameters(NODE, **values)
        assert not result.successful
        assert words in result.reason
    assert ros.set_parameters(NODE, atomically=True, steps=0, ensemble_size=0, noise_mode="card")[0].successful
    close(outputs)


def test_what_is_recorded_is_read_back(ros: Ros, camera: Camera, models: Path, tmp_path: Path) -> None:
    card, bag = read_card(models / "drawing"), tmp_path / "bag"
    outputs = camera.use("drawing")
    topics = [*output_topics(card), "status"]
    recorder = ros.start("recorder", "-p", f"output:={bag}", "-p", f"topics:=[{', '.join(topics)}]")
    camera.wait_until_subscribed(output_topics(card))
    rgb = filled(51, 102, 204)
    cv2.circle(rgb, (80, 30), 4, (255, 0, 0), cv2.FILLED)
    stamp = camera.send(rgb)
    ros.pause(0.5)
    assert recorder.stop() == 0
    damage: list[str] = []
    (frame,) = [item for item in read_recording(bag, "/", card, damage) if item.stamp == stamp * 10**9]
    assert not damage
    np.testing.assert_allclose(frame.prediction.alpha[60, 20], 0.2, atol=0.01)
    np.testing.assert_allclose(frame.prediction.albedo[60, 20], (0.2, 0.4, 0.8), atol=0.01)
    np.testing.assert_allclose(frame.prediction.keypoints[:, :2], [(80, 30)], atol=1)
    assert frame.status.model == "drawing"
    close(outputs)


def test_drawings_and_pictures(ros: Ros, camera: Camera) -> None:
    images = ("alpha/image", "albedo/image", "shading/image", "keypoints/image_color", "instances/image")
    outputs = camera.use("drawing", keypoints=PointCloud2, **dict.fromkeys(images, Image))
    rgb = filled(0, 0, 0)
    cv2.rectangle(rgb, (10, 10), (50, 60), (51, 102, 204), cv2.FILLED)
    for centre in ((80, 30), (100, 70)):
        cv2.circle(rgb, centre, 4, (255, 0, 0), cv2.FILLED)
    stamp = camera.send(rgb)
    alpha = ros.wait_for(lambda: outputs["alpha/image"].at(stamp), "alpha")
    assert alpha.encoding == "32FC1"
    assert pixels(alpha)[30, 30] == pytest.approx(0.2, abs=0.01)
    np.testing.assert_allclose(get(ros, outputs, "albedo/image", stamp)[30, 30], (51, 102, 204), atol=2)
    np.testing.assert_allclose(get(ros, outputs, "shading/image", stamp)[30, 30], (26, 51, 102), atol=2)
    assert get(ros, outputs, "instances/image", stamp)[30, 30] > 0
    cloud = ros.wait_for(lambda: outputs["keypoints"].at(stamp), "keypoints")
    assert [field.name for field in cloud.fields] == ["u", "v", "confidence"]
    found = np.frombuffer(cloud.data, np.float32).reshape(cloud.width, 3)
    np.testing.assert_allclose(sorted(found[:, :2].tolist()), [(80, 30), (100, 70)], atol=1)
    assert (found[:, 2] > 0).all()
    drawn = get(ros, outputs, "keypoints/image_color", stamp)
    assert tuple(drawn[30, 80]) != tuple(rgb[30, 80])
    np.testing.assert_array_equal(drawn[90, 10], rgb[90, 10])
    (result,) = ros.set_parameters(NODE, steps=4)
    assert "predicts in one step" in result.reason
    (result,) = ros.set_parameters(NODE, noise_mode="carry")
    assert "takes no noise" in result.reason
    close(outputs)


def test_flow_is_between_consecutive_images(ros: Ros, camera: Camera) -> None:
    outputs = camera.use("flow", **{"flow/image": Image, "flow/image_color": Image})
    first = camera.send(filled(51, 51, 51))
    stamp = camera.send(filled(102, 102, 102))
    message = ros.wait_for(lambda: outputs["flow/image"].at(stamp), "flow")
    assert message.encoding == "32FC2"
    flow = np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH, 2)
    np.testing.assert_allclose(flow[..., 0], -2.0, atol=0.02)  # (0.2 - 0.4) * 10 pixels
    np.testing.assert_allclose(flow[..., 1], 0.0, atol=1e-6)
    assert get(ros, outputs, "flow/image_color", stamp)[5, 5].tolist() != [255, 255, 255]
    assert not outputs["flow/image"].at(first)
    again = camera.send(filled(102, 102, 102))
    flow = np.frombuffer(ros.wait_for(lambda: outputs["flow/image"].at(again), "flow").data, np.float32)
    np.testing.assert_allclose(flow, 0.0, atol=1e-3)
    close(outputs)


def test_points_ask_for_a_mask(ros: Ros, camera: Camera) -> None:
    """The mask of the test model is full if the first point lies in the right half."""
    outputs = camera.use("points", **{"mask/image": Image})
    prompts = ros.node.create_publisher(PointStamped, "/prompt", RELIABLE)
    ros.wait_for(prompts.get_subscription_count, "the node subscribes to prompts")
    stamp = camera.send(filled(0, 0, 0))
    ros.status("outputs", "no mask: nothing has come on /prompt (1 publisher)")
    assert not outputs["mask/image"].at(stamp)

    def point(u: float, v: float, frame_id: str = "camera") -> None:
        message = PointStamped(header=header(0.0, frame_id))
        message.point.x, message.point.y = u, v
        prompts.publish(message)
        ros.pause(0.3)  # topics have no order between them

    def mask() -> np.ndarray:
        stamp = camera.send(filled(0, 0, 0))
        return get(ros, outputs, "mask/image", stamp)

    assert ros.set_parameters(NODE, prompt_points=1)[0].successful
    point(100.0, 48.0)
    values = mask()
    assert values.dtype == np.uint8
    assert (values == 255).all()
    assert (mask() == 255).all()  # until another point comes
    point(20.0, 48.0, "")
    assert (mask() == 0).all()
    assert ros.set_parameters(NODE, prompt_points=0)[0].successful
    assert (mask() == 255).all()  # both points hold, the model looks at the first
    assert ros.set_parameters(NODE, prompt_points=1)[0].successful
    for u, frame_id, words in (
        (500.0, "camera", "the prompt (500, 48) lies outside of the image of 128x96 pixels"),
        (float("nan"), "camera", "the prompt (nan, 48) lies outside"),
        (20.0, "elsewhere", "prompt frame 'elsewhere' does not match image frame 'camera'"),
    ):
        point(u, 48.0, frame_id)
        stamp = camera.send(filled(0, 0, 0))
        ros.status("outputs", words)
        assert not outputs["mask/image"].at(stamp)
    ros.node.destroy_publisher(prompts)
    close(outputs)


def test_a_mask_asks_for_the_whole_object(ros: Ros, camera: Camera) -> None:
    outputs = camera.use("amodal", **{"mask/image": Image})
    prompts = ros.node.create_publisher(Image, "/prompt_mask", RELIABLE)
    ros.wait_for(prompts.get_subscription_count, "the node subscribes to prompts")
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)
    seen[20:60, 30:90] = 255
    prompts.publish(image(seen, "mono8", WIDTH, 0.0))
    ros.pause(0.3)
    stamp = camera.send(filled(0, 0, 0))
    assert np.mean(get(ros, outputs, "mask/image", stamp) == seen) > 0.98
    prompts.publish(image(seen[:50], "mono8", WIDTH, 0.0))
    ros.pause(0.3)
    camera.send(filled(0, 0, 0))
    ros.status("outputs", "prompt_mask has 128x50 pixels, the image has 128x96")
    ros.node.destroy_publisher(prompts)
    close(outputs)
