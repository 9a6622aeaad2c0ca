"""From a family's PyTorch module to ONNX files: what goes into each graph, and in which number format."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.export import Dim

from diffusion_perception_ros.export.sizes import MAX_SIDE
from diffusion_perception_ros.families.recipe import FamilyModel


OPSET = 18
EXTERNAL_DATA_BYTES = 1_500_000_000
"""Larger graphs keep their weights in a second file: an ONNX file itself ends at 2 GB."""
_LEAST_FREE_SIDE = 72
"""Smallest side of graphs for sizes that are no multiple of anything; `inference.card.InputSize` never gives less."""
MOST_MEMBERS = 63
"""Largest batch that the exporter reckons with. diffusers' U-Nets upsample 64 and more in another way (`Upsample2D`),
and a range that reaches into both makes it trace the network twice. The graph itself takes a batch of any size."""

CLEAN_LATENT = "clean_latent"
"""Name of the latent among the outputs of a fused graph."""

Shape = dict[int, Any]
"""Dynamic dimensions of one input."""


@dataclass(frozen=True)
class Graph:
    """One ONNX file to be: its module, named inputs with examples, and names of the outputs."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    """Dynamic dimensions by input; inputs that are not named have the shape of their example."""

    @property
    def file(self) -> str:
        """File name in the model folder."""
        return f"{self.name}.onnx"


class _Stage(nn.Module, ABC):
    """Takes and returns float32, whatever the model computes in; inputs come in the order of `names`."""

    def __init__(self, model: FamilyModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        dtype = next(self.model.parameters()).dtype
        named = {
            name: tensor if name == "timestep" else tensor.to(dtype)  # bf16 would round the timestep
            for name, tensor in zip(self.names, tensors, strict=True)
        }
        return tuple(tensor.float() for tensor in self.compute(named))

    @abstractmethod
    def compute(self, named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs from inputs by name, both in the model's precision."""


class _Fused(_Stage):
    def __init__(self, model: FamilyModel, names: Sequence[str], fixed_noise: Tensor | None) -> None:
        super().__init__(model, names)
        self.fixed_noise: Tensor | None
        self.register_buffer("fixed_noise", fixed_noise)

    def compute(self, named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        image = named.pop("image")
        noise = named.pop("noise", None)
        if noise is None and self.fixed_noise is not None:
            noise = self.fixed_noise.to(image.dtype)
        outputs, latent = self.model.with_latent(image, noise, **named)
        return (*outputs, latent) if "noise" in self.names else outputs


class _Encode(_Stage):
    def compute(self, named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (self.model.encode_prompted(named.pop("image"), **named),)


class _Denoise(_Stage):
    def compute(self, named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (self.model.denoise(**named),)


class _Decode(_Stage):
    def compute(self, named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return self.model.decode(named["latent"])


class Sizes:
    """Shapes of a family's tensors: of one image size, or of all that are multiples of a unit."""

    def __init__(self, model: FamilyModel, width: int, height: int, unit: int | None) -> None:
        """
        Args:
            width, height: Of the image, or of an example.
            unit: What both sides of every image are a multiple of, None = no other image than this.
        """
        recipe = model.recipe
        self.image = torch.zeros(1, 3, height, width)
        self.downscale, self.channels = recipe.latent_downscale, recipe.latent_channels
        self.latent = torch.zeros(1, self.channels, height // self.downscale, width // self.downscale)
        self.image_latent = torch.zeros(1, model.image_latent_channels, *self.latent.shape[2:])
        self.image_shape: Shape = {}
        self.latent_shape: Shape = {}
        if unit is not None:
            # Less than this would be one cell somewhere, which the exporter takes for a size of its own.
            least = _LEAST_FREE_SIDE // unit if recipe.any_size else 1
            rows, columns = (Dim(name, min=least, max=MAX_SIDE // unit) for name in ("rows", "columns"))
            self.image_shape = {2: rows, 3: columns} if unit == 1 else {2: unit * rows, 3: unit * columns}
            if cells := unit // self.downscale:  # none: latents are no inputs of such a graph
                self.latent_shape = {2: rows, 3: columns} if cells == 1 else {2: cells * rows, 3: cells * columns}

    def condition_shapes(self, conditions: Mapping[str, Tensor]) -> dict[str, Shape]:
        """Further pictures and masks are as large as the picture, everything else has a fixed shape."""
        sides = self.image.shape[2:]
        return {name: self.image_shape for name, value in conditions.items() if value.shape[2:] == sides}


def fused_graph(model: FamilyModel, sizes: Sizes, noise_input: bool, fixed_noise: Tensor | None) -> Graph:
    """`model.onnx`: picture to outputs in one step.

    With a noise input the clean latent is an output too: video can carry it over into the next frame's noise.
    """
    height, width = sizes.image.shape[2:]
    conditions = model.example_conditions(width, height)
    inputs = {"image": sizes.image, **({"noise": sizes.latent} if noise_input else {}), **conditions}
    shapes = {"image": sizes.image_shape, "noise": sizes.latent_shape, **sizes.condition_shapes(conditions)}
    outputs = (*model.output_names, CLEAN_LATENT) if noise_input else model.output_names
    return Graph("model", _Fused(model, list(inputs), fixed_noise), inputs, outputs, shapes)


def stage_graphs(model: FamilyModel, sizes: Sizes) -> tuple[Graph, Graph, Graph]:
    """`encode.onnx`, `denoise.onnx` and `decode.onnx`, for several steps or the members of an ensemble."""
    height, width = sizes.image.shape[2:]
    conditions = model.example_conditions(width, height)
    encode = {"image": sizes.image, **{name: conditions.pop(name) for name in model.encode_conditions}}
    # Two members, since an example of one would make the batch a constant.
    denoise = {
        "image_latent": sizes.image_latent,
        "noisy_latent": sizes.latent.repeat(2, 1, 1, 1),
        "timestep": torch.full((1,), float(model.recipe.timestep)),
        **conditions,
        **({"conditional": torch.ones(1)} if model.is_guided else {}),
    }
    shapes = {
        "image_latent": sizes.latent_shape,
        "noisy_latent": {0: Dim("members", min=1, max=MOST_MEMBERS), **sizes.latent_shape},
        **sizes.condition_shapes(conditions),
    }
    return (
        Graph(
            "encode",
            _Encode(model, list(encode)),
            encode,
            ("image_latent",),
            sizes.condition_shapes(encode),
        ),
        Graph("denoise", _Denoise(model, list(denoise)), denoise, ("prediction",), shapes),
        Graph(
            "decode",
            _Decode(model, ["latent"]),
            {"latent": sizes.latent},
            model.output_names,
            {"latent": sizes.latent_shape},
        ),
    )


def write_graph(graph: Graph, path: Path, module: nn.Module | None = None) -> None:
    """Writes an ONNX file, and `<file>.data` beside it if the weights are large.

    Args:
        module: Takes the place of the graph's own, with the same inputs and outputs.
    """
    shapes = tuple(graph.shapes.get(name) or None for name in graph.inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision's operators, which none has
    program = torch.onnx.export(
        (module or graph.module).eval(),
        tuple(graph.inputs.values()),
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_shapes={"tensors": shapes} if any(shapes) else None,
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    # Only what quantisation needs: ONNX Runtime and TensorRT fuse operators themselves, and better.
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, which name folders of this machine
    weights = program.model.graph.initializers.values()
    size = sum(value.const_value.nbytes for value in weights if value.const_value is not None)
    program.save(str(path), external_data=size > EXTERNAL_DATA_BYTES)
    onnx.checker.check_model(str(path))


def quantize_graph(source: Path, path: Path) -> None:
    """Writes `source` again with int8 weights, one scale per channel, in its linear layers.

    Their inputs are quantised on the fly (ONNX Runtime's dynamic quantisation). Convolutions stay in float32: ONNX
    Runtime's integer convolution is slower than its float one.
    """
    model = onnx.load(source, load_external_data=False)
    del model.graph.value_info[:]  # shapes from before constants were folded, which the quantiser would object to
    onnx.save(model, source)
    matrices = {weight.name for weight in model.graph.initializer if len(weight.dims) == 2}
    linear = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in matrices]
    quantize_dynamic(
        str(source),
        str(path),
        nodes_to_quantize=linear,  # not the products with folded constants of more dimensions
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=len(graph_files(source)) > 1,
    )


def graph_files(path: Path) -> list[Path]:
    """An ONNX file and the file with its weights, if it has one."""
    data = path.with_name(path.name + ".data")
    return [path, *([data] if data.exists() else [])]


class Bfloat16Weights(nn.Module):
    """A stage whose weights are stored in bf16 and computed with in float32.

    No CPU has ONNX kernels for bf16: computing in float32 is what makes such a graph run, and be checked, everywhere.
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage.to(torch.bfloat16)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        stored = {**dict(self.stage.named_parameters()), **dict(self.stage.named_buffers())}
        weights = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
        return torch.func.functional_call(self.stage, weights, tensors)  # type: ignore[no-any-return]
