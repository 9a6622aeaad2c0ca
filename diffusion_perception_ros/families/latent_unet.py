"""What Lotus, GenPercept, Marigold and E2E-FT are made of: a VAE around a Stable Diffusion 2 U-Net, its text empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.autoencoder import Autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.loading import check_config, load_network
from diffusion_perception_ros.families.recipe import FamilyModel, Recipe


class LatentUNet(FamilyModel):
    """Stacks the latents that the recipe's `network_inputs` names and runs the U-Net on them.

    Subclasses implement `decode`, and `clean_latent` where one step is more than a change of sign.
    """

    def __init__(
        self,
        recipe: Recipe,
        autoencoder: Autoencoder,
        unet: UNet2DConditionModel,
        text: Tensor,
        class_labels: Tensor | None = None,
    ) -> None:
        """
        Args:
            text: (1, tokens, width), what the U-Net attends to.
            class_labels: (1, n), for U-Nets with a class embedding.
        """
        super().__init__(recipe)
        self.autoencoder = autoencoder
        self.unet = unet
        self.text: Tensor
        self.class_labels: Tensor | None
        self.register_buffer("text", text)
        self.register_buffer("class_labels", class_labels)
        meet_at_any_size(unet)
        replace_upsamplers(autoencoder)

    @property
    def image_latent_channels(self) -> int:
        """Channels of the picture's latent; the noisy latent may hold several of that size."""
        return self.recipe.vae_channels

    def encode(self, image: Tensor) -> Tensor:
        """See `FamilyModel`."""
        return self.autoencoder.encode(image)

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """See `FamilyModel`; models without noise ignore `noisy_latent`."""
        members = noisy_latent.shape[0]
        latents = {"image": image_latent.expand(members, -1, -1, -1), "noise": noisy_latent}
        stacked = torch.cat([latents[name] for name in self.recipe.network_inputs], dim=1)  # (B, 4 or more, h, w)
        output = self.unet(
            stacked,
            timestep,
            encoder_hidden_states=self.text.expand(members, -1, -1),
            class_labels=None if self.class_labels is None else self.class_labels.expand(members, -1),
            return_dict=False,
        )
        return output[0]  # type: ignore[no-any-return]


_NEVER_EVEN = 20
"""Halvings after which no latent could be enlarged again without a remainder: diffusers then tells every level of the
U-Net the size that it has to meet."""


class _Enlarge(nn.Module):
    """diffusers' `Upsample2D` without the comparisons of sizes, each of which would bind an exported graph to some."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden_states: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(B, C, h, w) → (B, C', H, W), H and W the `output_size`, by default twice as large."""
        if output_size is None:
            enlarged = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        else:
            enlarged = F.interpolate(hidden_states, size=output_size, mode="nearest")
        return self.conv(enlarged)  # type: ignore[no-any-return]


def meet_at_any_size(unet: UNet2DConditionModel) -> None:
    """Lets a U-Net, and one graph of it, take latents of any size, as diffusers does for each size by itself."""
    unet.num_upsamplers = _NEVER_EVEN
    replace_upsamplers(unet)


def replace_upsamplers(network: nn.Module) -> None:
    """Changes a network of diffusers in place; its numbers and the names of its weights stay the same."""
    for module in network.modules():
        upsamplers: Any = getattr(module, "upsamplers", None) or []
        for number, upsampler in enumerate(upsamplers):
            if isinstance(upsampler, Upsample2D) and upsampler.name == "conv" and upsampler.interpolate:
                upsamplers[number] = _Enlarge(upsampler.conv)


def unet_channels(recipe: Recipe) -> dict[str, int]:
    """What the U-Net's config has to say about its channels."""
    width = {"image": recipe.vae_channels, "noise": recipe.latent_channels, "prompt": 0}
    return {
        "in_channels": sum(width[name] for name in recipe.network_inputs),
        "out_channels": recipe.latent_channels,
    }


def load_unet(files: CheckpointFiles, subfolder: str, recipe: Recipe, text: Tensor) -> UNet2DConditionModel:
    """The U-Net of a checkpoint.

    Args:
        text: (1, tokens, width), what it will attend to.

    Raises:
        InputError: it is missing, incomplete, or of another kind than the recipe's.
    """
    unet = load_network(UNet2DConditionModel, files, subfolder)
    check_config(files, subfolder, unet, {**unet_channels(recipe), "cross_attention_dim": text.shape[2]})
    return unet


def one_step_weights(scheduler: Any, result: str = "prev_sample") -> tuple[int, float, float]:
    """What a scheduler of diffusers does in a single step: every one is linear in its two inputs.

    Args:
        scheduler: DDIM or LCM, with the config of the checkpoint.
        result: Which of the step's results becomes the clean latent, `prev_sample` or `pred_original_sample`.

    Returns:
        timestep: Of the step.
        of_prediction, of_noise: Weights of the network's output and of the noisy latent.

    Raises:
        InputError: the config is one that diffusers does not know.
    """
    scheduler.set_timesteps(1)
    timestep = scheduler.timesteps[0]
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    weights = []
    for prediction, noise in ((one, zero), (zero, one)):
        scheduler.set_timesteps(1)  # resets the step that LCM counts
        try:
            step = scheduler.step(prediction, timestep, noise)
        except ValueError as error:
            raise InputError(f"scheduler/scheduler_config.json cannot be used: {error}") from error
        weights.append(float(getattr(step, result)))
    return int(timestep), weights[0], weights[1]


def check_linear(config: Mapping[str, Any], where: str) -> None:
    """Checks that a scheduler does nothing to latents that neither a fused graph nor our sampler can repeat.

    Raises:
        InputError: it clips or thresholds them, or has noise levels of its own.
    """
    for name in ("thresholding", "clip_sample", "trained_betas"):
        if config.get(name):
            raise InputError(
                f"{where} has {name}: {config[name]}, which the published checkpoints of this family have not; "
                "take the scheduler of the published one"
            )
