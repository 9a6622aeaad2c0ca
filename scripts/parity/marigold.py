"""Runs Marigold's own pipelines beside ours, on the same random weights and noise, and prints the differences.

    git clone https://github.com/prs-eth/Marigold
    python scripts/parity/marigold.py Marigold

Nothing of their code is changed. Where torchvision is not installed, `published_code` stands in for it. The pipelines
of diffusers are compared in `test/families/test_families_marigold.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from published_code import HEADER, Row, normalised, prepare, smooth_picture, table_rows

from diffusion_perception_ros.families import marigold
from diffusion_perception_ros.families.recipe import LoadOptions


SIZE = (128, 64)
PIPELINES = {
    "depth": "MarigoldDepthPipeline",
    "normals": "MarigoldNormalsPipeline",
    "appearance": "MarigoldIIDPipeline",
    "lighting": "MarigoldIIDPipeline",
}


def published_pipeline(checkpoint: Path, task: str, targets: list[str]) -> Any:
    """Their pipeline with these weights."""
    import marigold as published
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    extra = {"target_properties": {"target_names": targets}} if PIPELINES[task] == "MarigoldIIDPipeline" else {}
    return getattr(published, PIPELINES[task])(
        unet=UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet", use_safetensors=True),
        vae=AutoencoderKL.from_pretrained(checkpoint, subfolder="vae", use_safetensors=True),
        scheduler=DDIMScheduler.from_pretrained(checkpoint, subfolder="scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(checkpoint, subfolder="text_encoder", use_safetensors=True),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint, subfolder="tokenizer"),
        **extra,
    )


def compare(folder: Path, task: str) -> str:
    """Table rows for one task."""
    from diffusers import DDIMScheduler
    from family_checkpoints_gen import write_marigold

    checkpoint = write_marigold(folder / "checkpoint", task)
    ours = marigold.load(str(checkpoint), task, LoadOptions())
    theirs = published_pipeline(checkpoint, task, list(ours.output_names))
    image = normalised(smooth_picture(*SIZE))
    scheduler = DDIMScheduler.from_pretrained(checkpoint, subfolder="scheduler")
    shape = (1, ours.recipe.latent_channels, SIZE[1] // 8, SIZE[0] // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        latent = ours.encode(image)
        rows: list[Row] = [("encode: image latent", latent, theirs.encode_rgb(image))]
        for steps in (1, 4):
            raw = theirs.single_infer(image, steps, torch.Generator().manual_seed(7), show_pbar=False)
            scheduler.set_timesteps(steps)
            noisy = noise
            for timestep in scheduler.timesteps:
                prediction = ours.denoise(latent, noisy, timestep.float()[None])
                noisy = scheduler.step(prediction, timestep, noisy).prev_sample
            rows.append((f"{steps} steps: output", torch.cat(ours.decode(noisy), dim=1), raw))
            if steps == 1:
                rows.append(("fused step: output", torch.cat(ours(image, noise), dim=1), raw))
    return table_rows(f"Marigold {task}", rows)


def main() -> None:
    """Prints a Markdown table."""
    prepare(Path(sys.argv[1]).resolve())
    print(HEADER)
    for task in PIPELINES:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(Path(folder), task), flush=True)


if __name__ == "__main__":
    main()
