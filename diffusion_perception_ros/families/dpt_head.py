"""GenPercept's other decoder: a DPT head (Ranftl et al., ICCV 2021) on the U-Net's features in place of the VAE's.

The neck is the one of transformers without its stage for vision transformers; the head is DPT's without the last ReLU.
Layout and names of the weights are those of `genpercept/models/dpt_head.py`, class
`DPTNeckHeadForUnetAfterUpsampleIdentity`, and `custom_unet.py` for the features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTNeck

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.loading import load_weights


_UNUSED = ("conv_out.", "conv_norm_out.")
"""Layers of the U-Net behind its features."""


class DptHead(nn.Module):
    """Four feature maps of the U-Net → one map of the picture's size."""

    def __init__(self, widths: Sequence[int], fusion: int, channels: int = 1) -> None:
        """
        Args:
            widths: Channels of the features, the finest first.
            fusion: Channels that all of them are brought to.
            channels: Of the map; the published one has 1.
        """
        super().__init__()
        self.feature_upsample_0 = Upsample2D(widths[0], use_conv=True)
        # Published without biases there: hf_configs/dpt-sd2.1-unet-after-upsample-general/config.json
        config = DPTConfig(
            neck_hidden_sizes=list(widths), fusion_hidden_size=fusion, use_bias_in_fusion_residual=False
        )
        self.neck = DPTNeck(config)
        self.neck.reassemble_stage = None  # it is for tokens
        del self.neck.fusion_stage.layers[0].residual_layer1  # the coarsest features have nothing to be added to
        self.head = nn.ModuleDict(
            {
                "projection": nn.Conv2d(fusion, fusion, 3, padding=1),
                "head": nn.Sequential(
                    nn.Conv2d(fusion, fusion // 2, 3, padding=1),
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                    nn.Conv2d(fusion // 2, 32, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(32, channels, 1),
                ),
            }
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Predicts.

        Args:
            features: (B, c_k, h_k, w_k), the finest first: 1/8, 1/8, 1/16 and 1/32 of the picture.

        Returns:
            (B, channels, H, W), without fixed range.
        """
        finest = self.feature_upsample_0(features[0])
        fused = self.neck([finest, *features[1:]])[-1]
        return self.head["head"](torch.relu(self.head["projection"](fused)))  # type: ignore[no-any-return]


class FeatureUNet(nn.Module):
    """A U-Net that gives what its four up-blocks make, the finest first, instead of a latent."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Takes the last layers away from `unet`."""
        super().__init__()
        unet.conv_norm_out, unet.conv_out = None, nn.Identity()
        self.unet = unet

    def forward(self, latent: Tensor, timestep: Tensor, text: Tensor) -> list[Tensor]:
        """(B, c, h, w), (1,), (B, tokens, width) → features (B, c_k, h_k, w_k)."""
        features: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, output: features.insert(0, output))
            for block in self.unet.up_blocks
        ]
        try:
            self.unet(latent, timestep, encoder_hidden_states=text, return_dict=False)
        finally:
            for hook in hooks:
                hook.remove()
        return features


def load_dpt_head(files: CheckpointFiles, subfolder: str) -> DptHead:
    """The head of a checkpoint, which is published without config: the sizes are those of its weights.

    Raises:
        InputError: it is missing, or its weights are not those of such a head.
    """
    part = files.part(subfolder)
    path = part.folder / "model.safetensors"
    weights = load_file(path)
    convolutions = [f"neck.convs.{index}.weight" for index in range(4)]
    missing = next((name for name in convolutions if name not in weights), None)
    if missing is not None:
        raise InputError(f"{path} lacks '{missing}': it is not the DPT head of GenPercept")
    with torch.device("meta"):
        head = DptHead([weights[name].shape[1] for name in convolutions], weights[convolutions[0]].shape[0])
    return load_weights(head, weights, path)


def load_feature_unet(files: CheckpointFiles, subfolder: str, expected: Mapping[str, int]) -> FeatureUNet:
    """The U-Net of a checkpoint with a DPT head, which is published without its last layers.

    Args:
        expected: Fields of its config.

    Raises:
        InputError: it is missing, incomplete, or of another kind.
    """
    part = files.part(subfolder)
    path = part.folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): download the checkpoint again") from error
    for name, value in expected.items():
        if config.get(name) != value:
            raise InputError(
                f"{path} has {name} {config.get(name)}, this family and task need {value}: the checkpoint is of "
                "another kind"
            )
    network = FeatureUNet(UNet2DConditionModel.from_config(config))
    weights_path = part.folder / "diffusion_pytorch_model.safetensors"
    weights = {name: value for name, value in load_file(weights_path).items() if not name.startswith(_UNUSED)}
    load_weights(network.unet, weights, weights_path)
    return network.eval()
