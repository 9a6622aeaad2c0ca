"""Unlabelled images with another model's answers: what is taught, and what cannot teach."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from diffusion_perception_ros.datasets.taught import LONGEST_SIDE, TaughtImages
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import UNLABELLED
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.trainer import Trainer


def write_images(folder: Path, count: int = 2) -> None:
    """Smooth random fields."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(count):
        small = rng.integers(0, 255, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = tmp_path_factory.mktemp("taught") / "images"
    write_images(images)
    return images


def test_a_sample_holds_what_the_teacher_sees(folder: Path) -> None:
    sample = TaughtImages(folder, "onestep-s", mirror=False)[0]
    said = Estimator.load("onestep-s", threads=1).predict(sample.rgb)
    assert max(sample.rgb.shape) == LONGEST_SIDE
    np.testing.assert_allclose(sample.depth, said.depth_relative, atol=1e-6)
    np.testing.assert_array_equal(sample.semantic, said.semantic)
    assert sample.intrinsics is None  # nothing may take its depth for metres


def test_only_what_the_mirror_image_confirms_is_taught(folder: Path) -> None:
    alone, averaged = TaughtImages(folder, "onestep-s", mirror=False)[0], TaughtImages(folder, "onestep-s")[0]
    assert np.isfinite(averaged.depth).mean() < np.isfinite(alone.depth).mean()
    changed = averaged.semantic != alone.semantic
    assert changed.any()
    assert (averaged.semantic[changed] == UNLABELLED).all()
    known = np.isfinite(averaged.normals).all(-1)
    np.testing.assert_allclose(np.linalg.norm(averaged.normals[known], axis=-1), 1.0, atol=1e-4)
    assert (averaged.normals * alone.normals).sum(-1)[known].min() > np.cos(np.radians(13))


def test_a_network_learns_from_unlabelled_images(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "distil.yaml"
    source = f"{{kind: images, path: {folder}, teacher: onestep-s}}"
    config.write_text(
        f"name: distilled\ndata: {{train: {source}, validation: {source}, sizes: [[64, 64]], batch_size: 2}}\n"
        "run: {max_steps: 2, threads: 1, validation_samples: 2}\n"
    )
    assert Trainer(load_config(config), tmp_path / "run").train()
    assert (tmp_path / "run" / "best" / "ema.safetensors").is_file()


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no images"):
        TaughtImages(tmp_path, "onestep-s")
    with pytest.raises(InputError, match="is no folder"):
        TaughtImages(tmp_path / "missing", "onestep-s")
