"""Metres for a relative model in the node: lidar points with extrinsics, the floor, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import RELIABLE, Process, Ros, camera_info, header, pixels, rgb_image
from model_factory import write_model
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2, PointField

from diffusion_perception_ros.msg import PerceptionStatus


WIDTH, HEIGHT, FOCAL = 128, 96, 100.0
NODE = "/perception_node"
stamps = itertools.count(3000)


class Rig:
    """A camera, and what comes of its images."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.images = ros.node.create_publisher(Image, "/image", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
        self.clouds = ros.node.create_publisher(PointCloud2, "/sparse_depth", RELIABLE)
        self.imu = ros.node.create_publisher(Imu, "/imu", RELIABLE)
        self.status = ros.collect(PerceptionStatus, "/status")
        self.depth = ros.collect(Image, "/depth/image")

    def send(
        self, rgb: np.ndarray, cloud: PointCloud2 | None = None, imu: Imu | None = None, delay: float = 0.0
    ) -> float:
        """Publishes an image with what else was measured `delay` seconds later until its status comes; its stamp."""
        stamp = float(next(stamps))
        image, info = rgb_image(rgb, stamp), camera_info(stamp, WIDTH, HEIGHT, FOCAL)

        def publish() -> None:
            self.infos.publish(info)
            for publisher, message in ((self.clouds, cloud), (self.imu, imu)):
                if message is not None:
                    message.header.stamp = header(stamp + delay, "").stamp
                    publisher.publish(message)
            self.ros.pause(0.2)  # topics have no order between them
            self.images.publish(image)

        self.ros.repeat_until(publish, lambda: self.status.at(stamp), f"status for {stamp}")
        return stamp

    def metres(self, stamp: float) -> np.ndarray:
        return pixels(self.ros.wait_for(lambda: self.depth.at(stamp), "metric depth"))


@pytest.fixture(scope="module")
def node(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Process:
    model = write_model(tmp_path_factory.mktemp("models") / "relative", ["depth"], depth="brightness")
    settings = {"model": model, "warm_up": "false", "sparse_depth_type": "points", "gravity_source": "imu"}
    process = ros.start(
        "perception_node", *(word for item in settings.items() for word in ("-p", "{}:={}".format(*item)))
    )
    ros.wait_for(lambda: ros.state(NODE) == "active", "the node is active")
    return process


@pytest.fixture(scope="module")
def rig(ros: Ros, node: Process) -> Rig:
    rig = Rig(ros)
    for publisher in (rig.images, rig.infos, rig.clouds, rig.imu):
        ros.wait_for(publisher.get_subscription_count, f"the node subscribes to {publisher.topic_name}")
    return rig


def steps() -> tuple[np.ndarray, np.ndarray]:
    """A picture in two brightnesses and the metres that a sensor sees there: depth is the brightness (0.2, 0.4)."""
    rgb = np.full((HEIGHT, WIDTH, 3), 51, np.uint8)
    rgb[:, WIDTH // 2 :] = 102
    return rgb, np.where(rgb[..., 0] == 51, 2.0, 4.0)


def lidar(depth: np.ndarray, pose: np.ndarray, frame_id: str = "lidar") -> PointCloud2:
    """Every third pixel as points of a sensor at `pose` (x y z, no rotation) in the camera's body frame."""
    rows, columns = (axis[::3, ::3].ravel() for axis in np.indices(depth.shape))
    z = depth[rows, columns]
    right, down = (columns - (WIDTH - 1) / 2) * z / FOCAL, (rows - (HEIGHT - 1) / 2) * z / FOCAL
    points = np.stack([z, -right, -down], axis=1) - pose  # body axes: forward, left, up
    return cloud(points, frame_id)


def cloud(points: np.ndarray, frame_id: str) -> PointCloud2:
    message = PointCloud2(header=header(0, frame_id), height=1, width=len(points), point_step=12)
    message.row_step = 12 * len(points)
    message.fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate("xyz")]
    message.data.frombytes(points.astype(np.float32).tobytes())
    return message


def test_lidar_points_with_extrinsics_complete_the_depth(rig: Rig, ros: Ros) -> None:
    rgb, depth = steps()
    pose = [0.1, 0.0, 0.2, 0.0, 0.0, 0.0]
    assert ros.set_parameters(NODE, sparse_depth_extrinsics=pose)[0].successful
    points = lidar(depth, np.array(pose[:3]))
    rig.send(rgb, points)  # the first measurement opens the metric topics
    stamp = rig.send(rgb, points)
    metres = rig.metres(stamp)
    assert np.median(np.abs(metres / depth - 1)) < 0.01
    assert np.mean(np.abs(metres / depth - 1) < 0.1) > 0.93
    status = rig.status.at(stamp)
    assert status.scale_source == PerceptionStatus.SCALE_SPARSE_DEPTH
    assert status.scale_inliers > 0.95
    assert status.scale_residual < 0.05
    assert status.scale_age == 0.0


def test_the_extrinsics_may_move(rig: Rig, ros: Ros) -> None:
    """A sensor on an arm: its pose is another for every image, the metres are not."""
    rgb, depth = steps()
    for pose in ([0.1, 0.0, 0.2], [-0.4, 0.1, 0.0], [0.3, -0.1, 0.1]):
        extrinsics = [*pose, 0.0, 0.0, 0.0]
        settings = {"sparse_depth_extrinsics": extrinsics, "scale_time_constant": 0.0, "scale_max_age": 2.0}
        assert all(result.successful for result in ros.set_parameters(NODE, **settings))
        points = lidar(depth, np.array(pose))
        rig.send(rgb, points)  # the first measurement opens the metric topics
        metres = rig.metres(rig.send(rgb, points))
        assert np.median(np.abs(metres / depth - 1)) < 0.01


def test_points_of_another_time_are_refused_with_a_sentence(rig: Rig, ros: Ros) -> None:
    rgb, depth = steps()
    settings = {"sparse_depth_extrinsics": [0.1, 0.0, 0.2, 0.0, 0.0, 0.0], "scale_max_age": 0.0}
    assert ros.set_parameters(NODE, **settings)[0].successful
    stamp = rig.send(rgb, lidar(depth, np.array([0.1, 0.0, 0.2])), delay=0.5)
    assert rig.status.at(stamp).scale_source == PerceptionStatus.SCALE_NONE
    ros.status("outputs", "0.50 s away from the image, 0.10 s are allowed (sparse_depth_tolerance)")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda depth, pose: cloud(np.empty((0, 3)), "lidar"), "0 points"),
        (lambda depth, pose: lidar(depth * 1000, pose), "millimetres"),
        (lambda depth, pose: lidar(np.full_like(depth, 3.0), pose), "too little to tell"),
    ],
    ids=["holes", "millimetres", "wall"],
)
def test_bad_points_are_refused_with_a_sentence(rig: Rig, ros: Ros, spoil, reason: str) -> None:  # type: ignore[no-untyped-def]
    rgb, depth = steps()
    pose = np.array([0.1, 0.0, 0.2])
    assert ros.set_parameters(NODE, scale_max_age=0.0)[0].successful
    stamp = rig.send(rgb, spoil(depth, pose))
    assert rig.status.at(stamp).scale_source == PerceptionStatus.SCALE_NONE
    assert np.isnan(rig.status.at(stamp).scale_inliers)
    ros.status("outputs", reason)


def test_another_frame_without_extrinsics_is_refused(rig: Rig, ros: Ros) -> None:
    rgb, depth = steps()
    assert ros.set_parameters(NODE, sparse_depth_extrinsics=[], scale_max_age=0.0)[0].successful
    rig.send(rgb, lidar(depth, np.zeros(3)))
    words = ros.status("outputs", "'lidar'").message
    assert "tf2_ros is not installed" in words or "no transform" in words


def test_extrinsics_of_wrong_length_are_refused(rig: Rig, ros: Ros) -> None:
    result = ros.set_parameters(NODE, sparse_depth_extrinsics=[0.1, 0.2])[0]
    assert not result.successful
    assert "roll pitch yaw" in result.reason


def test_height_and_gravity_scale_by_the_floor(rig: Rig, ros: Ros) -> None:
    """A camera 1 m above a floor looks down by 30 degrees; its IMU, in the camera's frame, says so."""
    rows = np.arange(HEIGHT)
    along = np.cos(np.pi / 6) * (rows - (HEIGHT - 1) / 2) / FOCAL + np.sin(np.pi / 6)
    depth = 1.0 / along
    rgb = np.clip(np.round(depth * 40), 0, 255).astype(np.uint8)[:, None, None].repeat(WIDTH, 1).repeat(3, 2)
    imu = Imu(header=header(0, "camera"))
    imu.orientation_covariance[0] = -1.0  # it has none
    imu.linear_acceleration.y = -9.81 * np.cos(np.pi / 6)
    imu.linear_acceleration.z = -9.81 * np.sin(np.pi / 6)
    assert ros.set_parameters(NODE, camera_height=1.0, scale_max_age=2.0)[0].successful
    stamp = rig.send(rgb, None, imu)
    status = rig.status.at(stamp)
    assert status.scale_source == PerceptionStatus.SCALE_GROUND_PLANE
    metres = rig.metres(stamp)
    assert np.median(np.abs(metres[HEIGHT // 2 :] / depth[HEIGHT // 2 :, None] - 1)) < 0.03

    def source() -> str | None:
        return ros.values("outputs", NODE).get("Scale source")

    ros.wait_for(lambda: source() == "ground_plane", "the source in diagnostics")
