"""A network as an ONNX graph: normalisations and paddings folded into the convolutions, any batch and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.network import UNSHUFFLE, OneStepNet
from diffusion_perception_ros.training.settings.names import MULTIPLE


OPSET = 18
OUTPUTS = ("depth", "depth_confidence", "normals", "semantic", "instances")


def write_graph(network: OneStepNet, path: Path, size: tuple[int, int]) -> None:
    """Writes one ONNX file for any batch, and any height and width that are multiples of 32.

    Args:
        size: (width, height) to trace with.
    """
    folded = _fold_batch_norm(network)
    height_units, width_units = Dim("height_units", min=1, max=256), Dim("width_units", min=1, max=256)
    batch = Dim("batch", min=1, max=1024)
    example = torch.zeros(2, 3, size[1], size[0])
    arguments: tuple[torch.Tensor, ...] = (example,)
    shapes: list[dict[int, Any]] = [{0: batch, 2: MULTIPLE * height_units, 3: MULTIPLE * width_units}]
    names = ["image"]
    channels = network.config.noise_channels
    if channels:
        arguments += (torch.zeros(2, channels, size[1] // UNSHUFFLE, size[0] // UNSHUFFLE),)
        per_unit = MULTIPLE // UNSHUFFLE
        shapes.append({0: batch, 2: per_unit * height_units, 3: per_unit * width_units})
        names.append("noise")
    program = torch.onnx.export(
        DeployedNet(folded).eval(),
        arguments,
        input_names=names,
        output_names=list(OUTPUTS),
        dynamic_shapes=tuple(shapes) if channels else (shapes[0],),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)
    fold_padding(path)
    onnx.checker.check_model(str(path))


def _fold_batch_norm(network: OneStepNet) -> OneStepNet:
    """A copy in which every BatchNorm beside a convolution is part of it."""
    copy = OneStepNet(network.config)
    copy.load_state_dict(network.state_dict())
    copy.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]  # missing in torch's stubs
    for module in copy.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, norm = module[index], module[index + 1]
            if isinstance(norm, nn.Conv2d) and isinstance(convolution, nn.BatchNorm2d):
                module[index], module[index + 1] = nn.Identity(), _after_norm(convolution, norm)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index], module[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return copy


def _after_norm(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """A convolution with the BatchNorm without weights before it in one; exact only without padding."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert convolution.bias is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    weight = convolution.weight.detach() * scale[:, None, None]
    convolution.bias.data -= (weight * norm.running_mean[:, None, None]).sum((1, 2, 3))
    convolution.weight.data = weight
    return convolution


def fold_padding(path: Path) -> None:
    """Makes every constant zero padding part of the convolution behind it, in place: asymmetric ones, too."""
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.helper.get_attribute_value(node.attribute[0])
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for pad in [node for node in graph.node if node.op_type == "Pad" and node.input[1] in constants]:
        behind = users.get(pad.output[0], [])
        amounts = _spatial_padding(constants[pad.input[1]])
        if len(behind) == 1 and behind[0].op_type == "Conv" and amounts is not None:
            convolution = behind[0]
            attribute = next((item for item in convolution.attribute if item.name == "pads"), None)
            if attribute is None:
                attribute = convolution.attribute.add(name="pads", type=onnx.AttributeProto.INTS)
                attribute.ints.extend([0, 0, 0, 0])
            attribute.ints[:] = [own + more for own, more in zip(attribute.ints, amounts, strict=True)]
            convolution.input[0] = pad.input[0]
            graph.node.remove(pad)
    onnx.save(model, path)


def _spatial_padding(pads: Any) -> list[int] | None:
    """(top, left, bottom, right) of the eight numbers of a Pad of (N, C, H, W); None for others."""
    values = [
        int(value) for value in (onnx.numpy_helper.to_array(pads) if isinstance(pads, onnx.TensorProto) else pads)
    ]
    if len(values) != 8 or any(values[place] for place in (0, 1, 4, 5)) or min(values) < 0:
        return None
    return [values[2], values[3], values[6], values[7]]
