"""The bank of procedural textures: 128x128 sRGB + alpha, all tileable or framed, the same in every process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.textures import prints, surfaces
from diffusion_perception_ros.world.textures.tools import SIZE, Image, Rng


_BANK_SEED = 7


_KINDS: dict[str, tuple[Callable[[Rng], Image], int]] = {
    "plaster": (surfaces.plaster, 24),
    "wood": (surfaces.wood, 48),
    "tiles": (surfaces.tiles, 24),
    "checker": (surfaces.checker, 10),
    "bricks": (surfaces.bricks, 16),
    "slabs": (surfaces.slabs, 16),
    "stripes": (surfaces.stripes, 16),
    "fabric": (surfaces.fabric, 24),
    "carpet": (surfaces.carpet, 28),
    "marble": (surfaces.marble, 16),
    "speckle": (surfaces.speckle, 16),
    "asphalt": (surfaces.asphalt, 10),
    "soil": (surfaces.soil, 12),
    "grass": (surfaces.grass, 14),
    "metal": (surfaces.metal, 10),
    "bark": (surfaces.bark, 8),
    "curtain": (surfaces.curtain, 10),
    "package": (prints.package, 72),
    "cardboard": (prints.cardboard, 24),
    "page": (prints.page, 24),
    "cover": (prints.cover, 48),
    "landscape": (prints.landscape, 24),
    "facade": (prints.facade, 32),
    "roof": (surfaces.roof, 8),
    "foliage": (surfaces.foliage, 16),
}


@lru_cache(maxsize=1)
def texture_bank() -> tuple[npt.NDArray[np.uint8], dict[str, range]]:
    """All layers (n, 128, 128, 4) uint8 and which of them are of which kind; the same in every process."""
    layers: list[npt.NDArray[np.uint8]] = []
    kinds: dict[str, range] = {}
    for kind, (paint, count) in _KINDS.items():
        kinds[kind] = range(len(layers), len(layers) + count)
        for index in range(count):
            seed = [_BANK_SEED, *kind.encode(), index]  # own stream each, so that new kinds leave old layers alone
            image = np.clip(paint(np.random.default_rng(seed)), 0, 1)
            if image.shape[2] == 3:
                image = np.dstack([image, np.ones((SIZE, SIZE))])
            layers.append(np.round(255 * image).astype(np.uint8))
    return np.stack(layers), kinds
