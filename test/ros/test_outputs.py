"""What the node publishes: contents, laziness, camera_info, clouds, namespaces; with a metric and a relative model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import LATCHED, RELIABLE, Process, Ros, camera_info, pixels, rgb_image, seconds
from model_factory import LABELS, write_model
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from diffusion_perception_ros.msg import PerceptionStatus, SegmentationLabels


WIDTH, HEIGHT = 128, 96
FOCAL = 100.0
NODE = "/robot/perception_node"
TOPICS = {
    "depth/image": ("32FC1", 1),
    "depth/confidence": ("32FC1", 1),
    "depth/image_color": ("rgb8", 3),
    "normals/image": ("32FC3", 3),
    "normals/image_color": ("rgb8", 3),
    "segmentation/mask": ("mono8", 1),
    "segmentation/confidence": ("mono8", 1),
    "segmentation/image_color": ("rgb8", 3),
    "instances/image": ("mono16", 1),
}
stamps = itertools.count(2000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    metric = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 10.0]}
    write_model(folder / "metric", depth="brightness", depth_card=metric)
    write_model(folder / "relative", ["depth"], depth="brightness")
    return folder


class Camera:
    """A camera with calibration, in a namespace that is not the node's, and the status of what comes of its images."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.images = ros.node.create_publisher(Image, "/cam/front/image_raw", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, "/cam/front/camera_info", RELIABLE)
        self.status = ros.collect(PerceptionStatus, "/robot/status")

    def send(self, rgb: np.ndarray, info: CameraInfo | None = None) -> float:
        """Publishes an image until its status comes; returns its stamp."""
        stamp = float(next(stamps))

        def publish() -> None:
            if info is not None:
                info.header.stamp = message.header.stamp
                self.infos.publish(info)
                # Two topics have no order between them; the image must find its camera_info.
                self.ros.pause(0.2)
            self.images.publish(message)

        message = rgb_image(rgb, stamp)
        self.ros.repeat_until(publish, lambda: self.status.at(stamp), f"status for {stamp}")
        return stamp

    def wait_until_subscribed(self, *topics: str) -> None:
        """Until the node knows exactly these subscribers."""
        self.ros.wait_for(lambda: set(self._subscribed()) == set(topics), f"the node sees subscribers of {topics}")

    def _subscribed(self) -> list[str]:
        values = self.ros.values("outputs", NODE)
        return [topic for topic in values.get("Subscribed", "?").split(", ") if topic]


@pytest.fixture(scope="module")
def node(ros: Ros, models: Path) -> Process:
    return ros.start(
        "perception_node",
        *("-r", "__ns:=/robot", "-r", "image:=/cam/front/image_raw", "-p", "model:=metric", "-p", "threads:=1"),
        *("-p", "diagnostics_period:=0.2", "-p", "camera_info_timeout:=0.1"),
        DIFFUSION_PERCEPTION_MODELS=str(models),
        ROS_PYTHON_CHECK_FIELDS="1",
        PYTHONPROFILEIMPORTTIME="1",
    )


@pytest.fixture(scope="module")
def camera(ros: Ros, node: Process) -> Iterator[Camera]:
    camera = Camera(ros)
    ros.wait_for(camera.images.get_subscription_count, "the node subscribes to the image")
    ros.wait_for(camera.infos.get_subscription_count, "the node subscribes to the sibling camera_info")
    yield camera
    assert node.stop() == 0


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Left half ground at 0.2 (dark), right half "box" red: brightness 1/3."""
    rgb = np.full((HEIGHT, WIDTH, 3), 51, np.uint8)
    rgb[:, WIDTH // 2 :] = (255, 0, 0)
    return rgb


def test_only_what_is_subscribed_is_computed(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    before = None
    for topic, tasks in (
        ("depth/image", ["depth"]),
        ("normals/image_color", ["normals"]),
        ("segmentation/mask", ["semantic"]),
        ("instances/image", ["instances"]),
    ):
        output = ros.collect(Image, f"/robot/{topic}")
        camera.wait_until_subscribed(topic)
        status = camera.status.at(camera.send(picture))
        assert status.tasks == tasks
        assert (status.model, status.backend) == ("metric", "onnxruntime-cpu")
        ros.wait_for(lambda output=output: output.messages, topic)
        output.close()
        before = status
    camera.wait_until_subscribed()
    for _ in range(3):
        camera.images.publish(rgb_image(picture, next(stamps)))
        ros.pause(0.1)
    mask = ros.collect(Image, "/robot/segmentation/mask")
    camera.wait_until_subscribed("segmentation/mask")
    after = camera.status.at(camera.send(picture))
    assert after.frames_predicted == before.frames_predicted + 1
    assert after.frames_skipped >= before.frames_skipped + 1
    mask.close()


def test_every_output(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    outputs = {topic: ros.collect(Image, f"/robot/{topic}") for topic in TOPICS}
    infos = ros.collect(CameraInfo, "/robot/depth/camera_info")
    clouds = ros.collect(PointCloud2, "/robot/points")
    camera.wait_until_subscribed(*TOPICS, "depth/camera_info", "points")
    # Calibrated for twice the size and a region of interest: the outputs' camera_info must be for this image.
    info = camera_info(0, WIDTH * 2 + 20, HEIGHT * 2 + 10, FOCAL * 2)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 20, 10, WIDTH * 2, HEIGHT * 2
    stamp = camera.send(picture, info)
    for topic, (encoding, _) in TOPICS.items():
        message = ros.wait_for(lambda topic=topic: outputs[topic].at(stamp), topic)
        assert (message.encoding, message.width, message.height) == (encoding, WIDTH, HEIGHT)
        assert (message.header.frame_id, seconds(message.header)) == ("camera", stamp)
    arrays = {topic: pixels(collected.at(stamp)) for topic, collected in outputs.items()}
    left, right = (HEIGHT // 2, WIDTH // 4), (HEIGHT // 2, WIDTH * 3 // 4)
    assert arrays["depth/image"][left] == pytest.approx(0.2, abs=0.01)
    assert arrays["depth/image"][right] == pytest.approx(1 / 3, abs=0.01)
    assert arrays["depth/confidence"][left] == pytest.approx(0.2, abs=0.01)
    assert np.allclose(arrays["normals/image"], (0, 0, -1), atol=1e-3)
    assert arrays["segmentation/mask"][left] == 0
    assert arrays["segmentation/mask"][right] == 1
    assert tuple(arrays["segmentation/image_color"][right]) == LABELS[1].color
    assert arrays["instances/image"][left] == 0
    assert arrays["instances/image"][right] > 0
    scaled = ros.wait_for(lambda: infos.at(stamp), "depth/camera_info")
    assert (scaled.width, scaled.height, scaled.roi.width) == (WIDTH, HEIGHT, 0)
    cx = ((WIDTH * 2 + 19) / 2 - 20 + 0.5) / 2 - 0.5
    assert np.allclose(scaled.k.reshape(3, 3)[0], (FOCAL, 0, cx))
    cloud = ros.wait_for(lambda: clouds.at(stamp), "points")
    assert_cloud(cloud, arrays["depth/image"], scaled, picture, arrays["segmentation/mask"])
    for collected in (*outputs.values(), infos, clouds):
        collected.close()
    camera.wait_until_subscribed()


def test_maps_of_half_the_size_fit_their_camera_info(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    topics = ("depth/image", "normals/image", "segmentation/mask", "instances/image", "depth/image_color")
    assert ros.set_parameters(NODE, output_size="half")[0].successful
    outputs = {topic: ros.collect(Image, f"/robot/{topic}") for topic in topics}
    infos = ros.collect(CameraInfo, "/robot/depth/camera_info")
    clouds = ros.collect(PointCloud2, "/robot/points")
    camera.wait_until_subscribed(*topics, "depth/camera_info", "points")
    stamp = camera.send(picture, camera_info(0, WIDTH, HEIGHT, FOCAL))
    width, height = WIDTH // 2, HEIGHT // 2
    for topic, collected in outputs.items():
        message = ros.wait_for(lambda collected=collected: collected.at(stamp), topic)
        assert (message.width, message.height) == (width, height), topic
    info = ros.wait_for(lambda: infos.at(stamp), "depth/camera_info")
    assert (info.width, info.height) == (width, height)
    assert np.allclose(info.k.reshape(3, 3)[0], (FOCAL / 2, 0, ((WIDTH - 1) / 2 + 0.5) / 2 - 0.5))
    cloud = ros.wait_for(lambda: clouds.at(stamp), "points")
    assert (cloud.width, cloud.height) == (width, height)
    depth = pixels(outputs["depth/image"].at(stamp))
    x, _, z = np.frombuffer(cloud.data, np.float32).reshape(height, width, -1)[20, 40, :3]
    assert z == depth[20, 40]
    assert x == pytest.approx((40 - info.k[2]) / info.k[0] * z, rel=1e-4)
    for collected in (*outputs.values(), infos, clouds):
        collected.close()
    assert ros.set_parameters(NODE, output_size="image")[0].successful
    camera.wait_until_subscribed()


def assert_cloud(cloud: PointCloud2, depth: np.ndarray, info: CameraInfo, rgb: np.ndarray, mask: np.ndarray) -> None:
    assert (cloud.width, cloud.height) == (WIDTH, HEIGHT)
    assert not cloud.is_dense
    types = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}
    layout = {field.name: (types[field.datatype], field.offset) for field in cloud.fields}
    dtype = np.dtype(
        {
            "names": list(layout),
            "formats": [kind for kind, _ in layout.values()],
            "offsets": [offset for _, offset in layout.values()],
            "itemsize": cloud.point_step,
        }
    )
    points = np.frombuffer(cloud.data, dtype).reshape(HEIGHT, WIDTH)
    fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
    row, column = 70, 100
    z = depth[row, column]
    assert points["z"][row, column] == z
    assert points["x"][row, column] == pytest.approx((column - cx) / fx * z, abs=1e-5)
    assert points["y"][row, column] == pytest.approx((row - cy) / fy * z, abs=1e-5)
    packed = points["rgb"].copy().view(np.uint32)[row, column]
    assert (packed >> 16 & 255, packed >> 8 & 255, packed & 255) == tuple(rgb[row, column])
    assert points["label"][row, column] == mask[row, column]
    assert points["confidence"][row, column] == pytest.approx(0.0, abs=0.01)


def test_depth_limits_change_while_running(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    depths, clouds = ros.collect(Image, "/robot/depth/image"), ros.collect(PointCloud2, "/robot/points")
    camera.wait_until_subscribed("depth/image", "points")
    info = camera_info(0, WIDTH, HEIGHT)
    results = ros.set_parameters(NODE, atomically=True, min_depth=0.1, max_depth=0.3, points_decimation=4)
    assert results[0].successful
    stamp = camera.send(picture, info)
    depth = pixels(ros.wait_for(lambda: depths.at(stamp), "depth"))
    assert np.isinf(depth[:, WIDTH * 3 // 4]).all()
    assert np.isfinite(depth[:, WIDTH // 4]).all()
    cloud = ros.wait_for(lambda: clouds.at(stamp), "points")
    assert (cloud.width, cloud.height) == (WIDTH // 4, HEIGHT // 4)
    assert ros.set_parameters(NODE, atomically=True, min_depth=0.25, max_depth=10.0)[0].successful
    stamp = camera.send(picture, info)
    assert np.isnan(pixels(ros.wait_for(lambda: depths.at(stamp), "depth"))[:, WIDTH // 4]).all()
    results = ros.set_parameters(NODE, atomically=True, min_depth=0.0, min_confidence=0.1, publish_points=False)
    assert results[0].successful
    camera.wait_until_subscribed("depth/image")
    stamp = camera.send(picture, info)
    depth = pixels(ros.wait_for(lambda: depths.at(stamp), "depth"))
    assert np.isnan(depth[:, WIDTH * 3 // 4]).all()
    assert np.isfinite(depth[:, WIDTH // 4]).all()
    assert not clouds.at(stamp)
    assert ros.set_parameters(NODE, atomically=True, min_confidence=0.0, publish_points=True)[0].successful
    depths.close()
    clouds.close()


def test_camera_info_that_cannot_be_used(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    clouds, depths = ros.collect(PointCloud2, "/robot/points"), ros.collect(Image, "/robot/depth/image")
    camera.wait_until_subscribed("points", "depth/image")

    def wrong(**changes: object) -> CameraInfo:
        info = camera_info(0, WIDTH, HEIGHT)
        for name, value in changes.items():
            setattr(info, name, value)
        return info

    nothing = np.zeros(9)
    not_finite = np.array([np.nan, 0, 64, 0, 100, 48, 0, 0, 1])
    for info, words in (
        (wrong(k=nothing), "the camera is not calibrated"),
        (wrong(k=not_finite), "K is not finite"),
        (wrong(k=np.array([np.inf, 0, 64, 0, 100, 48, 0, 0, 1])), "K is not finite"),
        (wrong(width=WIDTH * 2), f"which the image of {WIDTH}x{HEIGHT} cannot come from"),
    ):
        stamp = camera.send(picture, info)
        assert ros.status("images", words).level == b"\x01"
        ros.status("outputs", words)
        ros.wait_for(lambda stamp=stamp: depths.at(stamp), "depth does not need this camera's intrinsics")
        assert not clouds.at(stamp)
    stamp = camera.send(picture, camera_info(0, WIDTH, HEIGHT, frame_id="elsewhere"))
    ros.status("images", "camera_info frame 'elsewhere' does not match image frame 'camera'")
    ros.wait_for(lambda: clouds.at(stamp), "a cloud, in the image's frame")
    stamp = camera.send(picture, camera_info(0, WIDTH, HEIGHT))
    ros.status("images", "OK")
    assert ros.wait_for(lambda: clouds.at(stamp), "points").header.frame_id == "camera"
    clouds.close()
    depths.close()


def test_labels_wait_for_late_subscribers(camera: Camera, ros: Ros) -> None:
    labels = ros.collect(SegmentationLabels, "/robot/segmentation/labels", LATCHED)
    (message,) = ros.wait_for(lambda: labels.messages, "labels")
    assert message.model == "metric"
    assert [(label.id, label.name) for label in message.labels] == [(label.id, label.name) for label in LABELS]
    assert tuple(message.labels[1].color) == LABELS[1].color


def test_missing_camera_info_is_reported(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    assert ros.change_state("deactivate", NODE)
    assert ros.change_state("activate", NODE)
    points = ros.collect(PointCloud2, "/robot/points")
    camera.wait_until_subscribed("points")
    stamp = camera.send(picture)
    ros.repeat_until(
        lambda: camera.images.publish(rgb_image(picture, next(stamps))),
        lambda: "no camera_info on /cam/front/camera_info" in ros.message("images", NODE),
        "a warning about camera_info",
    )
    ros.status("outputs", "nothing on points: no camera_info has come")
    assert not points.at(stamp)
    points.close()


def test_relative_depth_is_never_metres(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    for transition in ("deactivate", "cleanup"):
        assert ros.change_state(transition, NODE)
    assert ros.set_parameters(NODE, model="relative")[0].successful
    for transition in ("configure", "activate"):
        assert ros.change_state(transition, NODE)
    topics = {name for name, _ in ros.node.get_topic_names_and_types()}
    assert "/robot/depth_relative/image" in topics
    metric, points = ros.collect(Image, "/robot/depth/image"), ros.collect(PointCloud2, "/robot/points")
    relative = ros.collect(Image, "/robot/depth_relative/image")
    camera.wait_until_subscribed("depth/image", "points", "depth_relative/image")
    status = ros.status("outputs", "nothing on depth/image, points: the depth of model 'relative' is relative")
    assert status.level == b"\x01"
    stamp = camera.send(picture, camera_info(0, WIDTH, HEIGHT))
    depth = pixels(ros.wait_for(lambda: relative.at(stamp), "relative depth"))
    assert depth[HEIGHT // 2, WIDTH // 4] == pytest.approx(0.2, abs=0.01)
    assert not metric.messages
    assert not points.messages
    assert camera.status.at(stamp).scale_source == PerceptionStatus.SCALE_NONE
    for collected in (metric, points, relative):
        collected.close()


def test_sparse_depth_makes_relative_depth_metric(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    """The relative model of the test before, whose depth is the brightness: 0.2 left, 1/3 right."""
    assert ros.set_parameters(NODE, points_decimation=1)[0].successful
    sparse = ros.node.create_publisher(Image, "/robot/sparse_depth", RELIABLE)
    metric, points = ros.collect(Image, "/robot/depth/image"), ros.collect(PointCloud2, "/robot/points")
    ros.wait_for(sparse.get_subscription_count, "the node subscribes to sparse_depth")
    camera.wait_until_subscribed("depth/image", "points")
    measured = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint16)  # half the image's resolution, with holes
    measured[::4, ::4] = 1000
    measured[::4, WIDTH // 4 :: 4] = 3000

    def send_both(values: np.ndarray, frame_id: str = "camera") -> float:
        stamp = float(next(stamps))
        image, info = rgb_image(picture, stamp), camera_info(stamp, WIDTH, HEIGHT)
        depth = Image(header=image.header, height=values.shape[0], width=values.shape[1], encoding="16UC1")
        depth.header = type(image.header)(stamp=image.header.stamp, frame_id=frame_id)
        depth.step = 2 * values.shape[1]
        depth.data.frombytes(values.tobytes())

        def publish() -> None:
            camera.infos.publish(info)
            sparse.publish(depth)
            ros.pause(0.2)  # topics have no order between them
            camera.images.publish(image)

        ros.repeat_until(publish, lambda: camera.status.at(stamp), f"status for {stamp}")
        return stamp

    frame = rgb_image(picture, 0).header.frame_id
    send_both(measured, frame)  # the first measurement opens the metric topics
    stamp = send_both(measured, frame)
    depth = pixels(ros.wait_for(lambda: metric.at(stamp), "metric depth"))
    np.testing.assert_allclose(depth[10:-10, 10 : WIDTH // 2 - 10], 1.0, rtol=0.03)
    np.testing.assert_allclose(depth[10:-10, WIDTH // 2 + 10 : -10], 3.0, rtol=0.03)
    status = camera.status.at(stamp)
    assert status.scale_source == PerceptionStatus.SCALE_SPARSE_DEPTH
    assert status.scale == pytest.approx(2.0 / (1 / 3 - 0.2), rel=0.05)
    assert ros.wait_for(lambda: points.at(stamp), "a cloud").width == WIDTH
    for spoilt, frame_id, reason in (
        (measured, "lidar", "'lidar' does not match image frame"),
        (np.zeros_like(measured), frame, "0 points"),
        (measured[:, : WIDTH // 8].copy(), frame, "another aspect ratio"),
    ):
        assert ros.set_parameters(NODE, scale_max_age=0.0)[0].successful
        stamp = send_both(spoilt, frame_id)
        assert camera.status.at(stamp).scale_source == PerceptionStatus.SCALE_NONE
        assert not metric.at(stamp)
        ros.status("outputs", reason)
    ros.node.destroy_publisher(sparse)


def test_the_node_needs_no_training_libraries(camera: Camera, node: Process) -> None:
    imported = {line.rpartition("|")[2].strip() for line in node.log.splitlines() if line.startswith("import time:")}
    assert "onnxruntime" in imported
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & {"torch", "diffusers", "transformers", "accelerate"}
    assert "libtorch" not in Path(f"/proc/{node.pid}/maps").read_text()
