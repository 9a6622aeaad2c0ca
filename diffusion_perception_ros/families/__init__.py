"""Published model families: one module each, which loads the original weights and follows their exact recipe.

A family's module has

- `RECIPES`: what it can do, one frozen `Recipe` per published kind of checkpoint;
- `load(checkpoint, task, options) -> FamilyModel`: the PyTorch module, from a local folder or a hub id.
"""

from __future__ import annotations

import importlib
from types import ModuleType


FAMILIES = {
    "lotus": "lotus",
    "genpercept": "genpercept",
    "marigold": "marigold",
    "e2e-ft": "e2e_ft",
    "diception": "diception",
    "scaling": "scaling",
}
"""Name on the command line → module of this folder, imported only when asked for: they import torch and diffusers."""


def family_module(name: str) -> ModuleType:
    """The module of a family.

    Raises:
        KeyError: there is no such family.
    """
    return importlib.import_module(f"{__name__}.{FAMILIES[name]}")
