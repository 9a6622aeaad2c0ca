"""Flow, opacity, hidden parts and joints of rendered scenes, against closed-form geometry, on disk and augmented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_world_render import BOX, INTRINSICS, floor, full_scene, make_scene, quad

from diffusion_perception_ros.datasets.augment import (
    AugmentationConfig,
    crop_sample,
    flip_sample,
    random_view,
    recoloured,
    resize_sample,
)
from diffusion_perception_ros.datasets.shards import ShardDataset, ShardWriter
from diffusion_perception_ros.sample import JOINTS, Intrinsics, Sample
from diffusion_perception_ros.world.assets import load_assets
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.config import TARGETS, SceneMixture, WorldConfig
from diffusion_perception_ros.world.generate import render_sample
from diffusion_perception_ros.world.items import makers
from diffusion_perception_ros.world.items.people import person
from diffusion_perception_ros.world.motion import flow_between, previous_view
from diffusion_perception_ros.world.rendering.opengl import OpenGLRenderer
from diffusion_perception_ros.world.rendering.renderer import Renderer
from diffusion_perception_ros.world.rendering.torch_renderer import TorchRenderer
from diffusion_perception_ros.world.scene import Camera, Triangles, look_at
from diffusion_perception_ros.world.sheet import contact_sheet
from diffusion_perception_ros.world.targets import amodal_mask, foreground_alpha, keypoints


WIDTH, HEIGHT = 96, 72
CAMERA = Intrinsics(WIDTH, HEIGHT, 80.0, 80.0, 47.5, 35.5)
AHEAD = look_at((0, 0, 1.0), (1, 0, 1.0))
"""Looks along x: the optical x axis is -y of the world, its y axis -z."""
HOUSE = WorldConfig(
    targets=TARGETS,
    mixture=SceneMixture(**dict.fromkeys(SceneMixture.model_fields, 0.0) | {"portrait": 1.0}),
)
"""People, seen from near."""


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return OpenGLRenderer(WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def room() -> Sample:
    return render_sample(5, HOUSE, WIDTH, HEIGHT)


def board(x: float, right: tuple[float, float], down: tuple[float, float], instance: int) -> Triangles:
    """An upright board at a distance, its edges in metres right of and below the optical axis."""
    (left, end), (top, bottom) = right, down
    corners = [(x, -u, 1.0 - v) for u, v in ((left, top), (end, top), (end, bottom), (left, bottom))]
    return quad(*corners, BOX, instance)


def test_opacity_is_the_share_of_the_pixel_that_the_object_covers(renderer: Renderer) -> None:
    metres = 2.0 / CAMERA.fx  # per pixel, at that distance
    edge = (60.25 - CAMERA.cx) * metres  # three quarters of the way through pixel 60
    scene = make_scene([floor(), board(2.0, (-0.5, edge), (-0.5, 0.5), 4)], camera=Camera(CAMERA, AHEAD))
    alpha = foreground_alpha(scene, renderer.render(scene), renderer)
    row = alpha[35]
    assert row[59] == 1.0
    assert row[60] == 0.75
    assert row[61] == 0.0
    assert make_empty(renderer).max() == 0.0


def make_empty(renderer: Renderer) -> np.ndarray:
    scene = make_scene([floor()], camera=Camera(CAMERA, AHEAD))
    return foreground_alpha(scene, renderer.render(scene), renderer)


def test_an_object_is_whole_behind_what_hides_it(renderer: Renderer) -> None:
    front = board(1.0, (-0.1, 0.4), (-0.4, 0.4), 1)
    behind = board(2.0, (-0.6, 0.3), (-0.5, 0.5), 2)
    scene = make_scene([floor(), front, behind], camera=Camera(CAMERA, AHEAD))
    image = renderer.render(scene)
    whole = amodal_mask(scene, image, renderer, np.random.default_rng(0))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    right, below = 2.0 * (u - CAMERA.cx) / CAMERA.fx, 2.0 * (v - CAMERA.cy) / CAMERA.fy
    np.testing.assert_array_equal(whole > 0, (right > -0.6) & (right < 0.3) & (abs(below) < 0.5))
    assert set(np.unique(whole)) == {0, 2}
    assert ((whole == 2) & (image.instances == 1)).sum() > 100  # the hidden part


def test_flow_of_known_motions_is_exact(renderer: Renderer) -> None:
    scene = make_scene(
        [board(2.0, (-3, 3), (-3, 3), 1), board(1.0, (0, 0.3), (0, 0.3), 2)], camera=Camera(CAMERA, AHEAD)
    )
    image = renderer.render(scene)
    pose = AHEAD.copy()
    pose[1, 3] += 0.1  # it was 0.1 m to the left
    flow = flow_between(scene, image, {}, pose)
    np.testing.assert_allclose(flow[..., 0], 0.1 * CAMERA.fx / image.depth, rtol=1e-4)
    np.testing.assert_allclose(flow[..., 1], 0.0, atol=1e-4)
    lowered = np.eye(4)
    lowered[2, 3] = -0.05
    flow = flow_between(scene, image, {2: lowered}, AHEAD)
    moved = image.instances == 2
    np.testing.assert_allclose(flow[moved], np.broadcast_to((0.0, 0.05 * CAMERA.fy), (moved.sum(), 2)), atol=1e-3)
    np.testing.assert_allclose(flow[~moved], 0.0, atol=1e-4)
    turned = AHEAD.copy()
    turned[:3, :3] = AHEAD[:3, :3] @ cv2.Rodrigues(np.array([0, 0.02, 0]))[0]
    sky = make_scene([floor()], camera=Camera(CAMERA, AHEAD))
    flow = flow_between(sky, renderer.render(sky), {}, turned)
    assert flow[10, 47, 0] == pytest.approx(-np.tan(0.02) * CAMERA.fx, abs=0.1)  # sky: as if infinitely far


@pytest.mark.parametrize("seed", [2, 5, 6])
def test_flow_leads_to_the_same_place_in_the_picture_before(renderer: Renderer, seed: int) -> None:
    scene = full_scene(
        camera=Camera(Intrinsics(WIDTH, HEIGHT, 72.0, 72.0, 47.5, 35.5), look_at((0.1, -0.3, 1.1), (2, -0.1, 0.6)))
    )
    image = renderer.render(scene)
    before, flow = previous_view(scene, image, renderer, np.random.default_rng(seed))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    place = (np.stack([u, v], -1) + flow).astype(np.float32)
    inside = ((place >= 0) & (place <= (WIDTH - 1, HEIGHT - 1))).all(-1)
    assert inside.mean() > 0.5
    found = cv2.remap(before.instances, place, None, cv2.INTER_NEAREST)
    assert (found == image.instances)[inside].mean() > 0.96  # but for what was hidden
    assert np.abs(flow[inside]).max() > 0.5
    error = np.abs(cv2.remap(before.radiance, place, None, cv2.INTER_LINEAR) - image.radiance)[inside]
    assert np.median(error) < 0.02 * np.median(image.radiance)


def test_joints_are_where_the_camera_sees_them(renderer: Renderer) -> None:
    config = WorldConfig()
    for yaw, seen in ((np.pi / 2, 2), (-np.pi / 2, 1)):  # faces the camera, or turns its back to it
        builder = SceneBuilder(np.random.default_rng(4), load_assets(config), config, makers.make)
        tag = builder.place(person(builder, "stand"), (3.0, 0.0, 0.0), -yaw)
        assert tag is not None
        scene = make_scene([floor(), builder.build()], camera=Camera(CAMERA, AHEAD), textures=builder.assets.textures)
        scene.skeletons = builder.skeletons
        (joints,) = keypoints(scene, renderer.render(scene))
        skeleton = builder.skeletons[0].joints
        right, below = -skeleton[:, 1] / skeleton[:, 0], (1.0 - skeleton[:, 2]) / skeleton[:, 0]
        expected = np.stack([CAMERA.fx * right + CAMERA.cx, CAMERA.fy * below + CAMERA.cy], -1)
        present = joints[:, 2] > 0
        assert present.sum() >= 15
        np.testing.assert_allclose(joints[present, :2], expected[present], atol=1e-3)
        assert joints[JOINTS.index("nose"), 2] == seen
        left, right_ = (joints[JOINTS.index(f"{side}_shoulder"), 0] for side in ("left", "right"))
        assert (left > right_) == (seen == 2)
    hidden = replace(scene, triangles=Triangles.concatenate([scene.triangles, board(1.0, (-2, 2), (-0.05, 2), 90)]))
    (joints,) = keypoints(hidden, renderer.render(hidden))
    assert joints[JOINTS.index("left_knee"), 2] == 1
    assert not len(keypoints(make_scene([floor()], camera=scene.camera), renderer.render(scene)))


def test_both_renderers_see_the_same_instances() -> None:
    offsets = np.array([[0.0, 0.0], [0.3, -0.4]])
    scene = full_scene()
    size = INTRINSICS.width, INTRINSICS.height
    first, second = (kind(*size, 2).instances(scene, offsets) for kind in (OpenGLRenderer, TorchRenderer))
    assert (first == second).mean() > 0.999
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(first[0], OpenGLRenderer(*size, 2).render(scene).instances)


def test_a_seed_gives_everything_that_was_asked_for(room: Sample) -> None:
    assert room.previous is not None
    assert np.abs(room.rgb.astype(float) - room.previous).mean() > 0.5
    assert room.flow.shape == (HEIGHT, WIDTH, 2)
    (instance,) = set(np.unique(room.amodal)) - {0}
    assert ((room.amodal == instance) >= (room.instances == instance)).all()
    assert 0 < room.alpha.max() <= 1
    assert room.keypoints.shape[1:] == (17, 3)
    assert (room.keypoints[..., 2] > 0).sum() >= 5
    again = render_sample(5, HOUSE, WIDTH, HEIGHT)
    for name in ("rgb", "previous", "flow", "alpha", "amodal", "keypoints"):
        np.testing.assert_array_equal(getattr(again, name), getattr(room, name))
    sheet = contact_sheet([room, room], columns=2)
    assert sheet.shape[1] == 2 * (10 * (WIDTH + 4) + 4)
    plain = render_sample(5, HOUSE.model_copy(update={"targets": ()}), WIDTH, HEIGHT)
    assert plain.previous is plain.flow is plain.alpha is plain.amodal is plain.keypoints is None


def test_targets_come_back_from_a_shard(room: Sample, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a", 1, HEIGHT, WIDTH, TARGETS)
    with pytest.raises(ValueError, match="lacks alpha"):
        writer.append(replace(room, alpha=None))
    writer.append(room)
    writer.finish()
    plain = ShardWriter(tmp_path / "b", 1, HEIGHT, WIDTH)
    plain.append(room)
    plain.finish()
    back, bare = ShardDataset(tmp_path)
    for name in ("rgb", "previous", "amodal", "keypoints"):
        np.testing.assert_array_equal(getattr(back, name), getattr(room, name))
    np.testing.assert_allclose(back.alpha, room.alpha, atol=0.002)
    np.testing.assert_allclose(back.flow, room.flow, atol=0.02)
    assert bare.previous is bare.flow is bare.alpha is bare.amodal is bare.keypoints is None
    assert "targets" not in (tmp_path / "b" / "shard.json").read_text()  # as shards always were


def test_augmentation_moves_flow_and_joints_with_the_picture(room: Sample) -> None:
    twice = flip_sample(flip_sample(room))
    for name in ("rgb", "previous", "flow", "alpha", "amodal"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(room, name))
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype(np.float32)
    joints = np.zeros((1, 17, 3), np.float32)
    joints[0, :, :2], joints[0, :, 2] = np.stack([20 + np.arange(17), 30 + np.arange(17)], -1), 2
    sample = replace(room, flow=0.25 * grid, keypoints=joints)
    mirrored = flip_sample(sample)
    elbow, other = JOINTS.index("left_elbow"), JOINTS.index("right_elbow")
    assert tuple(mirrored.keypoints[0, other]) == (WIDTH - 1 - joints[0, elbow, 0], joints[0, elbow, 1], 2)
    np.testing.assert_array_equal(mirrored.flow[:, 0, 0], -0.25 * (WIDTH - 1))
    window = resize_sample(crop_sample(sample, 24, 12, 48, 48), 96, 144)
    where = (20 + elbow - 24 + 0.5) * 2 - 0.5, (30 + elbow - 12 + 0.5) * 3 - 0.5
    np.testing.assert_allclose(window.keypoints[0, elbow], (*where, 2))
    assert window.keypoints[0, 0, 2] == 0  # the nose was left of the window
    np.testing.assert_allclose(window.flow[100, 40], (0.25 * 44 * 2, 0.25 * 45 * 3))
    view = random_view(sample, 64, 64, np.random.default_rng(0), AugmentationConfig())
    assert view.previous.shape == view.rgb.shape
    assert view.alpha.dtype == np.float32
    still = replace(room, previous=room.rgb)
    changed = recoloured(still, np.random.default_rng(2), AugmentationConfig(noise=0.0, jpeg=0.0, blur=0.0))
    np.testing.assert_array_equal(changed.previous, changed.rgb)
    assert (changed.rgb != room.rgb).any()
