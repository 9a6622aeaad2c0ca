"""From a seed to a sample: scene, image, ground truth.

A seed always gives the same sample: with `views_per_scene` v, view number seed % v of scene number seed // v.
Views that cannot be used (nothing to see, the camera's nose against a wall) are replaced by another scene that belongs
to the same seed, so that n seeds give n samples.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.motion import fixed_sensor
from diffusion_perception_ros.world.rendering.image import RenderedImage
from diffusion_perception_ros.world.rendering.renderer import Renderer, create_renderer
from diffusion_perception_ros.world.rendering.sensor import capture
from diffusion_perception_ros.world.sampling import sample_views
from diffusion_perception_ros.world.scene import Scene
from diffusion_perception_ros.world.targets import add_targets


MAX_ATTEMPTS = 12
"""Scenes tried for one seed before giving up."""
NOSE_DISTANCE = 0.12
"""Metres; a frame mostly nearer than this shows nothing but a blurred surface."""

_logger = logging.getLogger(__name__)


@dataclass
class SeededSample:
    """A sample with what its making tells."""

    sample: Sample
    tags: list[str]
    rejected: list[str]
    """Scenes of this seed that were replaced: `<scene seed>: <reason>`."""


def render_sample(seed: int, config: WorldConfig, width: int, height: int, supersample: int = 1) -> Sample:
    """The sample that belongs to a seed. The renderer is kept for the next call of this process.

    Raises:
        InputError: none of the scenes tried for this seed could be used.
    """
    return render_seed(seed, config, shared_renderer(width, height, supersample)).sample


def render_seed(seed: int, config: WorldConfig, renderer: Renderer) -> SeededSample:
    """As `render_sample`, with a renderer of one's own and the reasons for rejected scenes.

    With `config.views_per_scene` above one, all the views of the scene are drawn; `render_seeds` has use for them.
    """
    return next(render_seeds([seed], config, renderer))


def render_seeds(seeds: Iterable[int], config: WorldConfig, renderer: Renderer) -> Iterator[SeededSample]:
    """The samples of several seeds in order; those of one scene that follow each other are drawn together.

    Raises:
        InputError: none of the scenes tried for a seed could be used.
    """
    views = config.views_per_scene
    for number, group in itertools.groupby(seeds, lambda seed: seed // views):
        drawn = _draw(number, config, renderer, views)
        for seed in group:
            yield _first_usable(seed, drawn, config, renderer)


@dataclass
class _Drawn:
    """A scene as its cameras see it; without views, the reason why it cannot be built."""

    scene_seed: int
    views: list[tuple[Scene, RenderedImage]]
    reason: str = ""


def _draw(scene_seed: int, config: WorldConfig, renderer: Renderer, count: int) -> _Drawn:
    try:
        scenes = sample_views(scene_seed, config, renderer.width, renderer.height, count)
        return _Drawn(scene_seed, list(zip(scenes, renderer.render_views(scenes), strict=True)))
    except (ArithmeticError, LookupError, ValueError) as error:
        if isinstance(error, InputError):  # a mesh folder or config that is wrong for every seed
            raise
        _logger.warning("scene %d failed: %r", scene_seed, error)
        return _Drawn(scene_seed, [], repr(error))


def _first_usable(seed: int, drawn: _Drawn, config: WorldConfig, renderer: Renderer) -> SeededSample:
    """The seed's view of the scene drawn for it, or the first usable one of scenes that replace it."""
    number = seed % config.views_per_scene
    rejected: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        if attempt > 0:
            drawn, number = _draw(_replacement(seed, attempt), config, renderer, 1), 0
        reason: str | None = drawn.reason
        if drawn.views:
            scene, image = drawn.views[number]
            rng = np.random.default_rng([drawn.scene_seed, 1 + number])
            sensor = fixed_sensor(config.sensor, rng) if "flow" in config.targets else config.sensor
            sample = capture(image, scene.camera.intrinsics, rng, sensor, name=f"seed {seed}")
            reason = _fault(image, sample.rgb)
        if reason is None:
            add_targets(sample, scene, image, renderer, rng, config.targets, sensor)
            return SeededSample(sample, scene.tags, rejected)
        rejected.append(f"{drawn.scene_seed}: {reason}")
    raise InputError(f"Seed {seed} gave no usable scene in {MAX_ATTEMPTS} attempts ({'; '.join(rejected)}).")


@functools.cache
def shared_renderer(width: int, height: int, supersample: int) -> Renderer:
    """The renderer that this process keeps for images of one size."""
    return create_renderer(width, height, supersample)


def _replacement(seed: int, attempt: int) -> int:
    """The seed of a scene instead of an unusable one, far above those that anybody counts through."""
    return (1 << 32) + int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


def _fault(image: RenderedImage, rgb: np.ndarray[Any, Any]) -> str | None:
    """Why a frame is of no use, or None."""
    seen = np.isfinite(image.depth)
    # A sum is finite only if its terms are; only the sky may be without normals.
    undirected = np.isnan(image.normals[..., 0] + image.normals[..., 1] + image.normals[..., 2])
    if np.isnan(image.depth.min()) or not np.isfinite(image.radiance.sum()) or (undirected & seen).any():
        return "broken geometry"
    if seen.mean() < 0.15:
        return "hardly anything but sky"
    if (image.depth < NOSE_DISTANCE).mean() > 0.25:
        return "too near"
    stuff = np.bincount(image.semantic[image.instances == 0], minlength=1)
    things = np.bincount(image.instances.ravel(), minlength=2)[1:]
    if max(stuff.max(), things.max()) > 0.97 * image.depth.size:
        return "a single surface"
    if rgb.std() < 4.0:
        return "flat image"
    return None
