"""Ground truth that is made only where `WorldConfig.targets` asks for it: flow, opacity, hidden parts and joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import JOINTS, FloatImage, Sample, UInt16Image
from diffusion_perception_ros.world.config import SensorConfig, Target
from diffusion_perception_ros.world.labels import CLASS_ID, LABELS
from diffusion_perception_ros.world.motion import previous_view
from diffusion_perception_ros.world.rendering.image import RenderedImage
from diffusion_perception_ros.world.rendering.projection import NEAR, camera_from_world, project
from diffusion_perception_ros.world.rendering.renderer import Renderer
from diffusion_perception_ros.world.rendering.sensor import develop
from diffusion_perception_ros.world.scene import Scene, Skeleton


ALPHA_SAMPLES = 4
"""Along each side of a pixel: opacity is counted in sixteenths."""
_GROUPS = frozenset({"furniture", "object", "person", "vehicle"})
"""What can be a foreground: windows, doors and pictures are part of the wall."""
_SMALLEST = {"foreground": 0.015, "object": 0.004}
"""Share of the image below which an object is not chosen."""
_LARGEST = 0.6
_PEOPLE_FIRST = 4.0
_CANDIDATES = 6
"""Objects whose hidden parts are looked at before one is chosen."""
_HIDDEN = 0.1
"""Share of an object that must be hidden for it to be chosen at once."""
_LIMB = 0.15
"""Metres: a joint is inside the body, and seen if the surface before it is not farther away from it than this."""


def add_targets(
    sample: Sample,
    scene: Scene,
    image: RenderedImage,
    renderer: Renderer,
    rng: np.random.Generator,
    targets: Sequence[Target],
    sensor: SensorConfig,
) -> None:
    """Adds the ground truth asked for to a sample of the scene, of which `image` is the view."""
    if "flow" in targets:
        before, sample.flow = previous_view(scene, image, renderer, rng)
        sample.previous = develop(before.radiance, rng, sensor)
    if "alpha" in targets:
        sample.alpha = foreground_alpha(scene, image, renderer)
    if "amodal" in targets:
        sample.amodal = amodal_mask(scene, image, renderer, rng)
    if "keypoints" in targets:
        sample.keypoints = keypoints(scene, image)


def object_ids(image: RenderedImage, smallest: float) -> npt.NDArray[np.int64]:
    """Instances in view that are things of their own and cover at least a share of the image, largest first."""
    area = np.bincount(image.instances.reshape(-1))
    area[0] = 0
    ids = np.flatnonzero((area >= smallest * image.instances.size) & (area <= _LARGEST * image.instances.size))
    ids = ids[np.argsort(-area[ids], kind="stable")]
    classes = (int(image.semantic[image.instances == instance][0]) for instance in ids)
    return ids[[LABELS[number].group in _GROUPS for number in classes]]


def foreground_alpha(scene: Scene, image: RenderedImage, renderer: Renderer) -> FloatImage:
    """(H, W), share of every pixel's area that shows the foreground, in steps of 1 / `ALPHA_SAMPLES`².

    The foreground is the object that covers most of the image, what lies near its middle and people counting more; 0
    everywhere if there is none. Leaves and fences are cut out of their textures sample by sample.
    """
    ids = object_ids(image, _SMALLEST["foreground"])
    if not len(ids):
        return np.zeros(image.instances.shape, np.float32)
    height, width = image.instances.shape
    down, right = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    weight = np.exp(-(down**2 + right**2)) * np.where(image.semantic == CLASS_ID["person"], _PEOPLE_FIRST, 1.0)
    chosen = max(ids, key=lambda i: weight[image.instances == i].sum())
    places = (np.arange(ALPHA_SAMPLES) + 0.5) / ALPHA_SAMPLES - 0.5
    offsets = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    return np.asarray((renderer.instances(scene, offsets) == chosen).mean(axis=0), np.float32)


def amodal_mask(scene: Scene, image: RenderedImage, renderer: Renderer, rng: np.random.Generator) -> UInt16Image:
    """(H, W), the id of one object wherever it would be seen if it stood alone, else 0; 0 everywhere without objects.

    One that is partly hidden by others is preferred.
    """
    best, hidden = np.zeros_like(image.instances), -1.0
    for instance in rng.permutation(object_ids(image, _SMALLEST["object"]))[:_CANDIDATES]:
        alone = replace(scene, triangles=scene.triangles.of_instance(int(instance)))
        whole = renderer.instances(alone, np.zeros((1, 2)))[0]
        share = 1.0 - np.count_nonzero(image.instances == instance) / max(np.count_nonzero(whole), 1)
        if share > hidden:
            best, hidden = whole, share
        if hidden >= _HIDDEN:
            break
    return best


def keypoints(scene: Scene, image: RenderedImage) -> FloatImage:
    """(people, 17, 3): u, v and visibility of everybody of whom a joint is seen, see `Sample.keypoints`."""
    somebody = [skeleton for skeleton in scene.skeletons if (image.instances == skeleton.instance).any()]
    joints = [_joints_in_view(scene, image, skeleton) for skeleton in somebody]
    return np.array([row for row in joints if (row[:, 2] == 2).any()], np.float32).reshape(-1, len(JOINTS), 3)


def _joints_in_view(scene: Scene, image: RenderedImage, skeleton: Skeleton) -> FloatImage:
    """(17, 3)."""
    camera = scene.camera.intrinsics
    view = camera_from_world(scene.camera.world_from_camera)
    points = skeleton.joints @ view[:3, :3].T + view[:3, 3]
    places = project(camera, points)
    inside = (points[:, 2] > NEAR) & (places > -0.5).all(1)
    inside &= (places < (camera.width - 0.5, camera.height - 0.5)).all(1)
    u, v = np.rint(places[inside]).astype(int).T
    is_seen = (image.instances[v, u] == skeleton.instance) & (image.depth[v, u] > points[inside, 2] - _LIMB)
    joints = np.zeros((len(JOINTS), 3), np.float32)
    joints[inside, :2] = places[inside]
    joints[inside, 2] = np.where(is_seen, 2, 1)
    return joints
