"""Geometry of the messages: camera_info after cropping, binning and resizing; clouds of distorted cameras."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from harness import camera_info
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.ros.camera_info import scaled_camera_info
from diffusion_perception_ros.ros.point_cloud import PointCloudBuilder
from diffusion_perception_ros.sample import Prediction


def xyz(cloud: PointCloud2) -> np.ndarray:
    points = np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, -1)
    return points[..., :3]


def binned_camera() -> CameraInfo:
    """640 x 480 sensor; region of 400 x 300 from (100, 60), binned 2 x 2: images of 200 x 150."""
    info = camera_info(0, 640, 480, focal=500)
    info.p[3] = -25.0
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 60, 400, 300
    info.binning_x = info.binning_y = 2
    return info


@pytest.mark.parametrize("size", [(200, 150), (400, 300), (100, 75)])
def test_a_point_stays_under_the_same_part_of_the_image(size: tuple[int, int]) -> None:
    width, height = size
    info = binned_camera()
    point = np.array([0.3, -0.2, 2.0])
    u, v, w = info.k.reshape(3, 3) @ point
    # Corners of pixels, unlike their centres, scale without a shift.
    expected = ((u / w + 0.5 - 100) * width / 400, (v / w + 0.5 - 60) * height / 300)
    camera = image_intrinsics(info, width, height)
    for matrix in (camera.matrix, scaled_camera_info(info, Header(), width, height).k.reshape(3, 3)):
        u, v, w = matrix @ point
        assert (u / w + 0.5, v / w + 0.5) == pytest.approx(expected)
    scaled = scaled_camera_info(info, Header(frame_id="left"), width, height)
    assert (scaled.width, scaled.height, scaled.binning_x, scaled.roi.width) == (width, height, 0, 0)
    assert scaled.header.frame_id == "left"
    assert scaled.p[3] == pytest.approx(-25.0 * width / 400)
    assert np.allclose(scaled.p.reshape(3, 4)[:, :3], scaled.k.reshape(3, 3))
    assert info.roi.width == 400  # the camera's own message is not touched


def test_rectified_images_take_p() -> None:
    info = camera_info(0, 640, 480, focal=500)
    info.p[0], info.p[5] = 450.0, 460.0
    assert image_intrinsics(info, 320, 240).fx == 250
    assert image_intrinsics(info, 320, 240, rectified=True).fx == 225


def test_wrong_camera_info_says_why() -> None:
    for change, words in (
        ({"width": 800}, "800x480, which the image of 320x240"),
        ({"d": [0.1, 0.2]}, "'plumb_bob' with D = "),
        ({"d": [0.1] * 5, "distortion_model": "double_sphere"}, "'double_sphere'"),
        ({"d": [float("nan"), 0.0, 0.0, 0.0, 0.0]}, "D = "),
        ({"k": np.zeros(9)}, "not calibrated"),
    ):
        info = camera_info(0, 640, 480)
        for name, value in change.items():
            setattr(info, name, value)
        with pytest.raises(InputError) as error:
            image_intrinsics(info, 320, 240)
        assert words in str(error.value)


RADIAL = [-0.2, 0.05, 0.002, -0.001, 0.01]
LENSES = {
    "none": ("", []),
    "zeros of a model that nobody knows": ("made_up", [0.0] * 7),
    "plumb_bob": ("plumb_bob", [*RADIAL[:4], 0.0]),
    "plumb_bob of 4": ("plumb_bob", RADIAL[:4]),
    "plumb_bob padded to 8": ("plumb_bob", [*RADIAL, 0.0, 0.0, 0.0]),
    "plumb_bob padded to 12": ("plumb_bob", [*RADIAL, *[0.0] * 7]),
    "plumb_bob that is rational": ("plumb_bob", [*RADIAL, 0.02, 0.01, 0.001]),
    "rational_polynomial": ("rational_polynomial", [-0.2, 0.05, 0.001, 0.0, 0.01, 0.02, 0.01, 0.0]),
    "rational_polynomial of 14": ("rational_polynomial", [*RADIAL, 0.02, 0.01, 0.0, 0.001, 0.0, 0.001, 0.0, 0.0, 0.0]),
    "rational_polynomial of 5": ("rational_polynomial", RADIAL),
    "equidistant": ("equidistant", [0.02, -0.01, 0.002, 0.0]),
    "equidistant padded to 5": ("equidistant", [0.02, -0.01, 0.002, 0.001, 0.0]),
    "fisheye padded to 8": ("fisheye", [0.02, -0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", LENSES)
def test_points_project_back_onto_their_pixels(name: str) -> None:
    width, height = 64, 48
    info = camera_info(0, width, height, focal=60)
    info.distortion_model, distortion = LENSES[name]
    info.d = distortion
    camera = image_intrinsics(info, width, height)
    depth = np.random.default_rng(0).uniform(0.5, 4, (height, width)).astype(np.float32)
    depth[10, 20], depth[11, 20] = np.nan, np.inf
    rgb = np.zeros((height, width, 3), np.uint8)
    builder = PointCloudBuilder(with_label=False, with_confidence=False)
    for _ in range(2):  # the second time with the remembered rays
        points = xyz(builder.build(Header(), depth, rgb, Prediction(), camera, info))
    assert np.isnan(points[10, 20]).all()
    assert np.isnan(points[11, 20]).all()
    valid = np.isfinite(points[..., 2])
    assert valid.sum() == depth.size - 2
    assert np.array_equal(points[..., 2][valid], depth[valid])
    is_fisheye = info.distortion_model in ("equidistant", "fisheye")
    project = cv2.fisheye.projectPoints if is_fisheye else cv2.projectPoints
    distortion = distortion[:4] if is_fisheye else distortion if any(distortion) else []
    zero = np.zeros(3)
    pixels = project(
        points[valid].astype(np.float64).reshape(-1, 1, 3), zero, zero, camera.matrix, np.array(distortion)
    )[0].reshape(-1, 2)
    v, u = np.nonzero(valid)
    assert np.abs(pixels - np.stack([u, v], axis=1)).max() < 0.02
