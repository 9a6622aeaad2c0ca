"""Small GenPercept, Marigold and E2E-FT checkpoints with random weights, in the published layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from family_checkpoints import TWO_LEVELS, write_model_index, write_sd2_parts
from safetensors.torch import load_file, save_file

from diffusion_perception_ros.families.dpt_head import DptHead


PUBLISHED_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "clip_sample": False,
    "steps_offset": 1,
}
PIPELINES = {
    "depth": "MarigoldDepthPipeline",
    "normals": "MarigoldNormalsPipeline",
    "appearance": "MarigoldIntrinsicsPipeline",
    "lighting": "MarigoldIntrinsicsPipeline",
}
TARGETS = {"appearance": ["albedo", "material"], "lighting": ["albedo", "shading", "residual"]}
_GAIN = 2.0
"""Random networks give nearly grey pictures: their last convolution is made this much stronger."""


def write_marigold(folder: Path, task: str, lcm: bool = False, seed: int = 0, **index: Any) -> Path:
    """A Marigold checkpoint that diffusers' own pipelines load too; its U-Net has two levels.

    Args:
        index: Further fields of `model_index.json`.
    """
    targets = TARGETS.get(task, [task])
    _write_stable_diffusion(folder, 4 + 4 * len(targets), 4 * len(targets), seed, **TWO_LEVELS)
    if lcm:
        LCMScheduler(**PUBLISHED_SCHEDULE, timestep_spacing="leading").save_pretrained(folder / "scheduler")
    else:
        scheduler = DDIMScheduler(**PUBLISHED_SCHEDULE, timestep_spacing="trailing", rescale_betas_zero_snr=True)
        scheduler.save_pretrained(folder / "scheduler")
    _write_index(folder, PIPELINES[task], "LCMScheduler" if lcm else "DDIMScheduler")
    settings: dict[str, Any] = {"default_denoising_steps": 4, "default_processing_resolution": 768}
    if task == "depth":
        settings |= {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True}
    if task == "normals":
        settings |= {"prediction_type": "normals", "use_full_z_range": True}
    if task in TARGETS:
        settings["prediction_type"] = "intrinsics"
        settings["target_properties"] = {"target_names": targets, **{name: {} for name in targets}}
    _add_to_index(folder, settings | index)
    return folder


def write_e2e_ft(folder: Path, seed: int = 0) -> Path:
    """An E2E-FT checkpoint; depth and normals have the same layout."""
    _write_stable_diffusion(folder, 8, 4, seed, **TWO_LEVELS)
    DDIMScheduler(**PUBLISHED_SCHEDULE, timestep_spacing="leading").save_pretrained(folder / "scheduler")
    _write_index(folder, "MarigoldPipeline", "DDIMScheduler")
    return folder


def write_genpercept(folder: Path, base: Path, unets: Sequence[str] = ("unet",), dpt: bool = False) -> Path:
    """GenPercept's U-Nets and, elsewhere, the Stable Diffusion 2.1 that they need.

    Args:
        base: Becomes the base checkpoint, with a U-Net of its own, which is not asked for.
        unets: Sub-folders, `unet_depth_v2` and so on, or `unet` for a repository of one task.
        dpt: The last U-Net has no last layers, and there is a DPT head; it takes all four levels of a U-Net.
    """
    _write_stable_diffusion(base, 4, 4, seed=90, **({} if dpt else TWO_LEVELS))
    for seed, name in enumerate(unets):
        torch.manual_seed(seed)
        config = {**UNet2DConditionModel.load_config(base / "unet"), "_name_or_path": name}
        unet = UNet2DConditionModel.from_config(config)
        _strengthen(unet.conv_out)
        unet.save_pretrained(folder / name)
    if dpt:
        weights = folder / unets[-1] / "diffusion_pytorch_model.safetensors"
        save_file(
            {k: v for k, v in load_file(weights).items() if not k.startswith(("conv_out", "conv_norm"))}, weights
        )
        write_dpt_head(folder / "dpt_head_identity", unet.config.block_out_channels)
    return folder


def write_dpt_head(folder: Path, block_out_channels: Sequence[int], fusion: int = 32) -> None:
    """`model.safetensors`, without a config."""
    head = DptHead(block_out_channels, fusion)
    folder.mkdir(parents=True)
    save_file(head.state_dict(), folder / "model.safetensors")


def _write_stable_diffusion(folder: Path, in_channels: int, out_channels: int, seed: int, **unet: Any) -> None:
    write_sd2_parts(folder, in_channels=in_channels, seed=seed, out_channels=out_channels, **unet)
    for kind, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        network = kind.from_pretrained(folder / name)
        _strengthen(network.conv_out if name == "unet" else network.decoder.conv_out)
        network.save_pretrained(folder / name)


def _strengthen(convolution: torch.nn.Conv2d) -> None:
    with torch.no_grad():
        convolution.weight.mul_(_GAIN)


def _write_index(folder: Path, class_name: str, scheduler: str) -> None:
    write_model_index(
        folder,
        class_name,
        unet=("diffusers", "UNet2DConditionModel"),
        vae=("diffusers", "AutoencoderKL"),
        text_encoder=("transformers", "CLIPTextModel"),
        tokenizer=("transformers", "CLIPTokenizer"),
        scheduler=("diffusers", scheduler),
    )


def _add_to_index(folder: Path, fields: dict[str, Any]) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
