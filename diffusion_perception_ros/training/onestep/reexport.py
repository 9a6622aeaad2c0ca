"""A model folder once more with another graph: from its own weights, in another precision or by a newer exporter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from diffusion_perception_ros.export.model_folder import CREDITS, README, new_model_folder
from diffusion_perception_ros.inference.card import ModelCard, read_card, write_card
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.onestep.export import write_network
from diffusion_perception_ros.training.onestep.weights import read_weights


def export_again(
    model: Path, output: Path, pictures: Sequence[Sample], precision: Literal["fp32", "int8"], overwrite: bool = False
) -> ModelCard:
    """Writes `output` with the card, README and credits of `model`, and a new graph.

    Args:
        model: a folder with `weights.safetensors`; may be `output` itself.
        pictures: rendered samples, for calibration and for comparing the graph with PyTorch.

    Raises:
        InputError: not a model folder with weights, the output exists or cannot be written, or no images for int8.
    """
    card, network = read_card(model), read_weights(model)
    size = card.input.size.size_for(4, 3)
    with new_model_folder(output, overwrite) as folder:
        for name in (README, CREDITS):
            if (model / name).is_file():
                shutil.copyfile(model / name, folder / name)
        parity, files = write_network(network, folder, size, pictures, precision)
        new = card.model_copy(update={"precision": precision, "parity": parity, "files": files, "name": output.name})
        write_card(new, folder)
    return new
