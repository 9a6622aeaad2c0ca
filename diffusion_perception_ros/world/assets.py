"""What scenes are made from: catalogue meshes (if any) and the texture bank, loaded once per process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.labels import LABELS
from diffusion_perception_ros.world.meshes.library import MeshLibrary
from diffusion_perception_ros.world.textures.bank import texture_bank


_HELD_OUT_EVERY = 10


@dataclass
class Assets:
    """Shared by all scenes of a process; `textures` is one array, so renderers can keep it where it is."""

    library: MeshLibrary | None
    textures: npt.NDArray[np.uint8]
    """(layers, 128, 128, 4): the library's, then the bank's."""
    kinds: dict[str, range]
    """Layers of each kind of procedural texture."""
    catalogue: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(label, placement) to indices of the library's meshes, of the configured split."""


def load_assets(config: WorldConfig) -> Assets:
    """The assets a configuration asks for; later calls return the same object.

    Raises:
        InputError: `config.meshes` holds no catalogue.
    """
    return _load(config.meshes, config.mesh_split)


@lru_cache(maxsize=2)
def _load(folder: Path | None, split: str) -> Assets:
    layers, kinds = texture_bank()
    if folder is None:
        return Assets(None, layers, kinds)
    library = MeshLibrary.load(folder)
    first = len(library.textures)
    assets = Assets(
        library,
        np.concatenate([library.textures, layers]),
        {kind: range(first + span.start, first + span.stop) for kind, span in kinds.items()},
    )
    for index, mesh in enumerate(library.meshes):
        is_held_out = index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        if split == "all" or is_held_out == (split == "held_out"):
            assets.catalogue.setdefault((LABELS[mesh.class_id].name, mesh.placement), []).append(index)
    return assets
