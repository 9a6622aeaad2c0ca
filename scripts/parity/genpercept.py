"""Runs GenPercept's own pipeline beside ours, on the same random weights, and prints the differences stage by stage.

    git clone https://github.com/aim-uofa/GenPercept
    python scripts/parity/genpercept.py GenPercept

Their pipeline is put together as their `run.py` does it. The only change to their code, made here in memory: the DPT
head's output class becomes a dataclass, which newer versions of transformers ask for. Where torchvision is not
installed, `published_code` stands in for it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from published_code import HEADER, Row, normalised, prepare, smooth_picture, table_rows
from safetensors.torch import load_file

from diffusion_perception_ros.export.exporter import ExportOptions, export_family
from diffusion_perception_ros.families import genpercept
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


SIZE = (128, 64)
PUBLISHED_MODES = {"normals": "normal"}
"""Our task → their mode, where the names differ."""


def published_pipeline(repository: Path, base: Path, unet_folder: Path, head_file: Path | None) -> Any:
    """Their pipeline with these weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from genpercept.genpercept_pipeline import GenPerceptPipeline
    from genpercept.models import dpt_head
    from genpercept.models.custom_unet import CustomUNet2DConditionModel
    from src.customized_modules.ddim import DDIMSchedulerCustomized
    from transformers import CLIPTextModel, CLIPTokenizer, DPTConfig

    head = None
    kind = CustomUNet2DConditionModel if head_file else UNet2DConditionModel
    unet = kind.from_pretrained(base, subfolder="unet", use_safetensors=True)
    if head_file is not None:
        del unet.conv_out
        del unet.conv_norm_out
        weights = load_file(head_file)
        config = DPTConfig.from_pretrained(repository / "hf_configs" / "dpt-sd2.1-unet-after-upsample-general")
        widths = [weights[f"neck.convs.{index}.weight"].shape for index in range(4)]
        config.neck_hidden_sizes, config.fusion_hidden_size = [shape[1] for shape in widths], widths[0][0]
        dpt_head.DepthEstimatorOutput = dataclasses.dataclass(dpt_head.DepthEstimatorOutput)
        head = dpt_head.DPTNeckHeadForUnetAfterUpsampleIdentity(config=config)
        head.load_state_dict(weights)
    unet.load_state_dict(load_file(unet_folder / "diffusion_pytorch_model.safetensors"))
    return GenPerceptPipeline(
        unet=unet.eval(),
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae", use_safetensors=True),
        scheduler=DDIMSchedulerCustomized.from_pretrained(repository / "hf_configs" / "scheduler_beta_1.0_1.0"),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder", use_safetensors=True),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        customized_head=head,
        genpercept_pipeline=True,
    )


def compare(repository: Path, folder: Path, task: str, dpt: bool) -> str:
    """Table rows for one task."""
    from family_checkpoints_gen import write_genpercept

    checkpoint, base = write_genpercept(folder / "checkpoint", folder / "base", dpt=dpt), folder / "base"
    head_file = checkpoint / genpercept.DPT_FOLDER / "model.safetensors" if dpt else None
    theirs = published_pipeline(repository, base, checkpoint / "unet", head_file)
    ours = genpercept.load(str(checkpoint), task, LoadOptions(base=str(base)))
    rgb = smooth_picture(*SIZE)
    theirs.mode = PUBLISHED_MODES.get(task, task)
    with torch.inference_mode():
        rows: list[Row] = [("encode: image latent", ours.encode(normalised(rgb)), theirs.encode_rgb(normalised(rgb)))]
        raw = theirs.single_infer(normalised(rgb), 1, None, show_pbar=False)
        (output,) = ours(normalised(rgb))
        rows.append(("one step: output in [0, 1]", output / 2 + 0.5 if task == "normals" else output, raw))
    options = ExportOptions(name=task, checkpoint="random", size=SIZE)
    export_family(ours, folder / "model", [rgb], options)
    predicted = Estimator.load(folder / "model").predict(rgb)
    published = theirs(
        Image.fromarray(rgb), processing_res=max(SIZE), mode=theirs.mode, color_map=None, show_progress_bar=False
    ).pred_np
    stage = f"`Estimator.predict` against their file, {SIZE[0]}x{SIZE[1]} image"
    rows.append((stage, *comparable(predicted, published, task)))
    return table_rows(f"GenPercept {task}{' with DPT head' if dpt else ''}", rows)


def comparable(prediction: Prediction, published: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Our prediction and their array in the same terms."""
    if task == "normals":
        assert prediction.normals is not None
        vectors = (2 * published - 1) * np.array([1, -1, -1], np.float32)
        return prediction.normals, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    if task in ("dis", "matting"):
        assert prediction.alpha is not None
        return prediction.alpha, published
    if task == "seg":  # they stop at colours: the share of pixels whose nearest colour is another
        assert prediction.semantic is not None
        labels = genpercept.RECIPES[-1].outputs[0].labels  # type: ignore[union-attr]
        colors = np.array([label.color for label in labels], np.float32) / 255
        nearest = ((published[:, :, None] - colors) ** 2).sum(axis=-1).argmin(axis=-1)
        return (prediction.semantic != nearest).astype(np.float32), np.zeros(nearest.shape, np.float32)
    assert prediction.depth_relative is not None
    return prediction.depth_relative, published


def main() -> None:
    """Prints a Markdown table."""
    repository = Path(sys.argv[1]).resolve()
    prepare(repository)
    os.chdir(repository)  # their imports name `src`
    print(HEADER)
    tasks = [(task, False) for task in ("depth", "disparity", "normals", "dis", "matting", "seg")]
    for task, dpt in [*tasks, ("disparity", True)]:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(repository, Path(folder), task, dpt), flush=True)


if __name__ == "__main__":
    main()
