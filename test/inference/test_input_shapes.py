"""Shapes that an engine is built for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from model_factory import write_model

from diffusion_perception_ros.inference.backends.input_shapes import ShapeRange, example_inputs, shape_ranges
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.parity import parity_image


def test_ranges_of_a_model_that_keeps_the_aspect(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", noise={"tensor": "noise", "channels": 4, "downscale": 8})
    graph = ModelGraph(folder, read_card(folder))
    ranges = graph.shape_ranges()
    assert ranges["image"] == ShapeRange((1, 3, 32, 32), (1, 3, 96, 128), (1, 3, 128, 128))
    assert ranges["noise"] == ShapeRange((1, 4, 4, 4), (1, 4, 12, 16), (1, 4, 16, 16))
    assert ranges["image"].contains((1, 3, 64, 128))
    assert not ranges["image"].contains((1, 3, 160, 128))
    assert not ranges["image"].contains((1, 3, 64))


def test_a_fixed_model_has_one_shape(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", size={"rule": "fixed", "width": 64, "height": 32})
    (shapes,) = ModelGraph(folder, read_card(folder)).shape_ranges().values()
    assert shapes.is_fixed
    assert shapes.usual == (1, 3, 32, 64)


class _Input:
    """As ONNX Runtime describes an input."""

    type = "tensor(float)"

    def __init__(self, name: str, *shape: int | str) -> None:
        self.name = name
        self.shape = list(shape)


def test_stages_and_prompts_have_shapes_too(tmp_path: Path) -> None:
    """Also with free batches: the members of an ensemble are one."""
    folder = write_model(tmp_path / "tiny", ["depth"], size={"rule": "fixed", "width": 64, "height": 32})
    fields = read_card(folder).model_dump()
    fields |= {
        "schema_version": 2,
        "graph": None,
        "graphs": dict.fromkeys(("encode", "denoise", "decode"), "model.onnx"),
        "sampler": {
            "scheduler": "ddim",
            "prediction_type": "v_prediction",
            "num_inference_steps": 4,
            "latent_channels": 4,
            "ensemble_size": 5,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "timestep_spacing": "trailing",
        },
    }
    card = type(read_card(folder)).model_validate(fields)
    inputs = [
        _Input("image_latent", 1, 4, "h", "w"),
        _Input("noisy_latent", "batch", 4, "h", "w"),
        _Input("timestep", 1),
        _Input("conditional", 1),
    ]
    ranges = shape_ranges(card, inputs)
    assert ranges["image_latent"].largest == (1, 4, 4, 8)
    assert (ranges["noisy_latent"].smallest, ranges["noisy_latent"].largest) == ((1, 4, 4, 8), (5, 4, 4, 8))
    examples = example_inputs(card, inputs, parity_image())
    assert {name: tensor.shape for name, tensor in examples.items()} == {
        "image_latent": (1, 4, 4, 8),
        "noisy_latent": (1, 4, 4, 8),
        "timestep": (1,),
        "conditional": (1,),
    }
    assert (examples["timestep"], examples["conditional"]) == (500, 1)
    assert not np.array_equal(examples["image_latent"], examples["noisy_latent"])
