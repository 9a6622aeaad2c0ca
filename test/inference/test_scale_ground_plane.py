"""Camera height and gravity give scale and shift by the floor; what is no floor is refused."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.metric_scale.ground_plane import fit_ground_plane, mount_gravity
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction


CAMERA = Intrinsics(320, 240, 260.0, 262.0, 160.0, 118.0)
HEIGHT, PITCH, ROLL = 0.7, 0.4, 0.1


def floor_depth(height: float = HEIGHT, pitch: float = PITCH, roll: float = ROLL) -> FloatImage:
    """Metres of an empty floor, NaN above the horizon; gravity by rotating a level camera, not by `mount_gravity`."""
    level = np.array([0.0, 1.0, 0.0])
    sp, cp, sr, cr = np.sin(pitch), np.cos(pitch), np.sin(roll), np.cos(roll)
    nose_down = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    lean_right = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    down = lean_right @ (nose_down @ level)
    rows, columns = np.indices((CAMERA.height, CAMERA.width))
    along = down[0] * (columns - CAMERA.cx) / CAMERA.fx + down[1] * (rows - CAMERA.cy) / CAMERA.fy + down[2]
    with np.errstate(divide="ignore"):
        return np.where(along > 0.02, height / along, np.nan).astype(np.float32)


def predicted(depth: FloatImage, quantity: str) -> Prediction:
    values = (depth + 0.3) / 20 if quantity == "relative_depth" else (1 / depth + 0.1) / 5
    return Prediction(depth_relative=values.astype(np.float32), depth_quantity=quantity)


@pytest.mark.parametrize("quantity", ["relative_depth", "relative_disparity"])
@pytest.mark.parametrize("labelled", [True, False])
def test_scale_and_shift_follow_from_the_floor(quantity: str, labelled: bool) -> None:
    depth = floor_depth()
    prediction = predicted(depth, quantity)
    floor = np.isfinite(depth) if labelled else None
    scale = fit_ground_plane(prediction, CAMERA, mount_gravity(PITCH, ROLL), HEIGHT, floor)
    assert scale.source == "ground_plane"
    assert prediction.depth_relative is not None
    near = depth < 5
    np.testing.assert_allclose(scale.metres(prediction.depth_relative)[near], depth[near], rtol=1e-3)


def test_a_box_on_the_floor_does_not_disturb() -> None:
    depth = floor_depth()
    depth[140:200, 40:150] = 0.8
    scale = fit_ground_plane(predicted(depth, "relative_depth"), CAMERA, mount_gravity(PITCH, ROLL), HEIGHT)
    assert scale.scale == pytest.approx(20, rel=0.01)
    assert scale.inliers < 1


@pytest.mark.parametrize(
    ("height", "floor", "pitch", "message"),
    [
        (HEIGHT, np.zeros((240, 320), bool), PITCH, "0.0% of the image show the floor"),
        (HEIGHT, None, -1.2, "show the floor"),  # gravity says that the camera looks at the sky
        (HEIGHT, None, 1.5, "plane|span"),  # straight down
    ],
)
def test_what_is_no_floor_is_refused(height: float, floor: np.ndarray | None, pitch: float, message: str) -> None:
    prediction = predicted(floor_depth(), "relative_depth")
    with pytest.raises(InputError, match=message):
        fit_ground_plane(prediction, CAMERA, mount_gravity(pitch, 0.0), height, floor)


def test_noise_is_no_plane() -> None:
    noise = np.random.default_rng(0).random((240, 320)).astype(np.float32)
    prediction = Prediction(depth_relative=noise, depth_quantity="relative_depth")
    with pytest.raises(InputError, match=r"plane|registered"):
        fit_ground_plane(prediction, CAMERA, mount_gravity(PITCH, ROLL), HEIGHT)
