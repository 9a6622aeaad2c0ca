"""The full-size configs: what the papers' code does, setting by setting, and that what they name acts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.datasets.vkitti2 import VirtualKitti2Dataset
from diffusion_perception_ros.training.config import TrainingConfig, load_config
from diffusion_perception_ros.training.diffusion.codec import VaeCodec
from diffusion_perception_ros.training.schedule import Schedule


CONFIGS = Path(__file__).resolve().parents[2] / "config" / "train"


def full(name: str) -> TrainingConfig:
    return load_config(CONFIGS / f"{name}_full.yaml")


def test_lotus_as_its_script_trains_it() -> None:
    """train_scripts/train_lotus_d_depth.sh and utils/vkitti_dataset.py at b737e12."""
    config = full("lotus")
    optimiser, data = config.optimiser, config.data
    assert data.batch_size * optimiser.accumulation == 16 * 8
    assert [(source.kind, source.weight, source.size) for source in data.train] == [
        ("hypersim", 9, (768, 576)),
        ("vkitti2", 1, (1216, 352)),
    ]
    assert (data.train[1].benchmark_crop, data.train[1].far) == (True, 80)
    rates = [Schedule(config.run, optimiser).learning_rate(step, 0.0) for step in (0, 1, 10_000, 19_999)]
    assert rates == [3e-5] * 4, "constant, without warm-up"
    assert Schedule(config.run, optimiser).average_decay(1000) == 0, "no average"
    assert (optimiser.weight_decay, optimiser.betas, optimiser.clip_norm) == (0.01, (0.9, 0.999), 1.0)
    assert config.network.posterior == "sample"
    assert config.run.max_steps == 20_000


def test_genpercept_as_its_config_trains_it() -> None:
    """config/main_paper/...depth_bs8_per_accu_pixel_mse_ssi_grad_loss.yaml at 7cff083."""
    config = full("genpercept")
    assert config.data.batch_size * config.optimiser.accumulation == 32
    rates = [Schedule(config.run, config.optimiser).learning_rate(step, 0.0) for step in (99, 12_550, 25_000, 29_999)]
    assert rates == pytest.approx([3e-5, 3e-6, 3e-7, 3e-7]), "IterExponential: half of 24 900 steps after the warm-up"
    assert (config.objective.kind, config.objective.loss, config.network.posterior) == (
        "genpercept",
        "picture",
        "mean",
    )


@pytest.fixture
def vkitti(tmp_path: Path) -> Path:
    """One image of 1242 x 375 whose depth grows with the row, from 10 m to 384 m in steps of 1 m, sky on the left."""
    frames = tmp_path / "Scene01" / "clone" / "frames"
    for name in ("rgb", "depth"):
        (frames / name / "Camera_0").mkdir(parents=True)
    rgb = np.random.default_rng(0).integers(0, 256, (375, 1242, 3)).astype(np.uint8)
    cv2.imwrite(str(frames / "rgb" / "Camera_0" / "rgb_00000.jpg"), rgb)
    depth = np.repeat((100 * (10 + np.arange(375)))[:, None], 1242, 1).astype(np.uint16)
    depth[:, :20] = 65535
    cv2.imwrite(str(frames / "depth" / "Camera_0" / "depth_00000.png"), depth)
    return tmp_path


def test_virtual_kitti_is_cropped_to_the_benchmark_and_ends_at_80_metres(vkitti: Path) -> None:
    whole, part = VirtualKitti2Dataset(vkitti)[0], VirtualKitti2Dataset(vkitti, benchmark_crop=True, far=80)[0]
    assert part.rgb.shape == (352, 1216, 3)
    np.testing.assert_array_equal(part.rgb, whole.rgb[23:, 13:1229])  # the bottom, the middle
    assert part.depth is not None
    assert whole.depth is not None
    expected = whole.depth[23:, 13:1229]
    np.testing.assert_array_equal(part.depth, np.where(expected >= 80, np.inf, expected))
    assert np.isposinf(part.depth[:, :7]).all()
    assert np.nanmax(part.depth[np.isfinite(part.depth)]) == pytest.approx(79)


def test_every_batch_is_of_one_source_where_sources_have_sizes() -> None:
    parts = [list(range(40)), list(range(25))]
    mixture = Mixture(parts, [9, 1], [(768, 576), (1216, 352)])  # type: ignore[arg-type]
    order = mixture.order(np.random.default_rng(0), run=4)
    assert len(order) % 4 == 0
    batches = order.reshape(-1, 4)
    sizes = [{mixture.size_of(int(index)) for index in batch} for batch in batches]
    assert all(len(kinds) == 1 for kinds in sizes)
    share = np.mean([kinds == {(768, 576)} for kinds in sizes])
    assert share == pytest.approx(0.9, abs=0.06)
    flat = [{mixture.size_of(int(index))} for index in order[::4]]
    assert flat != sorted(flat, key=str), "the sources take turns"


def test_a_posterior_sample_is_mean_and_spread() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        scaling_factor=0.5,
    )
    codec, image = VaeCodec(vae), torch.rand(1, 3, 16, 16) * 2 - 1
    mean = codec.encode(image)
    drawn = torch.stack([codec.encode(image, torch.Generator().manual_seed(seed)) for seed in range(400)])
    posterior = vae.encode(image).latent_dist
    assert (drawn.mean(0) - mean).abs().max() < 0.25 * posterior.std.max()
    assert (drawn.std(0) - 0.5 * posterior.std).abs().max() < 0.1 * posterior.std.max()
