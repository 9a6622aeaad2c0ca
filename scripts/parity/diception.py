"""Runs DICEPTION's own model beside ours, on the same random weights, and prints the differences stage by stage.

    git clone https://github.com/aim-uofa/Diception
    pip install colorlog
    python scripts/parity/diception.py Diception

Changes to their code, all made here in memory: the VAE's posterior gives its mean where they draw a sample,
`.to("cuda")` stays on the CPU, the noise is ours, the layers of the points have the small checkpoint sizes, and their
sine, cosine and what follows are computed in float32, as everything else here; the phases stay rounded to bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from diffusion_perception_ros.export.exporter import export_family, standard_noise
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.families import diception
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.card import read_card, write_card
from diffusion_perception_ros.inference.estimator import Estimator


ROOT = Path(__file__).resolve().parents[2]
SIDE = 64
POINTS = [[13.0, 40.0, 1.0], [50.5, 20.0, 1.0]]
"""u, v in pixels of the picture, inside."""


def their_model(repository: Path, checkpoint: Path, base: Path) -> Any:
    """Their `RenderNet` with their way of loading the weights."""
    sys.path.insert(0, str(repository))
    from models import Renderer

    settings = argparse.Namespace(pretrained_model_path=str(base), guidance_scale=1.0, num_inference_steps=1, seed=0)
    to = Tensor.to
    with mock.patch.object(Tensor, "to", lambda self, *args, **kw: to(self, *[a for a in args if a != "cuda"], **kw)):
        model = Renderer.RenderNet(settings)
    state = torch.load(checkpoint / "DICEPTION_v1.pth", weights_only=True)
    hidden, features = state["point_embedder"]["0.weight"].shape
    width = state["seg_embeddings"]["weight"].shape[1]
    model.point_embedder = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, width))
    model.seg_embeddings, model.not_seg_embeddings = nn.Embedding(1, width), nn.Embedding(1, width)
    for part in ("transformer", "point_embedder", "not_seg_embeddings", "seg_embeddings"):
        getattr(model, part).load_state_dict(state[part], strict=False)
    model.positional_encoding_gaussian_matrix = state["positional_encoding_gaussian_matrix"]
    model = model.to("cpu", torch.float32)
    model.positional_encoding_gaussian_matrix = model.positional_encoding_gaussian_matrix.bfloat16()
    model.set_inference_mode()
    model.set_progress_bar_config = None
    model._progress_bar_config = {"disable": True}
    return model


def run_theirs(model: Any, image: Tensor, prompt: str, points: Tensor, noise: Tensor, steps: int, scale: float) -> Any:
    """Their picture (1, 3, H, W) in [0, 1]."""
    model.args.num_inference_steps, model.args.guidance_scale = steps, scale
    inputs = {
        "input_images": image,
        "prompt": [prompt],
        "coor_point": points[..., :2],
        "point_labels": points[..., 2:],
    }
    with in_float32(), mock.patch("models.Renderer.randn_tensor", return_value=noise.clone()):
        return model(inputs)["images"]


def with_guidance(model: Path, scale: float) -> Estimator:
    """The exported model with another scale on its card."""
    card = read_card(model)
    assert card.sampler is not None
    sampler = card.sampler.model_copy(update={"guidance_scale": scale})
    write_card(card.model_copy(update={"sampler": sampler}), model)
    return Estimator.load(model)


def in_float32() -> Any:
    """Sine and cosine of bfloat16 phases in float32."""
    sine, cosine = torch.sin, torch.cos
    return mock.patch.multiple("torch", sin=lambda x: sine(x.float()), cos=lambda x: cosine(x.float()))


def compare(theirs: Any, checkpoint: Path, base: Path, folder: Path, task: str) -> list[str]:
    """Table rows for one task."""
    settings = {"prompts": str(folder / "prompts.safetensors")} | ({"class": "person"} if task == "semantic" else {})
    ours = diception.load(str(checkpoint), task, LoadOptions(base=str(base), settings=settings))
    if task == "semantic":  # random weights draw grey: darker, so that there is background
        for vae in (theirs.vae, ours.autoencoder.vae):
            vae.decoder.conv_out.bias.data -= 0.7
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    image = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1.0
    noise = standard_noise((1, 16, SIDE // 8, SIDE // 8), 0)
    points = torch.zeros(1, 5, 3)
    given = {}
    if task == "segmentation":
        # As the evaluation's collator: the row of a pixel, then its column.
        points[0, :2] = torch.tensor([[(v + 0.5) / SIDE, (u + 0.5) / SIDE, label] for u, v, label in POINTS])
        given = {"points": points}
    timestep = torch.tensor([700.0])
    with torch.no_grad():
        text, _, pooled, _ = theirs.encode_prompt(*[ours.recipe.prompt] * 3, device="cpu")
        with in_float32():
            tokens = theirs.get_positional_encoding(points[..., :2], points[..., 2:])
        latent = theirs.vae_encode(image)
        velocity = theirs.transformer(
            hidden_states=noise,
            add_hidden_states=latent,
            point_embeds=tokens,
            timestep=timestep,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        rows = [
            ("text: three encoders", ours.tokens[:1], text),
            ("pooled text", ours.pooled[:1], pooled),
            ("points", ours.point_embedder(points), tokens),
            ("encode: image latent", ours.encode(image), latent),
            ("denoise: transformer at timestep 700", ours.denoise(latent, noise, timestep, **given), velocity),
            ("decode: output from noise", ours.decode(noise)[-1], _read(theirs.vae_decode(noise), task)),
        ]
    model = folder / f"diception-{task}"
    options = ExportOptions(name=model.name, checkpoint="random", size=(SIDE, SIDE), steps=4)
    export_family(ours, model, [rgb, rgb[::-1].copy()], options)
    for steps, scale in ((1, 1.0), (4, 2.0), (28, 2.0)):
        estimator = with_guidance(model, scale)
        predicted = estimator.predict(rgb, points=POINTS if given else None, steps=steps)
        picture = run_theirs(theirs, image, ours.recipe.prompt, points, noise, steps, scale)
        values = _as_prediction(predicted, picture, task)
        if values is not None:
            rows.append((f"`Estimator.predict`, {steps} steps, guidance {scale:g}, against `RenderNet`", *values))
    return [f"| DICEPTION {task} | {stage} | {_largest(a, b):.2g} | {_mean(a, b):.2g} |" for stage, a, b in rows]


def _read(picture: Tensor, task: str) -> Tensor:
    if task in ("disparity", "segmentation"):
        return picture.mean(dim=1, keepdim=True)
    return 2 * picture - 1 if task == "normals" else picture


def _as_prediction(predicted: Any, picture: Tensor, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Ours, and theirs in the same meaning; None for tasks whose outputs are sets of objects."""
    theirs = picture[0].numpy()
    if task == "disparity":
        return predicted.depth_relative, theirs.mean(axis=0)
    if task == "segmentation":
        return predicted.mask, theirs.mean(axis=0)
    if task == "normals":  # theirs are (left, up, towards the camera), a `Prediction`'s (right, down, forward)
        normals = -(2 * theirs - 1)
        return predicted.normals.transpose(2, 0, 1), normals / np.linalg.norm(normals, axis=0)
    if task == "semantic":
        return predicted.semantic == 1, theirs.max(axis=0) > diception.BACKGROUND
    return None


def _largest(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).max())


def _mean(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


def main() -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(2)
    diffusers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean  # type: ignore[method-assign]
    sys.path.insert(0, str(ROOT / "test" / "support"))
    from family_checkpoints_mm import write_diception, write_sd3

    print("| model | stage | largest | mean |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = write_sd3(folder / "base")
        checkpoint = write_diception(folder / "checkpoint", base)
        theirs = their_model(Path(sys.argv[1]), checkpoint, base)
        for task in diception.PROMPTS:
            print(*compare(theirs, checkpoint, base, folder, task), sep="\n", flush=True)


if __name__ == "__main__":
    main()
