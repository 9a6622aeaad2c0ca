"""Runs Lotus's own pipelines beside ours, on the same random weights, and prints the differences stage by stage.

    git clone https://github.com/EnVision-Research/Lotus
    python scripts/parity/lotus.py Lotus

The only change to their code, made here in memory: the VAE's posterior gives its mean where they draw a sample, since
a random number cannot be compared. Where torchvision is not installed, its tensor `resize` is torch's `interpolate`,
which is what it calls.
"""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusion_perception_ros.cli.export import check_pictures
from diffusion_perception_ros.export.exporter import ExportOptions, export_family, standard_noise
from diffusion_perception_ros.families import lotus
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


ROOT = Path(__file__).resolve().parents[2]
RESOLUTION = 256
"""Longest side; a small network needs no more."""


def import_pipelines(repository: Path) -> Any:
    """The module `pipeline` of the published code."""
    for name in ("torchvision", "tensorboard"):
        if importlib.machinery.PathFinder.find_spec(name) is None:
            _provide(name)
    sys.path.insert(0, str(repository))
    import pipeline

    return pipeline


def _provide(name: str) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    if name != "torchvision":
        return

    class InterpolationMode(enum.Enum):
        BILINEAR = "bilinear"
        BICUBIC = "bicubic"
        NEAREST = "nearest"
        NEAREST_EXACT = "nearest-exact"

    def resize(image: torch.Tensor, size: Any, mode: InterpolationMode, antialias: bool = True) -> torch.Tensor:
        smooth = mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
        options = {"antialias": antialias, "align_corners": False} if smooth else {}
        return F.interpolate(image, size=tuple(size), mode=mode.value, **options)

    transforms = types.ModuleType("torchvision.transforms")
    functional = types.ModuleType("torchvision.transforms.functional")
    transforms.InterpolationMode, functional.resize = InterpolationMode, resize  # type: ignore[attr-defined]
    sys.modules |= {"torchvision.transforms": transforms, "torchvision.transforms.functional": functional}


def run_theirs(pipeline: Any, rgb: np.ndarray, noise: torch.Tensor, match_input: bool) -> tuple[Any, ...]:
    """Image latent, U-Net output and final picture (H, W, 3) in [0, 1] of the published pipeline."""
    seen: dict[str, torch.Tensor] = {}
    hook = pipeline.unet.register_forward_hook(
        lambda module, inputs, output: seen.update(input=inputs[0], output=output[0])
    )
    angle = torch.tensor([[1.0, 0.0]])
    task = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
    image = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1.0
    extra = {"latents": noise, "num_inference_steps": 1} if pipeline.unet.config.in_channels == 8 else {}
    result = pipeline(
        rgb_in=image,
        prompt="",
        timesteps=[999],
        task_emb=task,
        output_type="np",
        processing_res=RESOLUTION,
        match_input_res=match_input,
        **extra,
    )
    hook.remove()
    return seen["input"][:, :4], seen["output"], result.images[0]


def compare(pipelines: Any, folder: Path, variant: str, task: str, rgb: np.ndarray) -> list[str]:
    """Table rows for one kind of checkpoint."""
    from family_checkpoints import write_lotus

    checkpoint = write_lotus(folder / f"{task}-{variant}", variant)
    theirs = getattr(pipelines, f"Lotus{variant.upper()}Pipeline").from_pretrained(
        checkpoint, safety_checker=None, use_safetensors=True
    )
    theirs.set_progress_bar_config(disable=True)
    ours = lotus.load(str(checkpoint), task, LoadOptions())
    width, height = RESOLUTION, int(rgb.shape[0] * RESOLUTION / rgb.shape[1])
    noise = standard_noise((1, 4, height // 8, width // 8), 0)
    resized = F.interpolate(
        torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1.0,
        size=(height, width),
        mode="bilinear",
        antialias=True,
    )
    latent, prediction, picture = run_theirs(theirs, rgb, noise, match_input=False)
    with torch.inference_mode():
        our_latent = ours.encode(resized)
        our_prediction = ours.denoise(our_latent, noise, torch.tensor([999.0]))
        (output,) = ours.decode(our_prediction)
    final = _in_unit_range(output[0].numpy(), task)
    rows = [
        ("encode: image latent", *_distance(our_latent.numpy(), latent.numpy())),
        ("denoise: U-Net output", *_distance(our_prediction.numpy(), prediction.numpy())),
        ("decode: output in [0, 1]", *_distance(final, _reduced(picture, task))),
    ]
    model = folder / f"model-{task}-{variant}"
    options = ExportOptions(name=model.name, checkpoint="random", size=(width, height))
    card = export_family(ours, model, [rgb], options)
    name = card.outputs[0].tensor
    rows.append(("ONNX against PyTorch", card.parity[f"{name}_max"], card.parity[f"{name}_mean"]))
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    _, _, full = run_theirs(theirs, small, noise, match_input=True)
    predicted = Estimator.load(model).predict(small)
    stage = f"`Estimator.predict` of {width}x{height} against their file"
    rows.append((stage, *_distance(_as_prediction(predicted, task), _as_optical(full, task))))
    return [f"| Lotus-{variant.upper()} {task} | {stage} | {float(a):.2g} | {float(b):.2g} |" for stage, a, b in rows]


def _in_unit_range(output: np.ndarray, task: str) -> np.ndarray:
    return output * 0.5 + 0.5 if task == "normals" else output


def _reduced(picture: np.ndarray, task: str) -> np.ndarray:
    """Their picture (H, W, 3) as `infer.py` stores it, (1 or 3, H, W)."""
    return picture.transpose(2, 0, 1) if task == "normals" else picture.mean(axis=-1)[None]


def _as_prediction(prediction: Prediction, task: str) -> np.ndarray:
    if task == "normals":
        assert prediction.normals is not None
        return prediction.normals.transpose(2, 0, 1)
    assert prediction.depth_relative is not None
    return prediction.depth_relative[None]


def _as_optical(picture: np.ndarray, task: str) -> np.ndarray:
    """Their picture as a `Prediction` has it: normals of unit length in the optical frame."""
    if task != "normals":
        return _reduced(picture, task)
    normals = -(2 * picture.transpose(2, 0, 1) - 1)
    return normals / np.linalg.norm(normals, axis=0)


def _distance(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    difference = np.abs(one - other)
    return float(difference.max()), float(difference.mean())


def main() -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(2)
    diffusers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # of deprecations in the published code
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean  # type: ignore[method-assign]
    sys.path.insert(0, str(ROOT / "test" / "support"))
    pipelines = import_pipelines(Path(sys.argv[1]))
    picture = cv2.resize(check_pictures(1)[0], (640, 480), interpolation=cv2.INTER_AREA)
    print("| model | stage | largest | mean |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for variant, task in (("d", "depth"), ("g", "depth"), ("d", "normals"), ("g", "normals")):
            print(*compare(pipelines, Path(folder), variant, task, picture), sep="\n", flush=True)


if __name__ == "__main__":
    main()
