"""Runs E2E-FT's own pipeline beside ours, on the same random weights, and prints the differences stage by stage.

    git clone https://github.com/VisualComputingInstitute/diffusion-e2e-ft
    python scripts/parity/e2e_ft.py diffusion-e2e-ft/Marigold

Nothing of their code is changed. Where torchvision is not installed, `published_code` stands in for it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from published_code import HEADER, Row, normalised, prepare, smooth_picture, table_rows

from diffusion_perception_ros.export.exporter import ExportOptions, export_family
from diffusion_perception_ros.families import e2e_ft
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator


SIZE = (128, 64)


def published_pipeline(checkpoint: Path) -> Any:
    """Their pipeline as `run.py` puts it together, with `--timestep_spacing trailing`."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from marigold.marigold_pipeline import MarigoldPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    return MarigoldPipeline(
        unet=UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet", use_safetensors=True),
        vae=AutoencoderKL.from_pretrained(checkpoint, subfolder="vae", use_safetensors=True),
        scheduler=DDIMScheduler.from_pretrained(checkpoint, subfolder="scheduler", timestep_spacing="trailing"),
        text_encoder=CLIPTextModel.from_pretrained(checkpoint, subfolder="text_encoder", use_safetensors=True),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint, subfolder="tokenizer"),
    )


def compare(folder: Path, task: str) -> str:
    """Table rows for one task."""
    from family_checkpoints_gen import write_e2e_ft

    checkpoint = write_e2e_ft(folder / "checkpoint")
    theirs, ours = published_pipeline(checkpoint), e2e_ft.load(str(checkpoint), task, LoadOptions())
    rgb = smooth_picture(*SIZE)
    is_normals = task == "normals"
    with torch.inference_mode():
        rows: list[Row] = [("encode: image latent", ours.encode(normalised(rgb)), theirs.encode_rgb(normalised(rgb)))]
        raw = theirs.single_infer(normalised(rgb), 1, show_pbar=False, noise="zeros", normals=is_normals)
        rows.append(("one step: output", ours(normalised(rgb))[0], raw))
    export_family(ours, folder / "model", [rgb], ExportOptions(name=task, checkpoint="random", size=SIZE))
    published = theirs(
        Image.fromarray(rgb),
        denoising_steps=1,
        ensemble_size=1,
        processing_res=max(SIZE),
        match_input_res=True,
        batch_size=1,
        color_map=None,
        show_progress_bar=False,
        noise="zeros",
        normals=is_normals,
    )
    predicted = Estimator.load(folder / "model").predict(rgb)
    stage = f"`Estimator.predict` against their file, {SIZE[0]}x{SIZE[1]} image"
    if is_normals:
        assert predicted.normals is not None
        vectors = -published.normal_np.transpose(1, 2, 0)
        rows.append((stage, predicted.normals, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)))
    else:
        assert predicted.depth_relative is not None
        depth = predicted.depth_relative
        stretched = (depth - depth.min()) / (depth.max() - depth.min())  # they do, per image
        rows.append((f"{stage}, ours stretched to [0, 1] as theirs is", stretched, published.depth_np))
    return table_rows(f"E2E-FT {task}", rows)


def main() -> None:
    """Prints a Markdown table."""
    prepare(Path(sys.argv[1]).resolve())
    print(HEADER)
    for task in ("depth", "normals"):
        with tempfile.TemporaryDirectory() as folder:
            print(compare(Path(folder), task), flush=True)


if __name__ == "__main__":
    main()
