"""Rendered ground truth against closed-form geometry, the renderers against each other, and the simulated camera."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.config import SensorConfig, WorldConfig
from diffusion_perception_ros.world.labels import CLASS_ID
from diffusion_perception_ros.world.rendering.image import RenderedImage
from diffusion_perception_ros.world.rendering.opengl import OpenGLRenderer
from diffusion_perception_ros.world.rendering.renderer import Renderer
from diffusion_perception_ros.world.rendering.sensor import capture, develop
from diffusion_perception_ros.world.rendering.torch_renderer import TorchRenderer
from diffusion_perception_ros.world.sampling import sample_scene
from diffusion_perception_ros.world.scene import Camera, DirectionalLight, PointLight, Scene, Triangles, look_at


WIDTH, HEIGHT = 161, 120
FLOOR, BOX, BALL, FENCE = (CLASS_ID[name] for name in ("floor", "box", "object", "plant"))
FLOOR_EXTENT = 30.0
BOX_LOW, BOX_HIGH = np.array([1.8, -0.2, 0.0]), np.array([2.4, 0.5, 0.6])
BALL_CENTRE, BALL_RADIUS = np.array([2.0, -0.9, 0.5]), 0.4
INTRINSICS = Intrinsics(WIDTH, HEIGHT, 121.3, 117.9, 95.25, 41.5)  # far off the middle, unequal focal lengths
POSE = look_at((0.1, -0.3, 1.1), (2.0, -0.1, 0.85), roll=0.12)


def mesh(corners, normals, semantic: int, instance: int, texture: int = -1, uvs=None) -> Triangles:
    """Triangles from corners and normals, each (N, 3, 3)."""
    count = len(corners)
    return Triangles(
        positions=np.asarray(corners, np.float32),
        normals=np.asarray(normals, np.float32),
        uvs=np.zeros((count, 3, 2), np.float32) if uvs is None else np.asarray(uvs, np.float32),
        albedo=np.full((count, 3), 0.6, np.float32),
        texture=np.full(count, texture, np.int32),
        semantic=np.full(count, semantic, np.uint8),
        instance=np.full(count, instance, np.int32),
        emission=np.zeros(count, np.float32),
        gloss=np.full(count, 0.3, np.float32),
    )


def quad(a, b, c, d, semantic: int, instance: int, texture: int = -1) -> Triangles:
    a, b, c, d = (np.asarray(corner, float) for corner in (a, b, c, d))
    normal = np.cross(b - a, d - a)
    normals = np.broadcast_to(normal / np.linalg.norm(normal), (2, 3, 3))
    uvs = [[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]]
    return mesh([[a, b, c], [a, c, d]], normals, semantic, instance, texture, uvs)


def box(low, high, semantic: int, instance: int) -> Triangles:
    """Some of its faces are wound the wrong way round, as in meshes from the wild."""
    faces = []
    for axis in range(3):
        for end in (low, high):
            corners = [np.array(low, float) for _ in range(4)]
            for number, corner in enumerate(corners):
                corner[axis] = end[axis]
                corner[axis - 2] = (low, high)[number in (1, 2)][axis - 2]
                corner[axis - 1] = (low, high)[number in (2, 3)][axis - 1]
            faces.append(quad(*corners, semantic, instance))
    return Triangles.concatenate(faces)


def ball(centre, radius: float, semantic: int, instance: int, rings: int = 64) -> Triangles:
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1))
    unit = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    a, b, c, d = (unit[:-1, :-1], unit[1:, :-1], unit[1:, 1:], unit[:-1, 1:])
    normals = np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3, 3), np.stack([a, c, d], 2).reshape(-1, 3, 3)])
    return mesh(centre + radius * normals, normals, semantic, instance)


def make_scene(parts: list[Triangles], lights=None, **changes) -> Scene:
    texture = np.full((1, 16, 16, 4), 255, np.uint8)
    texture[0, 4:12, 4:12, 3] = 0  # a frame with a hole in its middle
    settings = {
        "triangles": Triangles.concatenate(parts),
        "textures": texture,
        "lights": lights or [PointLight((0.5, -1.0, 2.2), (3.0, 2.8, 2.5))],
        "ambient": (0.3, 0.3, 0.35),
        "camera": Camera(INTRINSICS, POSE),
    }
    return Scene(**{**settings, **changes})


def floor() -> Triangles:
    e = FLOOR_EXTENT
    return quad((-e, -e, 0), (e, -e, 0), (e, e, 0), (-e, e, 0), FLOOR, 0)


def full_scene(**changes) -> Scene:
    parts = [floor(), box(BOX_LOW, BOX_HIGH, BOX, 3), ball(BALL_CENTRE, BALL_RADIUS, BALL, 700)]
    return make_scene(parts, **changes)


def rays() -> tuple[np.ndarray, np.ndarray]:
    """Directions with z = 1, in the optical frame and in the world, (H, W, 3)."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    k = INTRINSICS
    local = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(u)], -1)
    return local, local @ POSE[:3, :3].T


def expected() -> RenderedImage:
    """The full scene by intersecting every pixel's ray with plane, box and sphere."""
    _, direction = rays()
    eye = POSE[:3, 3]
    shape = direction.shape[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = np.where(direction[..., 2] < 0, -eye[2] / direction[..., 2], np.inf)
        reached = eye + plane[..., None] * direction
        plane[~(np.abs(reached[..., :2]) < FLOOR_EXTENT).all(-1)] = np.inf
        enter, leave = (BOX_LOW - eye) / direction, (BOX_HIGH - eye) / direction
        first = np.minimum(enter, leave)
        slab_in, slab_out = first.max(-1), np.maximum(enter, leave).min(-1)
        cube = np.where((slab_in < slab_out) & (slab_in > 0), slab_in, np.inf)
        a, b = (direction**2).sum(-1), direction @ (eye - BALL_CENTRE)
        root = b * b - a * (((eye - BALL_CENTRE) ** 2).sum() - BALL_RADIUS**2)
        sphere = np.where(root > 0, (-b - np.sqrt(root)) / a, np.inf)
    distances = np.stack([plane, cube, sphere])
    which, depth = distances.argmin(0), distances.min(0)
    hit = eye + np.where(np.isfinite(depth), depth, 0)[..., None] * direction
    normals = np.zeros((3, *shape, 3))
    normals[0] = (0, 0, 1)
    np.put_along_axis(normals[1], first.argmax(-1)[..., None], 1.0, -1)
    normals[1] *= -np.sign(direction)
    normals[2] = (hit - BALL_CENTRE) / BALL_RADIUS
    seen = np.take_along_axis(normals, which[None, ..., None], 0)[0] @ POSE[:3, :3]
    sky = ~np.isfinite(depth)
    semantic, instances = np.array([FLOOR, BOX, BALL])[which], np.array([0, 3, 700])[which]
    semantic[sky], instances[sky], seen[sky] = CLASS_ID["sky"], 0, np.nan
    return RenderedImage(np.zeros(0), depth, seen, semantic, instances)


def away_from_edges(instances: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """(H, W): the 3x3 neighbourhood holds a single surface."""
    ids = instances.astype(np.int64) * 256 + semantic
    same = np.ones(ids.shape, bool)
    for axis in (0, 1):
        for shift in (-1, 1):
            same &= ids == np.roll(ids, shift, axis)
    same[[0, -1]], same[:, [0, -1]] = False, False
    return same


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors."""
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1)))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["opengl", "opengl-supersampled", "torch", "torch-supersampled"])
def renderer(request: pytest.FixtureRequest) -> Iterator[Renderer]:
    kind = OpenGLRenderer if request.param.startswith("opengl") else TorchRenderer
    renderer = kind(WIDTH, HEIGHT, 2 if request.param.endswith("supersampled") else 1)
    yield renderer
    renderer.release()


def test_ground_truth_is_that_of_closed_form_geometry(renderer: Renderer) -> None:
    image, truth = renderer.render(full_scene()), expected()
    inner = away_from_edges(truth.instances, truth.semantic)
    sky = ~np.isfinite(truth.depth)
    assert {FLOOR, BOX, BALL, CLASS_ID["sky"]} <= set(truth.semantic[inner])
    np.testing.assert_array_equal(image.semantic[inner], truth.semantic[inner])
    np.testing.assert_array_equal(image.instances[inner], truth.instances[inner])
    assert np.isposinf(image.depth[inner & sky]).all()
    assert np.isnan(image.normals[inner & sky]).all()
    # Where a ray grazes the ball, its facets show: the sphere proper is compared where it is seen from the front.
    local, _ = rays()
    facing = -(truth.normals * local).sum(-1) / np.linalg.norm(local, axis=-1) > 0.3
    solid = inner & ~sky & facing & (truth.depth < 20)
    assert np.abs(image.depth[solid] - truth.depth[solid]).max() < 1e-3
    box_edges = (truth.semantic == BOX) & (np.abs(np.gradient(truth.normals, axis=(0, 1))[0]).sum(-1) > 1e-3)
    compared = solid & ~box_edges & ~np.roll(box_edges, 1, 1) & ~np.roll(box_edges, -1, 1)
    assert angles(image.normals, truth.normals)[compared].max() < 0.5


def test_normals_face_the_camera_and_agree_with_the_depth(renderer: Renderer) -> None:
    image = renderer.render(full_scene())
    local, _ = rays()
    solid = np.isfinite(image.depth)
    assert (np.abs(np.linalg.norm(image.normals[solid], axis=-1) - 1) < 1e-4).all()
    assert ((image.normals * local).sum(-1)[solid] < 0).all()
    points = local * np.where(solid, image.depth, np.nan)[..., None]
    from_depth = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    from_depth /= np.linalg.norm(from_depth, axis=-1, keepdims=True)
    difference = angles(image.normals, from_depth)
    # The cross product of "down" and "right" points towards the camera in the optical frame.
    assert np.nanmedian(difference) < 0.1
    assert np.nanpercentile(difference, 80) < 3


def test_colour_and_ground_truth_lie_on_the_same_pixels(renderer: Renderer) -> None:
    """A white ball in front of nothing: its mask and its picture have one centre, to a tenth of a pixel."""
    scene = make_scene(
        [ball(BALL_CENTRE, 0.2, BALL, 1)], sky_color=(0.0, 0.0, 0.0), ambient=(3.0, 3.0, 3.0), lights=[]
    )
    scene.triangles.emission[:] = 50.0
    scene.triangles.gloss[:] = 0.0
    image = renderer.render(scene)
    bright = image.radiance[..., 0] / image.radiance.max()
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    background = bright[image.semantic != BALL]
    bright = np.clip(bright - np.percentile(background, 50), 0, None)
    mask = (image.semantic == BALL).astype(float)
    for grid in (u, v):
        offset = (grid * bright).sum() / bright.sum() - (grid * mask).sum() / mask.sum()
        assert abs(offset) < 0.1


def test_holes_of_a_texture_are_seen_through(renderer: Renderer) -> None:
    fence = quad((1.0, -0.5, 0.2), (1.0, 0.5, 0.2), (1.0, 0.5, 1.2), (1.0, -0.5, 1.2), FENCE, 9, texture=0)
    image = renderer.render(make_scene([fence, floor()]))
    _, direction = rays()
    hit = POSE[:3, 3] + direction * ((1.0 - POSE[0, 3]) / direction[..., :1])
    across, up = hit[..., 1] + 0.5, hit[..., 2] - 0.2
    margin = 0.05  # a texel of the 16 and a bit, where the hole's rim is blurred
    hole = (np.abs(across - 0.5) < 0.25 - margin) & (np.abs(up - 0.5) < 0.25 - margin)
    frame = (np.abs(across - 0.5) < 0.5 - margin) & (np.abs(up - 0.5) < 0.5 - margin)
    frame &= (np.abs(across - 0.5) > 0.25 + margin) | (np.abs(up - 0.5) > 0.25 + margin)
    assert hole.sum() > 50
    assert frame.sum() > 50
    assert (image.semantic[frame] == FENCE).all()
    assert (image.semantic[hole] != FENCE).all()
    assert (image.instances[frame] == 9).all()


@pytest.mark.parametrize(
    "light", [PointLight((2.1, 0.15, 3.0), (5.0, 5.0, 5.0)), DirectionalLight((0.0, 0.0, 1.0), (2.0, 2.0, 2.0))]
)
@pytest.mark.parametrize("kind", [OpenGLRenderer, TorchRenderer])
def test_lights_cast_shadows(kind, light) -> None:
    """A plate over the floor, lit from above: the floor below it is darker than beside it."""
    plate = quad((1.8, -0.15, 0.8), (2.4, -0.15, 0.8), (2.4, 0.45, 0.8), (1.8, 0.45, 0.8), BOX, 1)
    camera = Camera(INTRINSICS, look_at((-0.5, 0.1, 0.5), (2.1, 0.15, 0.0)))
    renderer = kind(WIDTH, HEIGHT)
    image = renderer.render(make_scene([floor(), plate], lights=[light], ambient=(0.1, 0.1, 0.1), camera=camera))
    renderer.release()
    local, _ = rays()
    depth = np.where(np.isfinite(image.depth), image.depth, 0)
    place = local * depth[..., None] @ camera.world_from_camera[:3, :3].T + camera.world_from_camera[:3, 3]
    on_floor = image.semantic == FLOOR
    below = on_floor & (np.abs(place[..., 0] - 2.1) < 0.2) & (np.abs(place[..., 1] - 0.15) < 0.2)
    beside = on_floor & (np.abs(place[..., 0] - 2.1) < 0.2) & (np.abs(place[..., 1] - 1.0) < 0.2)
    assert min(below.sum(), beside.sum()) > 5
    assert image.radiance[below].mean() < 0.4 * image.radiance[beside].mean()


def test_renderers_agree_on_procedural_scenes() -> None:
    gl, fallback = OpenGLRenderer(112, 84), TorchRenderer(112, 84)
    for seed in range(2):
        scene = sample_scene(seed, WorldConfig(), 112, 84)
        a, b = gl.render(scene), fallback.render(scene)
        inner = away_from_edges(a.instances, a.semantic)
        assert (a.semantic == b.semantic)[inner].mean() > 0.99
        assert (a.instances == b.instances)[inner].mean() > 0.99
        both = np.isfinite(a.depth) & np.isfinite(b.depth)
        assert (np.abs(a.depth[both] - b.depth[both]) < 1e-3 * a.depth[both]).mean() > 0.99
        assert np.percentile(angles(a.normals, b.normals)[both], 98) < 0.5
        ratio = b.radiance[both].mean() / a.radiance[both].mean()
        assert 0.8 < ratio < 1.25
    gl.release()


def test_a_scene_is_drawn_the_same_way_twice(renderer: Renderer) -> None:
    first = renderer.render(full_scene(clouds=0.5))
    renderer.render(make_scene([floor()]))
    again = renderer.render(full_scene(clouds=0.5))
    for name in ("radiance", "depth", "normals", "semantic", "instances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_an_empty_scene_is_all_sky(renderer: Renderer) -> None:
    image = renderer.render(make_scene([floor().__class__(**{k: v[:0] for k, v in vars(floor()).items()})]))
    assert (image.semantic == CLASS_ID["sky"]).all()
    assert np.isposinf(image.depth).all()
    assert np.isfinite(image.radiance).all()


def test_a_camera_of_another_size_is_refused(renderer: Renderer) -> None:
    other = Camera(INTRINSICS.resized(80, 60), POSE)
    with pytest.raises(ValueError, match="80x60"):
        renderer.render(full_scene(camera=other))


def test_sensor_is_deterministic_and_keeps_the_size() -> None:
    radiance = np.random.default_rng(0).gamma(1.0, 0.4, (48, 65, 3)).astype(np.float32)
    pictures = [develop(radiance, np.random.default_rng(seed), SensorConfig()) for seed in (1, 1, 2)]
    assert pictures[0].shape == radiance.shape
    assert pictures[0].dtype == np.uint8
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_sensor_sets_its_own_exposure() -> None:
    plain = SensorConfig(low_light_share=0.0, jpeg_share=0.0, motion_blur_share=0.0)
    radiance = np.random.default_rng(0).gamma(1.0, 0.4, (48, 64, 3)).astype(np.float32)
    dim, bright = (develop(radiance * scale, np.random.default_rng(5), plain).mean() for scale in (0.05, 20.0))
    assert abs(dim - bright) < 3
    assert 30 < bright < 220
    assert (
        develop(radiance, np.random.default_rng(5), SensorConfig(low_light_share=1.0, jpeg_share=0.0)).mean() < bright
    )


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_sensor_survives_any_light(value: float) -> None:
    picture = develop(np.full((16, 16, 3), value, np.float32), np.random.default_rng(0), SensorConfig())
    assert picture.shape == (16, 16, 3)


def test_a_bayer_mosaic_keeps_colours_and_costs_detail() -> None:
    """Flat colours come through; a pattern of single pixels does not."""
    plain = SensorConfig(low_light_share=0.0, jpeg_share=0.0, motion_blur_share=0.0, noise=(0.0, 0.0), blur_px=(0, 0))
    mosaic = plain.model_copy(update={"bayer_share": 1.0, "grey_share": 0.0})
    plain = plain.model_copy(update={"bayer_share": 1e-9, "grey_share": 0.0})  # draws as often, never applies
    light = np.full((48, 64, 3), 0.3, np.float32) * np.array([1.0, 0.6, 0.3], np.float32)
    flat, through = (develop(light, np.random.default_rng(3), config).astype(int) for config in (plain, mosaic))
    assert np.abs(flat - through)[4:-4, 4:-4].max() <= 2
    light[::2, ::2] *= 0.2
    fine, through = (develop(light, np.random.default_rng(3), config) for config in (plain, mosaic))
    assert through[4:-4, 4:-4].std(axis=(0, 1)).mean() < 0.9 * fine[4:-4, 4:-4].std(axis=(0, 1)).mean()


def test_a_rolling_shutter_shears_image_and_truth_alike() -> None:
    radiance = np.zeros((40, 100, 3), np.float32) + 0.05
    radiance[:, 50:] = 1.0
    right = radiance[..., 0] > 0.5
    image = RenderedImage(
        radiance,
        np.where(right, np.float32(2), np.float32(1)),
        np.broadcast_to(np.float32([0, 0, -1]), radiance.shape),
        right.astype(np.uint8),
        right.astype(np.uint16),
    )
    still = SensorConfig(motion_blur_share=0.0, blur_px=(0, 0), jpeg_share=0.0, noise=(0, 0), low_light_share=0.0)
    turning = still.model_copy(update={"rolling_shutter_share": 1.0, "rolling_shutter": (0.2, 0.2)})
    sample = capture(image, INTRINSICS, np.random.default_rng(0), turning)
    edge = (sample.depth == 2).argmax(axis=1)
    assert edge.max() - edge.min() == pytest.approx(20, abs=1)
    bright = sample.rgb.mean(axis=-1) > 0.5 * (float(sample.rgb.min()) + float(sample.rgb.max()))
    np.testing.assert_array_equal(bright, sample.depth == 2)
    np.testing.assert_array_equal(sample.semantic == 1, sample.depth == 2)


def test_glare_costs_contrast() -> None:
    radiance = np.random.default_rng(0).gamma(1.0, 0.4, (48, 64, 3)).astype(np.float32)
    plain = SensorConfig(low_light_share=0.0, motion_blur_share=0.0, blur_px=(0, 0), noise=(0, 0), jpeg_share=0.0)
    veiled = plain.model_copy(update={"glare_share": 1.0})
    spread = []
    for config in (plain, veiled):
        images = [develop(radiance, np.random.default_rng(seed), config) for seed in range(8)]
        spread.append(np.mean([image[20:28, 28:36].std() for image in images]))
    assert spread[1] < 0.9 * spread[0]
