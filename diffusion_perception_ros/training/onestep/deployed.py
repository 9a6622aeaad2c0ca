"""The network as the graph of a model folder: outputs in the card's units, heads that can be computed one by one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_perception_ros.training.onestep.network import (
    FOCAL_SCALE,
    LOG_DEPTH_CENTRE,
    LOG_SCALE_RANGE,
    OneStepNet,
)


class DeployedNet(nn.Module):
    """A trained `OneStepNet` with the outputs of the model card: what is exported to ONNX.

    The last convolution of either head is split by outputs: what nobody asks for need not be computed, and in int8 the
    offsets do not share the range of the logits, nor the depth that of the normals.
    """

    def __init__(self, network: OneStepNet) -> None:
        super().__init__()
        self.network = network
        geometry, labelling = network.geometry, network.labelling
        self.depth_out = _rows(geometry.out, 0, geometry.factor**2)
        self.scale_out = _rows(geometry.out, geometry.factor**2, 2 * geometry.factor**2)
        self.normals_out = _rows(geometry.out, 2 * geometry.factor**2, None)
        self.semantic_out = _rows(labelling.out, 0, -2 * labelling.factor**2)
        self.offsets_out = _rows(labelling.out, -2 * labelling.factor**2, None)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(depth in [0, 1], its confidence in [0, 1], normals, semantic logits, instance offsets), sizes as `Outputs`.

        Depth is canonical: metres = depth * `FOCAL_SCALE` * f_px. The confidence is the probability, under the
        predicted Laplace distribution, that the depth is within a factor of 1.25 of the truth once the scale of the
        whole picture is right.
        """
        x = self.network.decoded(image, noise)
        geometry, labelling = self.network.geometry, self.network.labelling
        hidden = F.silu(geometry.hidden(x))
        log_depth, log_scale, normals = (
            F.pixel_shuffle(out(hidden), geometry.factor) for out in (self.depth_out, self.scale_out, self.normals_out)
        )
        depth = (torch.exp(log_depth + LOG_DEPTH_CENTRE) / FOCAL_SCALE).clamp(0.0, 1.0)
        confidence = 1.0 - torch.exp(-math.log(1.25) * torch.exp(-log_scale.clamp(*LOG_SCALE_RANGE)))
        labels = F.silu(labelling.hidden(x))
        semantic, offsets = (
            F.pixel_shuffle(out(labels), labelling.factor) for out in (self.semantic_out, self.offsets_out)
        )
        return depth, confidence, normals, semantic, offsets


def _rows(convolution: nn.Conv2d, first: int, last: int | None) -> nn.Conv2d:
    """A copy with some of the output channels."""
    assert convolution.bias is not None
    weight, bias = convolution.weight.detach()[first:last], convolution.bias.detach()[first:last]
    part = nn.Conv2d(
        convolution.in_channels,
        len(weight),
        convolution.kernel_size,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
    )
    part.weight, part.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return part
