"""Real diffusers and transformers parts from a checkpoint's sub-folders, complete and of the kind expected."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles, CheckpointPart


_Network = TypeVar("_Network", bound=nn.Module)

_log = logging.getLogger(__name__)


def load_network(kind: type[_Network], files: CheckpointFiles, subfolder: str) -> _Network:
    """A network of diffusers or transformers, float32, in evaluation mode, without gradients.

    The names in `model_index.json` are not asked: published checkpoints name classes that exist in no package. The
    part's own `config.json` has to name `kind`.

    Raises:
        InputError: the part is missing, of another class, does not fit its config, or cannot be downloaded.
    """
    part = files.part(subfolder)
    _check_class(kind, part)
    if part.variant:
        _log.warning("%s/%s is published in %s only; it is computed in fp32", files.name, subfolder, part.variant)
    try:
        # Both libraries return a pair when they are asked for what they found.
        network, found = kind.from_pretrained(  # type: ignore[attr-defined]
            str(part.root),
            subfolder=subfolder,
            variant=part.variant,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{part.folder} cannot be loaded as {kind.__name__}: {_summary(error)}") from error
    _check_complete(kind, part, found)
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def load_scheduler(kind: type[Any], files: CheckpointFiles, subfolder: str = "scheduler") -> Any:
    """A scheduler of diffusers from its config; `kind` may be another class than the config names.

    Raises:
        InputError: there is no such part.
    """
    part = files.part(subfolder)
    try:
        return kind.from_pretrained(str(part.root), subfolder=subfolder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{part.folder} cannot be loaded as {kind.__name__}: {_summary(error)}") from error


def load_tokenizer(files: CheckpointFiles, subfolder: str) -> Any:
    """A tokenizer of transformers.

    Raises:
        InputError: there is no such part, or it is none.
    """
    part = files.part(subfolder)
    try:
        return AutoTokenizer.from_pretrained(str(part.root), subfolder=subfolder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{part.folder} cannot be loaded as a tokenizer: {_summary(error)}") from error


def load_text_constant(files: CheckpointFiles, prompt: str, expected_tokens: int) -> Tensor:
    """CLIP's last hidden state of an unpadded prompt, (1, expected_tokens, width) float32.

    The text never changes at run time, so that neither tokenizer nor text encoder has to ship.

    Raises:
        InputError: the tokenizer or text encoder are missing or make another number of tokens.
    """
    tokenizer = load_tokenizer(files, "tokenizer")
    tokens = tokenizer(prompt, padding="do_not_pad", truncation=True, return_tensors="pt").input_ids
    if tokens.shape[1] != expected_tokens:
        raise InputError(
            f"{files.name}/tokenizer makes {tokens.shape[1]} tokens of the prompt '{prompt}', this family was trained "
            f"with {expected_tokens}: the tokenizer belongs to another checkpoint"
        )
    encoder = load_network(CLIPTextModel, files, "text_encoder")
    with torch.no_grad():
        return encoder(tokens)[0].clone()  # type: ignore[no-any-return]


def load_tensors(path: Path) -> dict[str, Any]:
    """A `.pt` or `.pth` file of tensors, for families that publish nothing else. Nothing in it is executed.

    Raises:
        InputError: it is cut off, or holds other objects than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # unpickling errors, zip errors and runtime errors have no common base
        raise InputError(
            f"{path} cannot be read as a file of tensors ({_summary(error)}): it is incomplete, so download it again, "
            "or it holds code, which is never run"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, expected a dictionary of tensors")
    return state


def load_weights(network: _Network, weights: Mapping[str, Any], path: Path) -> _Network:
    """Puts the tensors of a file into a network, as float32, and freezes it.

    Args:
        network: May be on the `meta` device: its parameters are replaced, not written to.
        path: Where the tensors come from, for messages.

    Raises:
        InputError: tensors are missing, unknown, or of another shape.
    """
    tensors = {name: value.float() if isinstance(value, Tensor) else value for name, value in weights.items()}
    try:
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{path} does not fit this network: {_summary(error)}") from error
    return network.eval().requires_grad_(False)


def check_config(files: CheckpointFiles, subfolder: str, network: nn.Module, expected: Mapping[str, Any]) -> None:
    """Checks fields of a loaded network's config, such as channel counts.

    Raises:
        InputError: one differs; the message names the file and both values.
    """
    where = "/".join(part for part in (files.name, subfolder, "config.json") if part)
    for name, value in expected.items():
        actual = getattr(network.config, name, None)
        if isinstance(actual, list):
            actual = tuple(actual)
        if actual != value:
            raise InputError(
                f"{where} has {name} {actual}, this family and task need {value}: the checkpoint is of another kind"
            )


def _check_class(kind: type[nn.Module], part: CheckpointPart) -> None:
    path = part.folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({_summary(error)}): download the checkpoint again") from error
    named = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if named is not None and named != kind.__name__:
        raise InputError(f"{path} describes a {named}, expected {kind.__name__}: this is the wrong part or checkpoint")


def _check_complete(kind: type[nn.Module], part: CheckpointPart, found: Mapping[str, Any]) -> None:
    """Both libraries only warn of weights that a file lacks, and fill them with random numbers."""
    missing = sorted(found.get("missing_keys") or ())
    mismatched = sorted(str(key) for key in found.get("mismatched_keys") or ())
    if missing or mismatched:
        problem = f"lacks {len(missing)} weights, the first is '{missing[0]}'" if missing else f"has {mismatched[0]}"
        raise InputError(f"{part.folder} {problem}: the weights do not belong to this {kind.__name__} config")


def _summary(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
