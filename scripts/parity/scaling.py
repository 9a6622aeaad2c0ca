"""Runs Scaling's own network and sampling loop beside ours, on the same random weights, and prints the differences.

    git clone https://github.com/scaling-diffusion-perception/scaling-diffusion-perception
    pip install --no-deps timm
    python scripts/parity/scaling.py scaling-diffusion-perception

Nothing of their code is changed. torchvision, which they and timm import but do not use in what is compared, is
replaced by empty modules where it is not installed. `torch.randn` is made to give them our noise.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from diffusion_perception_ros.export.exporter import export_family, standard_noise
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.families import scaling
from diffusion_perception_ros.families.recipe import LoadOptions
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Prediction


ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
SIDE = 64


class EmptyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision and its modules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: Any) -> None:
        module.__version__ = "0.0"
        module.__getattr__ = lambda name: mock.MagicMock()


def import_theirs(repository: Path) -> tuple[Any, Any]:
    """`models.dit_moe` and `pipeline.moe_pipeline` of the published code."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(EmptyTorchvision())
    sys.path.insert(0, str(repository))
    from models import dit_moe  # isort: skip
    from pipeline import moe_pipeline

    return dit_moe, moe_pipeline


def their_pipeline(theirs: tuple[Any, Any], checkpoint: Path, base: Path) -> Any:
    """Their pipeline with their network, in the small size of our checkpoint."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from family_checkpoints_mm import SMALL_DIT

    dit_moe, moe_pipeline = theirs
    network = dit_moe.DiTMultiTaskMoE(
        depth=SMALL_DIT.depth,
        hidden_size=SMALL_DIT.width,
        patch_size=SMALL_DIT.patch_size,
        num_heads=16,
        upcycled=True,
        n_shared_experts=None,
        input_size=SMALL_DIT.latent_side,
        mlp_ratio=SMALL_DIT.hidden // SMALL_DIT.width,
        num_experts=SMALL_DIT.experts,
        num_experts_per_tok=2,
        in_channels=4,
    )
    network.y_embedder.extend_embedding_table(network.hidden_size)
    for name in ("conv_in_1", "conv_in_2", "conv_in_3", "conv_in_4"):  # as their update_model widens them
        setattr(network.x_embedder.proj, name, torch.nn.Conv2d(12, SMALL_DIT.width, 2, stride=2))
    network.load_state_dict(torch.load(checkpoint / scaling.WEIGHTS_FILE, weights_only=True)["ema"])
    return moe_pipeline.MoEPipeline(
        unet=network.eval(),
        vae=AutoencoderKL.from_pretrained(base / "vae", use_safetensors=True),
        scheduler=DDIMScheduler.from_pretrained(base / "scheduler"),
        text_encoder=None,
        tokenizer=None,
    )


def run_theirs(pipeline: Any, image: Tensor, prompt: Tensor, label: int, noise: Tensor) -> Tensor:
    """The picture that their `single_infer` decodes, (1, 3, H, W)."""
    with mock.patch("torch.randn", return_value=noise.clone()):
        return pipeline.single_infer(  # type: ignore[no-any-return]
            image, prompt, torch.tensor([label]), STEPS, generator=None, show_pbar=False, device="cpu"
        )


def compare(theirs: Any, checkpoint: Path, base: Path, folder: Path, task: str) -> list[str]:
    """Table rows for one task."""
    ours = scaling.load(str(checkpoint), task, LoadOptions(base=str(base)))
    if task == "amodal":  # random weights draw grey: almost white, so that the mask has both values
        for vae in (theirs.vae, ours.autoencoder.vae):
            vae.decoder.conv_out.bias.data += 0.8
    rng = np.random.default_rng(0)
    previous, rgb = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:50, 10:40] = 1
    image = _tensor(rgb)
    prompts = {"depth": torch.ones_like(image), "flow": _tensor(previous)}
    prompts["amodal"] = torch.from_numpy(mask * 2.0 - 1).float().expand(1, 3, -1, -1)
    conditions = {"flow": {"second_image": prompts["flow"]}, "amodal": {"prompt_mask": torch.from_numpy(mask * 1.0)}}
    given = {name: value.float().view(1, -1, SIDE, SIDE) for name, value in conditions.get(task, {}).items()}
    noise = standard_noise((1, ours.recipe.latent_channels, SIDE // 8, SIDE // 8), 0)
    parts = list(zip(ours.labels, noise.split(4, dim=1), strict=True))
    with torch.no_grad():
        latent = torch.cat([theirs.encode_rgb(image), theirs.encode_rgb(prompts[task])], dim=1)
        our_latent = ours.encode_prompted(image, **given)
        timestep = torch.tensor([500.0])
        outputs = [theirs.unet(torch.cat([latent, part], 1), timestep, y=torch.tensor([y])) for y, part in parts]
        prediction = torch.cat([output[:, :4] for output in outputs], dim=1)
        our_prediction = ours.denoise(latent, noise, timestep)
        pictures = [run_theirs(theirs, image, prompts[task], label, part) for label, part in parts]
        picture = torch.cat([theirs.decode_rgb(part) for part in noise.split(4, dim=1)], dim=1)
        (output,) = ours.decode(noise)
        (read,) = _read(picture.split(3, dim=1), task)
    rows = [
        ("encode: latents of picture and prompt", our_latent, latent),
        ("denoise: `DiTMultiTaskMoE` at timestep 500", our_prediction, prediction),
        ("decode: output from noise", output, read),
    ]
    model = folder / f"scaling-{task}"
    options = ExportOptions(name=model.name, checkpoint="random", size=(SIDE, SIDE), steps=STEPS)
    export_family(ours, model, [previous, rgb], options)
    estimator = Estimator.load(model)
    if task == "flow":
        estimator.predict(previous)
    predicted = estimator.predict(rgb, prompt_mask=mask if task == "amodal" else None)
    (final,) = _read(pictures, task)
    rows.append(
        (f"`Estimator.predict`, {STEPS} steps, against `single_infer`", *_as_prediction(predicted, final, task))
    )
    return [f"| Scaling {task} | {stage} | {_largest(a, b):.2g} | {_mean(a, b):.2g} |" for stage, a, b in rows]


def _tensor(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 255.0 * 2.0 - 1.0


def _read(pictures: Any, task: str) -> tuple[Tensor]:
    """Their pictures as `run_inference.py` reads them; white is 1, the rows of flow are stretched."""
    if task == "amodal":
        return (((1 - pictures[0].amin(1, keepdim=True)) / 2 / 0.2).clamp(0, 1),)
    means = [picture.mean(dim=1, keepdim=True) for picture in pictures]
    if task == "flow":
        return (torch.cat([means[0], means[1] * 512 / 384], dim=1),)
    return (means[0].clamp(-1, 1),)


def _as_prediction(predicted: Prediction, final: Tensor, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Ours, and theirs in the same unit: depth in [0, 1], flow in pixels of a picture SIDE wide, mask [0, 1]."""
    if task == "depth":
        assert predicted.depth_relative is not None
        return predicted.depth_relative, (final[0, 0].numpy() + 1) / 2
    if task == "flow":
        assert predicted.flow is not None
        return predicted.flow, final[0].permute(1, 2, 0).numpy() * 75 * SIDE / 512
    assert predicted.mask is not None
    return predicted.mask, final[0, 0].numpy()


def _largest(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def _mean(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).mean())


def main() -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT / "test" / "support"))
    from family_checkpoints_mm import write_scaling, write_scaling_base

    modules = import_theirs(Path(sys.argv[1]))
    print("| model | stage | largest | mean |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, base = write_scaling(folder / "checkpoint"), write_scaling_base(folder / "base")
        theirs = their_pipeline(modules, checkpoint, base)
        for task in ("depth", "flow", "amodal"):
            print(*compare(theirs, checkpoint, base, folder, task), sep="\n", flush=True)


if __name__ == "__main__":
    main()
