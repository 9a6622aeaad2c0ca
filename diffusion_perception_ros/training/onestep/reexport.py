"""A model folder once more with another graph: from its own weights, in another precision or by a newer exporter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from diffusion_perception_ros.export.model_folder import CREDITS, README, new_model_folder
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.inference.card import ModelCard, read_card, write_card
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.onestep import weights
from diffusion_perception_ros.training.onestep.export import depth_output, write_network


def export_again(model: Path, output: Path, pictures: Sequence[Sample], options: ExportOptions) -> ModelCard:
    """Writes `output` with the card, README, credits and weights of `model`, and a new graph.

    Args:
        model: a folder with `weights.safetensors`; may be `output` itself.
        pictures: rendered samples, for calibration and for comparing the graph with PyTorch.
        options: the name, the precision and whether the depth is metric; the rest is as in `model`.

    Raises:
        InputError: not a model folder with weights, the output exists or cannot be written, or no images for int8.
    """
    card, network = read_card(model), weights.read_weights(model)
    depth = depth_output(options.metric)
    with new_model_folder(output, options.overwrite) as folder:
        size = card.input.size.size_for(4, 3)
        parity, files = write_network(network, folder, size, pictures, options.precision)
        for name in (README, CREDITS, weights.FILE):
            if (model / name).is_file():
                shutil.copyfile(model / name, folder / name)
        files[weights.FILE] = card.files[weights.FILE]
        fields = {"name": options.name, "precision": options.precision, "parity": parity, "files": files}
        outputs = tuple(depth if output.task == "depth" else output for output in card.outputs)
        new = card.model_copy(update={**fields, "outputs": outputs})
        write_card(new, folder)
    return new
