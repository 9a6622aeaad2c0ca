"""Networks of published checkpoints in the diffusers layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion_perception_ros.errors import InputError


def load_network(kind: type[Any], pretrained: str, subfolder: str, title: str, **options: Any) -> Any:
    """What `from_pretrained` of a diffusers or transformers network gives, from safetensors only.

    Both libraries otherwise fall back to a pickled `.bin`, a format that can run code when it is read.

    Args:
        kind: the network's class.
        pretrained: folder or hub id.
        title: what the network is called in messages.
        options: further arguments of `from_pretrained`.

    Raises:
        InputError: it is missing, has no safetensors, or does not fit its class.
    """
    folder = Path(pretrained) / subfolder
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no .safetensors file, and other formats are not read because they can run code: convert "
            "the weights once with save_pretrained"
        )
    try:
        return kind.from_pretrained(pretrained, subfolder=subfolder, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"{pretrained} has no {title} that can be loaded (subfolder '{subfolder}', safetensors): {error}"
        ) from error
