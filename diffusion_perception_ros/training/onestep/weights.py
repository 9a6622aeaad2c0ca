"""The PyTorch weights inside a model folder: what fine-tuning and adaptation of a shipped model start from."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
from pydantic import ValidationError
from safetensors.torch import save_file

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.training.checkpoint import load_weights
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet


FILE = "weights.safetensors"
_NETWORK = "network"
"""Key of the file's metadata: the `NetworkConfig` as JSON."""


def write_weights(network: OneStepNet, path: Path) -> None:
    """Writes a network, convolutions in float16 (half the size; the rounding is far below what int8 costs).

    Raises:
        OSError: the file could not be written.
    """
    tensors = {
        name: (value.half() if value.ndim > 1 else value).contiguous() for name, value in network.state_dict().items()
    }
    try:
        save_file(tensors, path, metadata={_NETWORK: network.config.model_dump_json()})
        path.chmod(0o644)  # safetensors lets nobody but the owner read it
    except safetensors.SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


def read_weights(folder: Path) -> OneStepNet:
    """The network of a model folder, in float32 and evaluation mode.

    Raises:
        InputError: not a model folder, one without weights to train from, or a damaged file.
    """
    path = weights_of(folder)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {})[_NETWORK])
        network = OneStepNet(NetworkConfig.model_validate(fields))
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, ValidationError) as error:
        raise InputError(f"{path} does not hold the weights of a onestep network: {error}") from error
    load_weights(network, path)
    return network.eval()


def weights_of(folder: Path) -> Path:
    """The file of weights of a model folder, its sha256 compared with the card's.

    Raises:
        InputError: not a model folder, a damaged one, or one without weights to train from.
    """
    card = read_card(folder)
    if FILE not in card.files:
        raise InputError(f"model '{card.name}' comes without {FILE}: only its graph can be run, not trained further")
    return folder / FILE
