"""Smaller stand-ins for the VAE, which takes most of a one-step model's time, and what they cost in accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.onnx_check import Differences, Feed, FloatArray
from diffusion_perception_ros.families.autoencoder import Autoencoder, load_tiny_autoencoder
from diffusion_perception_ros.families.recipe import FamilyModel


class LinearDecoder(nn.Module):
    """Encodes with a whole VAE, decodes each cell of the latent to one pixel by a linear map: 1/8 of the size.

    A latent is close to a shrunken picture: a matrix of 3 x (c + 1) numbers gives the VAE's picture, averaged over
    each cell, well enough for maps without fine detail.
    """

    def __init__(self, autoencoder: Autoencoder, latents: Tensor) -> None:
        """Fits the map by least squares to what the VAE makes of `latents`, (B, c, h, w)."""
        super().__init__()
        self.autoencoder = autoencoder
        with torch.inference_mode():
            pictures = torch.cat([autoencoder.decode(latent[None]).clamp(-1.0, 1.0) for latent in latents])
            cells = F.interpolate(pictures, latents.shape[2:], mode="area")
            inputs = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1)
            columns, targets = (tensor.movedim(1, 3).flatten(0, 2) for tensor in (inputs, cells))
            solution = torch.linalg.lstsq(columns, targets).solution.T  # (3, c + 1)
        self.map = nn.Conv2d(latents.shape[1], 3, 1).requires_grad_(False)
        self.map.weight.copy_(solution[:, :-1, None, None])
        assert self.map.bias is not None
        self.map.bias.copy_(solution[:, -1])
        del autoencoder.vae.decoder  # its weights need not be kept

    def encode(self, image: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.autoencoder.encode(image)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, c, h, w) → (B, 3, h, w), about [-1, 1]."""
        return self.map(latent)  # type: ignore[no-any-return]


def use_tiny_vae(model: FamilyModel, checkpoint: str, feeds: Sequence[Feed]) -> dict[str, float]:
    """Puts an AutoencoderTiny in the place of the model's VAE.

    Args:
        checkpoint: Folder or hub id of the AutoencoderTiny.
        feeds: Inputs of `FamilyModel.forward` to measure on.

    Returns:
        How far the outputs move, as `tiny_vae_<output>_max` and `_mean`.

    Raises:
        InputError: the model has no VAE, or the tiny one cannot be loaded or has other latents.
    """
    _vae_of(model)
    tiny = load_tiny_autoencoder(checkpoint, model.recipe)
    before = _run(model, feeds)
    model.autoencoder = tiny
    return _moved(model, feeds, before, "tiny_vae_")


def use_linear_decoder(model: FamilyModel, feeds: Sequence[Feed]) -> dict[str, float]:
    """Puts a `LinearDecoder` in the place of the VAE's decoder; outputs then have 1/8 of the picture's size.

    The map is fitted to every second of `feeds` and measured on the others.

    Returns:
        How far the outputs move, as `no_vae_<output>_max` and `_mean`.

    Raises:
        InputError: the model has no VAE, or does not decode with it.
    """
    vae = _vae_of(model)
    if not model.has_picture_latent:
        raise InputError(f"this {model.recipe.family} model does not decode a latent: leave '--vae none' out")
    before = _run(model, feeds[1::2])
    with torch.inference_mode():
        latents = torch.cat([model.one_step(**feed) for feed in feeds[::2]])
    separate = latents.reshape(-1, model.recipe.vae_channels, *latents.shape[2:])
    model.autoencoder = LinearDecoder(vae, separate.clone())
    return _moved(model, feeds[1::2], before, "no_vae_")


def _vae_of(model: FamilyModel) -> Autoencoder:
    autoencoder = getattr(model, "autoencoder", None)
    if not isinstance(autoencoder, Autoencoder):
        raise InputError(f"{model.recipe.family} has no VAE that could be exchanged: leave --vae out")
    return autoencoder


def _run(model: FamilyModel, feeds: Sequence[Feed]) -> list[list[FloatArray]]:
    """Outputs of the single step for every feed."""
    with torch.inference_mode():
        return [[tensor.numpy() for tensor in model(**feed)] for feed in feeds]


def _moved(model: FamilyModel, feeds: Sequence[Feed], before: list[list[FloatArray]], prefix: str) -> dict[str, float]:
    differences = Differences()
    for old, new in zip(before, _run(model, feeds), strict=True):
        enlarged = [
            F.interpolate(torch.from_numpy(one), other.shape[2:], mode="bilinear").numpy()
            if one.shape != other.shape
            else one
            for one, other in zip(new, old, strict=True)
        ]
        differences.add(model.output_names, enlarged, old)
    return differences.summary(prefix)
