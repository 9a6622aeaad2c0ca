"""Several views of one scene, and renderers of several sizes in one process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.world.config import SceneMixture, WorldConfig
from diffusion_perception_ros.world.generate import render_sample, render_seed, render_seeds
from diffusion_perception_ros.world.rendering.opengl import OpenGLRenderer
from diffusion_perception_ros.world.sampling import sample_scene, sample_views


SIZE = (96, 72)
VIEWS = 3


def only(kind: str) -> WorldConfig:
    weights = {name: float(name == kind) for name in SceneMixture().weights()}
    return WorldConfig(mixture=SceneMixture(**weights), views_per_scene=VIEWS)


def assert_same(a: Sample, b: Sample) -> None:
    for name in ("rgb", "depth", "normals", "semantic", "instances"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_renderers_of_several_sizes_take_turns() -> None:
    """Each draws in a context of its own, whichever was made or used last."""
    sizes = ((160, 120), (64, 48))
    first = [render_sample(3, WorldConfig(), *size) for size in sizes]
    for size, sample in zip(sizes, first, strict=True):
        assert_same(render_sample(3, WorldConfig(), *size), sample)


@pytest.mark.parametrize("kind", ["desk", "room", "street", "nature"])
def test_views_share_the_scene_and_nothing_else(kind: str) -> None:
    config = only(kind)
    views = sample_views(4, config, *SIZE, VIEWS)
    single = sample_scene(4, config, *SIZE)
    np.testing.assert_array_equal(views[0].triangles.positions, single.triangles.positions)
    np.testing.assert_array_equal(views[0].camera.world_from_camera, single.camera.world_from_camera)
    assert views[0].lights == single.lights
    for other in views[1:]:
        assert other.triangles is views[0].triangles
        assert not np.array_equal(other.camera.world_from_camera, single.camera.world_from_camera)
        assert other.lights != single.lights
        assert len(other.lights) == len(single.lights)


def test_views_drawn_together_look_as_if_drawn_alone() -> None:
    views = sample_views(2, only("room"), *SIZE, VIEWS)
    renderer = OpenGLRenderer(*SIZE)
    for scene, together in zip(views, renderer.render_views(views), strict=True):
        alone = renderer.render(scene)
        for name in ("depth", "normals", "semantic", "instances"):
            np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
        assert np.abs(together.radiance - alone.radiance).mean() < 0.1 * alone.radiance.mean()
    renderer.release()


def test_a_seed_is_one_view_of_a_scene_however_it_is_asked_for() -> None:
    config, renderer = only("desk"), OpenGLRenderer(*SIZE)
    together = list(render_seeds(range(5, 10), config, renderer))
    for seed in (5, 7):
        assert_same(together[seed - 5].sample, render_seed(seed, config, renderer).sample)
    assert [one.sample.name for one in together] == [f"seed {seed}" for seed in range(5, 10)]
    depths = [one.sample.depth for one in together]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(depths))
    renderer.release()
