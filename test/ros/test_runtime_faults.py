"""What must never end or silence the node: hanging networks, bad images in any order, neighbours, wrong parameters."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from harness import RELIABLE, Process, Ros, camera_info, compressed_image, image, rgb_image
from model_factory import edit_card, write_model
from onnx import TensorProto, helper
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from diffusion_perception_ros.inference.card import sha256_of
from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.parameters import PerceptionParameters


WIDTH, HEIGHT = 64, 48
NODE = "/perception_node"
GREY, WHITE = 100, 255
stamps = itertools.count(7000)


def picture(value: int = GREY, stamp: float | None = None) -> Image:
    """An image of one grey value."""
    return rgb_image(np.full((HEIGHT, WIDTH, 3), value, np.uint8), float(next(stamps)) if stamp is None else stamp)


def hanging_model(folder: Path, brightness: float = 0.99) -> Path:
    """A model of relative depth whose graph counts for hours inside the runtime when the image is that bright."""
    write_model(folder, ["depth"], depth="brightness")
    model = onnx.load(folder / "model.onnx")
    (last,) = [node for node in model.graph.node if node.output[0] == "depth"]
    last.output[0] = "depth_before"
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["sum", "sum"], ["doubled"]),
            helper.make_node("Sub", ["doubled", "sum"], ["next_sum"]),
        ],
        "counting",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_sum", TensorProto.FLOAT, []),
        ],
    )
    constants = {
        "bright": helper.make_tensor("bright", TensorProto.FLOAT, [], [brightness]),
        "forever": helper.make_tensor("forever", TensorProto.INT64, [], [1 << 50]),
        "never": helper.make_tensor("never", TensorProto.INT64, [], [0]),
        "yes": helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    }
    model.graph.initializer.extend(constants.values())
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["depth_before"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "bright"], ["is_white"]),
            helper.make_node("Where", ["is_white", "forever", "never"], ["turns"]),
            helper.make_node("Loop", ["turns", "yes", "mean"], ["counted"], body=body),
            helper.make_node("Sub", ["counted", "mean"], ["nothing"]),
            helper.make_node("Add", ["depth_before", "nothing"], ["depth"]),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    edit_card(folder, files={"model.onnx": sha256_of(folder / "model.onnx")})
    return folder


class Camera:
    """Publishes images to the node under test."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.images = ros.node.create_publisher(Image, "/image", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
        self.status = ros.collect(PerceptionStatus, "/status")
        self.depths = ros.collect(Image, "/depth_relative/image")

    def wait(self) -> None:
        """Until the node sees who listens."""
        self.ros.wait_for(
            lambda: "depth_relative/image" in self.ros.value("outputs", "Subscribed"), "the node sees its subscribers"
        )

    def predict(self, message: Image | None = None) -> PerceptionStatus:
        message = message or picture()
        stamp = message.header.stamp.sec
        return self.ros.repeat_until(
            lambda: self.images.publish(message), lambda: self.status.at(stamp), f"a prediction for {stamp}"
        )


@pytest.fixture(scope="module")
def camera(ros: Ros) -> Camera:
    return Camera(ros)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hanging_model(tmp_path_factory.mktemp("models") / "hanging")


def start(ros: Ros, model: Path, *arguments: str) -> Process:
    return ros.start(
        "perception_node",
        *("-p", f"model:={model}", "-p", "threads:=1", "-p", "diagnostics_period:=0.2", *arguments),
    )


@pytest.fixture
def node(ros: Ros, model: Path, camera: Camera) -> Iterator[Process]:
    ros.forget_diagnostics()
    node = start(ros, model)
    ros.wait_for_state("active")
    camera.wait()
    yield node
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_a_network_that_hangs_is_named_left_and_loaded_again(ros: Ros, model: Path, camera: Camera) -> None:
    ros.forget_diagnostics()
    node = start(ros, model, "-p", "watchdog_seconds:=1.0")
    ros.wait_for_state("active")
    camera.wait()
    camera.predict()
    white = picture(WHITE)
    ros.repeat_until(
        lambda: camera.images.publish(white),
        lambda: "has not answered" in ros.message("network"),
        "diagnostics name the hanging network",
    )
    assert ros.diagnostics[f"{NODE}: network"].level == b"\x02"
    ros.wait_for_state("active")
    camera.wait()
    camera.predict()
    ros.status("network", "OK")
    ros.repeat_until(lambda: camera.images.publish(picture(WHITE)), lambda: ros.state() != "active", "it hangs again")
    assert node.stop(signal.SIGTERM) == 0
    assert "Traceback" not in node.log


def test_a_hanging_network_holds_up_neither_deactivation_nor_the_end(ros: Ros, model: Path, camera: Camera) -> None:
    ros.forget_diagnostics()
    node = start(ros, model, "-p", "watchdog_seconds:=3600.0")
    ros.wait_for_state("active")
    camera.wait()
    camera.predict()
    before = int(ros.value("images", "Frames received"))
    ros.repeat_until(
        lambda: camera.images.publish(picture(WHITE)),
        lambda: int(ros.value("images", "Frames received") or 0) > before,
        "the white image has come",
    )
    for transition, label in (("deactivate", "inactive"), ("activate", "active"), ("deactivate", "inactive")):
        assert ros.change_state(transition)
        assert ros.state() == label
    assert ros.change_state("cleanup")
    assert node.stop() == 0


def test_a_network_in_a_process_of_its_own_is_killed_and_started_again(ros: Ros, model: Path, camera: Camera) -> None:
    """The node stays active: only the image that it hung on, or died of, is lost."""
    ros.forget_diagnostics()
    node = start(ros, model, "-p", "watchdog_seconds:=2.0", "-p", "isolation:=process")
    ros.wait_for_state("active")
    camera.wait()
    camera.predict()
    ros.repeat_until(
        lambda: camera.images.publish(picture(WHITE)),
        lambda: "its process was killed" in ros.message("images"),
        "the hanging process is killed",
    )
    assert ros.state() == "active"
    camera.predict()
    (child,) = psutil.Process(node.pid).children()
    child.kill()
    ros.repeat_until(
        lambda: camera.images.publish(picture()),
        lambda: "process ended with signal SIGKILL" in ros.message("images"),
        "the dead process is noticed",
    )
    camera.predict()
    children = psutil.Process(node.pid).children()
    ros.repeat_until(lambda: camera.images.publish(picture(WHITE)), lambda: True, "it hangs again")
    assert node.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not psutil.wait_procs(children, timeout=60)[1]


def test_services_and_diagnostics_answer_while_a_model_is_loaded(ros: Ros, model: Path, tmp_path: Path) -> None:
    """Its warm-up, on a grey image, never ends."""
    ros.forget_diagnostics()
    endless = hanging_model(tmp_path / "endless", brightness=0.3)
    node = start(ros, endless, "-p", "load_timeout:=15.0")
    ros.status("network", "loading model")
    assert ros.call(SetBool, f"{NODE}/enable", SetBool.Request(data=True)).success
    assert ros.set_parameters(max_rate=5.0)[0].successful
    assert "unconfigured" in ros.set_parameters(model="other")[0].reason
    assert ros.status("network", "has taken longer than 15 s (load_timeout)").level == b"\x02"
    ros.wait_for_state("unconfigured")
    assert ros.set_parameters(model=str(model))[0].successful
    assert ros.change_state("configure")
    assert node.stop() == 0
    node = start(ros, endless)
    ros.status("network", "loading model")
    assert not ros.change_state("cleanup")
    assert "is refused" in node.log
    assert node.stop(signal.SIGTERM) == 0


def test_a_network_that_answers_without_numbers_is_named(ros: Ros, camera: Camera, tmp_path: Path) -> None:
    ros.forget_diagnostics()
    node = start(ros, write_model(tmp_path / "holes", ["depth"], depth="holes"))
    ros.wait_for_state("active")
    camera.wait()
    camera.predict(picture(0))
    assert ros.status("network", "not a number anywhere").level == b"\x02"
    camera.predict()
    ros.status("network", "OK")
    assert node.stop() == 0


BAD = {
    "encoding": lambda: image(np.zeros((4, 4), np.uint8), "no_encoding", 4, float(next(stamps))),
    "long encoding": lambda: image(np.zeros((4, 4), np.uint8), "x" * 100_000, 4, float(next(stamps))),
    "huge": lambda: image(np.zeros((1, 4), np.uint8), "mono8", 1 << 31, float(next(stamps))),
    "strip": lambda: image(np.zeros((1, 100_000), np.uint8), "mono8", 100_000, float(next(stamps))),
    "empty": lambda: image(np.zeros((0, 0), np.uint8), "rgb8", 0, float(next(stamps))),
    "short": lambda: image(np.zeros((2, 12), np.uint8), "rgb8", 400, float(next(stamps))),
}


def test_bad_images_in_every_order_of_two(ros: Ros, camera: Camera, node: Process) -> None:
    """And an uncalibrated camera_info, whose problem is a warning, before errors."""
    info = camera_info(0.0, WIDTH, HEIGHT, focal=0.0)
    camera.infos.publish(info)
    camera.predict()
    for first, second in itertools.product(BAD, BAD):
        for name in (first, second):
            camera.images.publish(BAD[name]())
        camera.infos.publish(info)
    status = camera.predict()
    assert status.frames_rejected > 0
    assert len(node.log) < 60_000
    assert psutil.Process(node.pid).num_threads() < 100


def test_parameters_of_wrong_types_are_refused(ros: Ros, node: Process) -> None:
    for name in PerceptionParameters.model_fields:
        for value in ("text", -7, 1e300, float("nan"), [1.5, 2.5], ["a"], [True], [b"x"], [9] * 6):
            for result in ros.set_parameters(**{name: value}):
                assert result.successful or result.reason, name
    assert ros.state() == "active"


@pytest.mark.parametrize("argument", ["sparse_depth_extrinsics:=5", "cameras:=7", "max_rate:=[1.0]", "model:=3"])
def test_wrong_types_at_the_start_are_a_sentence(ros: Ros, argument: str) -> None:
    node = ros.start("perception_node", "-r", "__node:=wrong", "-p", argument)
    assert node.wait() == 2
    assert argument.partition(":")[0] in node.log
    assert "Traceback" not in node.log


def test_two_publishers_on_one_topic_do_not_make_every_image_a_new_start(
    ros: Ros, camera: Camera, node: Process
) -> None:
    second = ros.node.create_publisher(Image, "/image", RELIABLE)
    base = float(next(stamps))
    ros.wait_for(second.get_subscription_count, "the node subscribes to the second publisher")
    for number in range(20):
        camera.images.publish(picture(stamp=base + (number + 1) / 32))
        second.publish(picture(stamp=base + number / 32))
        ros.pause(0.02)
    assert "several nodes publish them" in ros.status("images", "out of order").message
    assert "jumped back" not in node.log
    ros.node.destroy_publisher(second)
    for _ in range(200):
        next(stamps)
    camera.predict()


def test_camera_info_that_comes_before_a_jump_back_is_kept(ros: Ros, camera: Camera, node: Process) -> None:
    early = 100.0
    camera.predict()
    camera.infos.publish(camera_info(early, WIDTH, HEIGHT))
    ros.pause(0.3)  # two topics have no order between them
    camera.predict(picture(stamp=early))
    ros.wait_for(lambda: "jumped back" in node.log, "the jump is noticed")
    assert "no camera_info has come" not in ros.message("outputs")


def test_another_node_of_the_same_name_is_named(ros: Ros, model: Path, node: Process) -> None:
    twin = start(ros, model, "-p", "autostart:=false")
    ros.status("network", f"another node is called {NODE}")
    assert twin.stop() == 0


def test_a_decompression_bomb_is_refused_from_its_header(ros: Ros, model: Path) -> None:
    ros.forget_diagnostics("/packed")
    node = start(ros, model, "-r", "__node:=packed", "-r", "__ns:=/packed", "-p", "image_transport:=compressed")
    depths = ros.collect(Image, "/packed/depth_relative/image")
    name = "/packed/packed"
    ros.wait_for_state("active", name)
    ros.wait_for(lambda: "depth_relative" in ros.value("outputs", "Subscribed", name), "the node sees its subscriber")
    publisher = ros.node.create_publisher(CompressedImage, "/packed/image/compressed", RELIABLE)
    memory = psutil.Process(node.pid).memory_info().rss
    for data in (_jpeg_header(8000, 8000), _jpeg_header(4000, 4000)):
        message = compressed_image(data, "jpeg", float(next(stamps)))
        ros.repeat_until(
            lambda m=message: publisher.publish(m),
            lambda: ros.value("images", "Frames rejected", name) not in ("", "0"),
            "the bomb is refused",
        )
    assert psutil.Process(node.pid).memory_info().rss < memory + 30e6
    depths.close()
    assert node.stop() == 0


def _jpeg_header(width: int, height: int) -> bytes:
    """A JPEG of a few hundred bytes that promises a large image."""
    import cv2

    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)
