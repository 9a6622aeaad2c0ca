"""Picture to latent and back: the Stable Diffusion VAE, or a tiny autoencoder in its place."""

from __future__ import annotations

from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.loading import check_config, load_network
from diffusion_perception_ros.families.recipe import Recipe


class Autoencoder(nn.Module):
    """Scales latents as the networks expect them: (z - shift) * scale, both from the VAE's config.

    The latent is the mean of the posterior, which needs no random numbers.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, c, H / 8, W / 8)."""
        encoded = self.vae.encode(image)
        latent = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mean
        return (latent - self.shift) * self.scale  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        """(B, c, h, w) → (B, 3, 8 h, 8 w), about [-1, 1], not clipped."""
        return self.vae.decode(latent / self.scale + self.shift).sample  # type: ignore[no-any-return]


def load_autoencoder(files: CheckpointFiles, recipe: Recipe) -> Autoencoder:
    """The VAE of a checkpoint.

    Raises:
        InputError: it is missing, or its latents have another number of channels than the recipe's.
    """
    vae = load_network(AutoencoderKL, files, "vae")
    check_config(files, "vae", vae, {"latent_channels": recipe.vae_channels, "in_channels": 3})
    return Autoencoder(vae)


def load_tiny_autoencoder(name: str, recipe: Recipe) -> Autoencoder:
    """An AutoencoderTiny (TAESD, TAESD3), whose files lie at the root of its checkpoint.

    Raises:
        InputError: it is missing, or its latents have another number of channels than the recipe's.
    """
    files = CheckpointFiles(name, role="tiny autoencoder")
    tiny = load_network(AutoencoderTiny, files, "")
    check_config(files, "", tiny, {"latent_channels": recipe.vae_channels})
    return Autoencoder(tiny)
