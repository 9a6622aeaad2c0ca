"""Checkpoints: a folder of safetensors, one JSON file and their checksums, there as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.lora import Adapter, add_lora, merge_lora
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet
from diffusion_perception_ros.training.sharding import like


STATE = "checkpoint.json"
CHECKSUMS = "SHA256SUMS"
"""In the format of `sha256sum --check`. Checkpoints of version 0.1 before 2026-12 lack it and are not compared."""
WEIGHTS, AVERAGED, OPTIMISER = "network.safetensors", "ema.safetensors", "optimiser.safetensors"
ADAPTER = "adapter"
"""Key in the identity of an adapted network: its `lora.Adapter`."""
_KEPT = 2


@dataclass
class Checkpoint:
    """A checkpoint folder that was found and understood."""

    folder: Path
    identity: dict[str, Any]
    """What kind of network it is of; see `learner.Learner`."""
    state: dict[str, Any]
    """What the trainer stored: step, seconds, position, best score, config, evaluation, …"""

    @property
    def network(self) -> NetworkConfig:
        """The config of the onestep network that it is of.

        Raises:
            InputError: it is of another kind of network.
        """
        try:
            fields = {key: value for key, value in self.identity.items() if key != ADAPTER}
            return NetworkConfig.model_validate(fields)
        except ValidationError as error:
            kind = self.identity.get("kind", "unknown kind")
            raise InputError(f"{self.folder} is no checkpoint of a onestep network but of a '{kind}'") from error

    def averaged_network(self) -> OneStepNet:
        """The network with the averaged weights, those of an adapter merged, in evaluation mode.

        Raises:
            InputError: the weights are missing, damaged, or of another network.
        """
        network = OneStepNet(self.network)
        if ADAPTER in self.identity:
            add_lora(network, Adapter.model_validate(self.identity[ADAPTER]))
            load_weights(network, self.folder / AVERAGED)
            merge_lora(network)
        else:
            load_weights(network, self.folder / AVERAGED)
        return network.requires_grad_(True).eval()


def write_checkpoint(
    folder: Path, identity: dict[str, Any], state: dict[str, Any], files: dict[str, dict[str, Tensor]]
) -> None:
    """Writes `folder` in one step; `files` are tensors by the name of their file.

    Raises:
        OSError: it could not be written; nothing is left behind and an older folder of this name is untouched.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in files.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / name)
        fields = {"network": identity, **state}
        (temporary / STATE).write_text(json.dumps(fields, indent=1), encoding="utf-8")
        sums = "".join(f"{_sha256(temporary / name)}  {name}\n" for name in (STATE, *files))
        (temporary / CHECKSUMS).write_text(sums, encoding="utf-8")
        replaced = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(temporary, folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except safetensors.SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads the state of a checkpoint folder, not yet its tensors.

    Raises:
        InputError: it is not a checkpoint, or a damaged one.
    """
    path = folder / STATE
    try:
        compare_checksum(path)
        state = json.loads(path.read_text(encoding="utf-8"))
        return Checkpoint(folder, dict(state.pop("network")), state)
    except FileNotFoundError:
        raise InputError(f"{folder} is not a checkpoint: it has no {STATE}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint: {error}") from error


def load_weights(
    network: nn.Module, path: Path, may_lack: Collection[str] = (), may_exceed: tuple[str, ...] = ()
) -> None:
    """Fills a network from a safetensors file.

    Args:
        may_lack: names of tensors that stay as they are if the file does not have them.
        may_exceed: beginnings of names that are passed over if only the file has them.

    Raises:
        InputError: the file is missing, damaged, or belongs to another network; names the first difference.
    """
    own = network.state_dict()
    tensors = {name: own[name] for name in may_lack} | {
        name: value for name, value in load_tensors(path).items() if name in own or not name.startswith(may_exceed)
    }
    for name in sorted(own.keys() | tensors.keys()):
        theirs, ours = tensors.get(name), own.get(name)
        if theirs is None or ours is None or theirs.shape != ours.shape:
            sizes = [("nothing" if t is None else "x".join(map(str, t.shape)) or "a number") for t in (theirs, ours)]
            raise InputError(
                f"{path} belongs to another network: '{name}' is {sizes[0]} there, {sizes[1]} in the one configured; "
                "use the config it was trained with, or another output folder"
            )
    network.load_state_dict(tensors)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: the file is missing or damaged.
    """
    compare_checksum(path)
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def compare_checksum(path: Path) -> None:
    """Compares a file with the checksums beside it, if there are any.

    Raises:
        InputError: it is missing, or other bytes than were written.
    """
    try:
        lines = (path.parent / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path.parent / CHECKSUMS} cannot be read: {error.strerror}") from error
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}.get(path.name)
    try:
        actual = _sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if actual != expected:
        raise InputError(f"{path} is damaged: its checksum is not that of {CHECKSUMS}")


def latest_checkpoint(run: Path, damaged: Callable[[Path, str], None] | None = None) -> Path | None:
    """The newest checkpoint of a run folder that is whole; `damaged` is told of newer ones, with the reason."""
    for folder in sorted((run / "checkpoints").glob("step_*"), reverse=True):
        try:
            read_checkpoint(folder)
            for name in (WEIGHTS, AVERAGED, OPTIMISER):
                compare_checksum(folder / name)
                with safetensors.safe_open(folder / name, framework="pt"):
                    pass  # only its header, for checkpoints without checksums
        except (InputError, OSError, safetensors.SafetensorError) as error:
            if damaged:
                damaged(folder, str(error))
            continue
        return folder
    return None


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step_{step:08d}"


def prune_checkpoints(run: Path, damaged: Collection[Path] = ()) -> None:
    """Deletes the damaged checkpoints, and of the others all but the newest."""
    whole = [path for path in sorted((run / "checkpoints").glob("step_*")) if path not in damaged]
    for path in [*damaged, *whole[:-_KEPT]]:
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, flattened to `<parameter number>.<name>`."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The way back from `optimiser_tensors`.

    Moments are sharded as their parameter is, and take its memory layout: the fused optimiser walks through both in
    memory order.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        entries.setdefault(int(number), {})[name] = like(value, parameters[int(number)])
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
