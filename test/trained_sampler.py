"""A diffusion backbone that the trainer has trained, as a model folder of three graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from diffusion_perception_ros.inference.card import CARD_NAME, SCHEMA_VERSION, sha256_of
from diffusion_perception_ros.training.checkpoint import AVERAGED, load_weights, read_checkpoint
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner


SAMPLER = {
    "scheduler": "ddim",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "trailing",
}
"""The noise schedule of `objective.kind: multi_step`."""


class _Encode(nn.Module):
    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, image: Tensor) -> Tensor:
        return self.codec.encode(image)


class _Denoise(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor) -> Tensor:
        return self.network(torch.cat([image_latent, noisy_latent], 1), timestep, 0)


class _Decode(nn.Module):
    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor) -> Tensor:
        return self.codec.decode(latent).mean(1, keepdim=True)


def write_trained_model(folder: Path, checkpoint: Path) -> Path:
    """Writes a model of relative depth and returns its folder.

    Args:
        folder: Where; its name is the model's name.
        checkpoint: Of a network without autoencoder, whose first task is depth, trained with `multi_step`.
    """
    config = TrainingConfig.model_validate(read_checkpoint(checkpoint).state["config"])
    learner = DiffusionLearner(config)
    load_weights(learner.network, checkpoint / AVERAGED)
    (width, height), codec = config.data.sizes[0], learner.codec
    image = torch.zeros(1, 3, height, width)
    latent = codec.encode(image)
    stages = {
        "encode": (_Encode(codec), {"image": image}, "image_latent"),
        "denoise": (
            _Denoise(learner.network),
            {"image_latent": latent, "noisy_latent": latent, "timestep": torch.zeros(1)},
            "prediction",
        ),
        "decode": (_Decode(codec), {"latent": latent}, "depth"),
    }
    folder.mkdir(parents=True)
    for name, (module, inputs, output) in stages.items():
        _export(module.eval(), inputs, output, folder / f"{name}.onnx")
    sampler = SAMPLER | {
        "prediction_type": config.objective.prediction_type,
        "rescale_betas_zero_snr": config.objective.prediction_type != "epsilon",
        "num_inference_steps": config.objective.num_inference_steps or 10,
        "latent_channels": codec.channels,
        "latent_downscale": codec.downscale,
    }
    card = {
        "schema_version": SCHEMA_VERSION,
        "name": folder.name,
        "family": "test",
        "description": "Trained in a test.",
        "licence": "Apache-2.0",
        "source": {"checkpoint": "none", "training_data": "toy rooms"},
        "graphs": {name: f"{name}.onnx" for name in stages},
        "sampler": sampler,
        "opset": 18,
        "precision": "fp32",
        "input": {
            "tensor": "image",
            "size": {"rule": "fixed", "width": width, "height": height},
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        "outputs": [{"task": "depth", "quantity": "relative_depth", "tensor": "depth", "range": [-1.0, 1.0]}],
        "files": {path.name: sha256_of(path) for path in sorted(folder.glob("*.onnx"))},
    }
    (folder / CARD_NAME).write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder


def _export(module: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> None:
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)
