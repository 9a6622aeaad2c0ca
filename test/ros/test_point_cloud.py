"""The cloud as its readers take it: depth_image_proc, nav2's semantic layer, limits and edges; and steady video.

Expected points are computed from the published `depth/camera_info` and `depth/image` alone, with the formula of
depth_image_proc (image_pipeline, depth_image_proc/include/depth_image_proc/conversions.hpp, convertDepth):
x = (u - cx) z / fx, y = (v - cy) z / fy with the projection matrix P, NaN where z is not finite.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from harness import RELIABLE, Process, Ros, pixels, rgb_image, seconds
from model_factory import write_model
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.point_cloud import at_jumps


WIDTH, HEIGHT = 128, 96
NODE = "/perception_node"
DTYPES = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Slopes with a step in the middle and a black hole. Depth is brightness in metres, confidence is green."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[..., 0] = np.linspace(60, 120, WIDTH, dtype=np.uint8)
    rgb[..., 1] = np.linspace(40, 100, HEIGHT, dtype=np.uint8)[:, None]
    rgb[:, WIDTH // 2 :] = (250, 20, 20)
    rgb[:40, WIDTH // 2 :] += np.arange(WIDTH // 2, dtype=np.uint8)[:, None] % 5
    rgb[30:50, 20:40] = 0
    return rgb


class Camera:
    """One camera, and everything that comes of an image by its stamp."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.images = ros.node.create_publisher(Image, "/cam/image_raw", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, "/cam/camera_info", RELIABLE)
        self.outputs = {
            topic: ros.collect(kind, f"/{topic}")
            for topic, kind in {
                "points": PointCloud2,
                "depth/image": Image,
                "depth/camera_info": CameraInfo,
                "depth/confidence": Image,
                "segmentation/mask": Image,
                "segmentation/confidence": Image,
                "status": PerceptionStatus,
            }.items()
        }

    def send(self, rgb: np.ndarray, stamp: float, info: CameraInfo) -> dict[str, object]:
        """Publishes an image until everything has come for it."""
        message = rgb_image(rgb, stamp)
        info.header = message.header

        def publish() -> None:
            self.infos.publish(info)
            self.ros.pause(0.2)  # topics have no order between them
            self.images.publish(message)

        def found() -> dict[str, object] | None:
            answers = {topic: collected.at(stamp) for topic, collected in self.outputs.items()}
            return answers if all(answers.values()) else None

        return self.ros.repeat_until(publish, found, f"all outputs for {stamp}")


@pytest.fixture(scope="module")
def node(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Process:
    folder = tmp_path_factory.mktemp("models")
    metric = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 10.0]}
    write_model(folder / "metric", depth="holes", depth_card=metric)
    return ros.start(
        "perception_node",
        *("-r", "image:=/cam/image_raw", "-p", "model:=metric", "-p", "threads:=1", "-p", "diagnostics_period:=0.2"),
        DIFFUSION_PERCEPTION_MODELS=str(folder),
    )


@pytest.fixture(scope="module")
def camera(ros: Ros, node: Process) -> Iterator[Camera]:
    camera = Camera(ros)
    ros.wait_for(camera.images.get_subscription_count, "the node subscribes to the image")
    ros.wait_for(camera.infos.get_subscription_count, "the node subscribes to camera_info")
    publishers = lambda: [ros.node.count_publishers(f"/{topic}") for topic in camera.outputs]  # noqa: E731
    ros.wait_for(lambda: all(publishers()), "all outputs are offered")
    yield camera
    assert node.stop() == 0


def full_resolution_info() -> CameraInfo:
    """Of a sensor with twice the image's resolution, of which the image shows the binned lower right part."""
    info = CameraInfo(width=2 * WIDTH + 40, height=2 * HEIGHT + 30, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = np.array([210.5, 0, 150.25, 0, 214.0, 108.75, 0, 0, 1.0])
    info.p = np.array([210.5, 0, 150.25, 0, 0, 214.0, 108.75, 0, 0, 0, 1.0, 0])
    info.r = np.eye(3).ravel()
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 40, 30, 2 * WIDTH, 2 * HEIGHT
    info.binning_x = info.binning_y = 2
    return info


def read(cloud: PointCloud2) -> np.ndarray:
    """The points as a structured array (H, W), by what the message says about itself."""
    layout = {
        "names": [field.name for field in cloud.fields],
        "formats": [DTYPES[field.datatype] for field in cloud.fields],
        "offsets": [field.offset for field in cloud.fields],
        "itemsize": cloud.point_step,
    }
    assert cloud.row_step == cloud.width * cloud.point_step
    assert len(cloud.data) == cloud.height * cloud.row_step
    assert not cloud.is_bigendian
    return np.frombuffer(cloud.data, np.dtype(layout)).reshape(cloud.height, cloud.width)


def as_depth_image_proc(depth: np.ndarray, info: CameraInfo) -> np.ndarray:
    """(H, W, 3) points of convertDepth<float>."""
    fx, cx, fy, cy = info.p[0], info.p[2], info.p[5], info.p[6]
    u, v = np.meshgrid(np.arange(info.width), np.arange(info.height))
    z = np.where(np.isfinite(depth), depth, np.nan).astype(np.float64)
    return np.stack([(u - cx) * z / fx, (v - cy) * z / fy, z], axis=-1)


def test_points_are_those_of_depth_image_proc(camera: Camera, picture: np.ndarray) -> None:
    got = camera.send(picture, 3000.0, full_resolution_info())
    depth, info, cloud = pixels(got["depth/image"]), got["depth/camera_info"], got["points"]
    assert (info.width, info.height) == (WIDTH, HEIGHT) == (cloud.width, cloud.height)
    assert info.header == cloud.header == got["depth/image"].header
    points = read(cloud)
    expected = as_depth_image_proc(depth, info)
    assert np.isnan(expected[..., 2]).any()
    assert np.isfinite(expected[..., 2]).mean() > 0.9
    for axis, name in enumerate("xyz"):
        assert np.array_equal(np.isnan(points[name]), np.isnan(expected[..., axis]))
        np.testing.assert_allclose(points[name], expected[..., axis], rtol=1e-5, atol=1e-7)
    assert np.nanmax(points["x"]) - np.nanmin(points["x"]) > 0.2


def test_the_contract_of_nav2s_semantic_layer(camera: Camera, picture: np.ndarray) -> None:
    """Mask, confidence and cloud of one stamp are walked pixel by pixel together, float32 x, y, z; only z that is not
    finite is left out (kiwicampus/semantic_segmentation_layer, SegmentationBuffer::bufferSegmentation)."""
    got = camera.send(picture, 3001.0, full_resolution_info())
    mask, sure, cloud = got["segmentation/mask"], got["segmentation/confidence"], got["points"]
    assert mask.encoding == sure.encoding == "mono8"
    assert (mask.width, mask.height) == (sure.width, sure.height) == (cloud.width, cloud.height)
    assert mask.step == mask.width, "data[v * width + u] is the pixel"
    assert mask.header == sure.header == cloud.header
    fields = {field.name: field for field in cloud.fields}
    assert all(fields[name].datatype == PointField.FLOAT32 and fields[name].count == 1 for name in "xyz")
    points = read(cloud)
    assert np.array_equal(points["label"], pixels(mask))
    rgb = points["rgb"].copy().view(np.uint32)
    assert np.array_equal(np.stack([rgb >> 16, rgb >> 8 & 255, rgb & 255], axis=-1), picture)
    np.testing.assert_array_equal(points["confidence"], pixels(got["depth/confidence"]))


def test_limits_and_decimation_leave_holes_not_other_points(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    whole = read(camera.send(picture, 3002.0, full_resolution_info())["points"])
    limits = {"min_depth": 0.15, "max_depth": 0.36, "min_confidence": 0.2, "points_decimation": 3}
    assert ros.set_parameters(NODE, atomically=True, **limits)[0].successful
    part = read(camera.send(picture, 3003.0, full_resolution_info())["points"])
    assert part.shape == (HEIGHT // 3, WIDTH // 3 + 1)
    same = whole[::3, ::3]
    with np.errstate(invalid="ignore"):
        kept = (same["z"] >= 0.15) & (same["z"] <= 0.36) & (same["confidence"] >= 0.2)
    assert 0.1 < kept.mean() < 0.9
    for name in "xyz":
        np.testing.assert_array_equal(part[name], np.where(kept, same[name], np.nan))
    defaults = {"min_depth": 0.0, "max_depth": 1000.0, "min_confidence": 0.0, "points_decimation": 1}
    assert ros.set_parameters(NODE, atomically=True, **defaults)[0].successful


def test_the_edge_filter_takes_the_points_at_jumps(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    whole = camera.send(picture, 3004.0, full_resolution_info())
    assert ros.set_parameters(NODE, points_edge_filter=0.1)[0].successful
    got = camera.send(picture, 3005.0, full_resolution_info())
    assert ros.set_parameters(NODE, points_edge_filter=0.0)[0].successful
    depth = pixels(got["depth/image"])
    np.testing.assert_array_equal(depth, pixels(whole["depth/image"]), "the depth image keeps everything")
    before, after = read(whole["points"])["z"], read(got["points"])["z"]
    gone = np.isfinite(before) & np.isnan(after)
    assert np.array_equal(gone, np.isfinite(before) & at_jumps(depth, 0.1))
    assert gone[60:, WIDTH // 2 - 1 : WIDTH // 2 + 1].all(), "the step in the middle"
    assert not gone[60:, 10:50].any(), "a slope is no edge"
    assert gone.mean() < 0.2


def test_ramps_between_surfaces_are_jumps_and_holes_are_not() -> None:
    depth = np.full((20, 40), 2.0, np.float32)
    depth[:, 20:] = 4.0
    depth = np.asarray(cv2.blur(depth, (5, 1)), np.float32)
    assert set(np.flatnonzero(at_jumps(depth, 0.05)[10])) == set(range(17, 23))
    depth = np.full((20, 40), 2.0, np.float32)
    depth[5:10, 5:10], depth[5:10, 15:20], depth[5:10, 25:30] = np.nan, np.inf, 0.0
    assert not at_jumps(depth, 0.05).any()


def test_temporal_holds_the_depth_of_a_video(camera: Camera, ros: Ros, picture: np.ndarray) -> None:
    """Depth is brightness here: a picture 10 % darker is 10 % nearer, which is flicker for a scene at rest."""
    darker = (0.9 * picture).astype(np.uint8)

    def change(start: float) -> float:
        depths = [
            pixels(camera.send(rgb, start + index / 16, full_resolution_info())["depth/image"])
            for index, rgb in enumerate((picture, darker))
        ]
        return float(1 - np.nanmedian(depths[1] / depths[0]))

    assert change(3010.0) == pytest.approx(0.1, abs=0.02)
    assert ros.set_parameters(NODE, atomically=True, temporal=True, temporal_time_constant=1.0)[0].successful
    assert change(3020.0) < 0.03
    assert not ros.set_parameters(NODE, temporal_time_constant=-1.0)[0].successful
    assert ros.set_parameters(NODE, temporal=False)[0].successful
    assert change(3030.0) == pytest.approx(0.1, abs=0.02)


def test_points_of_a_stamp_carry_it(camera: Camera, picture: np.ndarray) -> None:
    got = camera.send(picture, 3040.0, full_resolution_info())
    assert {seconds(message.header) for message in got.values()} == {3040.0}
