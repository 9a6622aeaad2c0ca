"""Runs published pipelines and our exported folders on images of five shapes, none of them the graph's.

    python scripts/parity/sizes.py lotus-d PATH_OF_THEIR_REPOSITORY
    python scripts/parity/sizes.py lotus-g PATH_OF_THEIR_REPOSITORY
    python scripts/parity/sizes.py genpercept PATH_OF_THEIR_REPOSITORY
    python scripts/parity/sizes.py e2e-ft PATH_OF_THEIR_REPOSITORY/Marigold
    python scripts/parity/sizes.py marigold PATH_OF_THEIR_REPOSITORY

Each family is exported once, in its default size, which is one graph for all; only the longest side is 256 instead of
768, for both. Weights are random, the noise is the same. What is compared is what a user gets: a map in the image's
size, through their resizing and through ours, both of which are part of the comparison.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from published_code import prepare, smooth_picture

from diffusion_perception_ros.export.exporter import export_family, standard_noise
from diffusion_perception_ros.export.options import ExportOptions, default_size
from diffusion_perception_ros.families.recipe import FamilyModel, LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator


IMAGES = ((640, 480), (1280, 720), (387, 513), (150, 400), (300, 200))
"""Width and height: 4:3, 16:9, portrait with odd sides, a strip, and one that both sides have to enlarge at 768."""
LONGEST = 256

Published = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 → their depth (H, W)."""


def script_of(family: str) -> Any:
    """The script beside this one; by its file, since the published packages have the same names."""
    path = Path(__file__).with_name(f"{family}.py")
    spec = importlib.util.spec_from_file_location(f"parity_{family}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lotus(variant: str, repository: Path, folder: Path) -> tuple[FamilyModel, Published]:
    """Lotus-D or G, depth."""
    script = script_of("lotus")
    from family_checkpoints import write_lotus

    from diffusion_perception_ros.families import lotus as family

    # A random number cannot be compared: their posterior gives its mean, as ours does.
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean  # type: ignore[method-assign]
    script.RESOLUTION = LONGEST
    checkpoint = write_lotus(folder / "checkpoint", variant)
    theirs = getattr(script.import_pipelines(repository), f"Lotus{variant.upper()}Pipeline").from_pretrained(
        checkpoint, safety_checker=None, use_safetensors=True
    )
    theirs.set_progress_bar_config(disable=True)

    def depth(rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        scale = min(LONGEST / width, LONGEST / height)
        noise = standard_noise((1, 4, int(height * scale) // 8, int(width * scale) // 8), 0)
        return np.asarray(script.run_theirs(theirs, rgb, noise, match_input=True)[2].mean(axis=-1))

    return family.load(str(checkpoint), "depth", LoadOptions()), depth


def genpercept(repository: Path, folder: Path) -> tuple[FamilyModel, Published]:
    """GenPercept, depth from the VAE's decoder."""
    script = script_of("genpercept")
    from family_checkpoints_gen import write_genpercept

    from diffusion_perception_ros.families import genpercept as family

    os.chdir(repository)  # their imports name `src`
    base = folder / "base"
    checkpoint = write_genpercept(folder / "checkpoint", base)
    theirs = script.published_pipeline(repository, base, checkpoint / "unet", None)

    def depth(rgb: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"mode": "depth", "color_map": None, "show_progress_bar": False}
        return np.asarray(theirs(Image.fromarray(rgb), processing_res=LONGEST, **options).pred_np)

    return family.load(str(checkpoint), "depth", LoadOptions(base=str(base))), depth


def e2e_ft(repository: Path, folder: Path) -> tuple[FamilyModel, Published]:
    """E2E-FT, depth; they stretch every map to [0, 1]."""
    script = script_of("e2e_ft")
    from family_checkpoints_gen import write_e2e_ft

    from diffusion_perception_ros.families import e2e_ft as family

    checkpoint = write_e2e_ft(folder / "checkpoint")
    theirs = script.published_pipeline(checkpoint)

    def depth(rgb: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"denoising_steps": 1, "ensemble_size": 1, "noise": "zeros", "normals": False}
        options |= {"match_input_res": True, "batch_size": 1, "color_map": None, "show_progress_bar": False}
        return np.asarray(theirs(Image.fromarray(rgb), processing_res=LONGEST, **options).depth_np)

    return family.load(str(checkpoint), "depth", LoadOptions()), depth


def marigold(repository: Path, folder: Path) -> tuple[FamilyModel, Published]:
    """Marigold, depth, one step, from our noise."""
    script = script_of("marigold")
    from family_checkpoints_gen import write_marigold

    from diffusion_perception_ros.families import marigold as family

    checkpoint = write_marigold(folder / "checkpoint", "depth")
    theirs = script.published_pipeline(checkpoint, "depth", ["depth"])

    def depth(rgb: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"denoising_steps": 1, "ensemble_size": 1, "match_input_res": True}
        options |= {"batch_size": 1, "color_map": None, "show_progress_bar": False}
        draw = torch.randn
        torch.randn = lambda shape, **_: standard_noise(tuple(shape), 0)  # type: ignore[assignment]
        try:
            return np.asarray(theirs(Image.fromarray(rgb), processing_res=LONGEST, **options).depth_np)
        finally:
            torch.randn = draw

    return family.load(str(checkpoint), "depth", LoadOptions()), depth


FAMILIES: dict[str, Callable[[Path, Path], tuple[FamilyModel, Published]]] = {
    "lotus-d": lambda repository, folder: lotus("d", repository, folder),
    "lotus-g": lambda repository, folder: lotus("g", repository, folder),
    "genpercept": genpercept,
    "e2e-ft": e2e_ft,
    "marigold": marigold,
}


def stretched(depth: np.ndarray, like: np.ndarray) -> np.ndarray:
    """By the best scale and shift: E2E-FT stretches every map to [0, 1] before it is resized."""
    scale, shift = np.polyfit(depth.ravel(), like.ravel(), 1)
    return np.asarray(scale * depth + shift)


def main() -> None:
    """Prints the rows of a Markdown table."""
    name, repository = sys.argv[1], Path(sys.argv[2]).resolve()
    prepare(repository)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, published = FAMILIES[name](repository, folder)
        model.recipe = replace(model.recipe, resolution=LONGEST)
        with torch.inference_mode():
            theirs = [published(smooth_picture(*size)) for size in IMAGES]
        options = ExportOptions(name=name, checkpoint="random", size=default_size(model.recipe))
        export_family(model, folder / "model", [smooth_picture(256, 192)], options)
        estimator = Estimator.load(folder / "model")
        print("| family | image | graph's input | correlation | mean difference |\n|---|---|---|---|---|")
        for (width, height), other in zip(IMAGES, theirs, strict=True):
            depth = estimator.predict(smooth_picture(width, height)).depth_relative
            assert depth is not None
            ours = stretched(depth, other) if name == "e2e-ft" else depth
            correlation = np.corrcoef(ours.ravel(), other.ravel())[0, 1]
            graph = "x".join(str(side) for side in estimator.card.input.size.size_for(width, height))
            difference = np.abs(ours - other.reshape(ours.shape)).mean()
            print(f"| {name} | {width}x{height} | {graph} | {correlation:.6f} | {difference:.1g} |", flush=True)


if __name__ == "__main__":
    main()
