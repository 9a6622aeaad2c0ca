"""Files that ship with the package, from a checkout or an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from diffusion_perception_ros.errors import InputError


PACKAGE = "diffusion_perception_ros"


def find_resource(relative: str) -> Path:
    """A file or folder such as `config/fastdds_large_images.xml`: in the checkout, else in an installed share folder.

    Raises:
        InputError: it is in none of them.
    """
    prefixes = [part for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    folders = [Path(__file__).resolve().parents[2]]
    folders += [Path(prefix) / "share" / PACKAGE for prefix in [*prefixes, sys.prefix]]
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    raise InputError(f"{relative} is missing from {' and '.join(str(folder) for folder in folders)}: install it again")
