"""What the scripts of this folder share: a stand-in for torchvision, and rows of a Markdown table."""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


ROOT = Path(__file__).resolve().parents[2]
HEADER = "| model | stage | largest | mean |\n|---|---|---|---|"

Row = tuple[str, Any, Any]
"""Stage, ours, theirs."""


def prepare(repository: Path) -> None:
    """Makes the published code importable, and this repository's writers of small checkpoints."""
    torch.set_num_threads(2)
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")  # of deprecations in the published code
    if importlib.machinery.PathFinder.find_spec("torchvision") is None:
        _provide_torchvision()
    sys.path[:0] = [str(repository), str(ROOT / "test" / "support")]


def smooth_picture(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8, the same every time."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def normalised(rgb: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 → (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255 * 2 - 1)


def table_rows(model: str, rows: Iterable[Row]) -> str:
    """Lines of the table with the largest and the mean difference."""
    lines = []
    for stage, ours, theirs in rows:
        one, other = np.squeeze(np.asarray(ours)), np.squeeze(np.asarray(theirs))
        assert one.shape == other.shape, f"{model}, {stage}: {one.shape} and {other.shape}"
        difference = np.abs(one - other)
        lines.append(f"| {model} | {stage} | {difference.max():.2g} | {difference.mean():.2g} |")
    return "\n".join(lines)


def _provide_torchvision() -> None:
    """`resize` and `pil_to_tensor`, which are all that the published code takes from torchvision."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    _, transforms, functional = (sys.modules[name] for name in names)
    transforms.InterpolationMode = _InterpolationMode  # type: ignore[attr-defined]
    functional.resize, functional.pil_to_tensor = _resize, _pil_to_tensor  # type: ignore[attr-defined]


class _InterpolationMode(enum.Enum):
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"


def _resize(
    img: torch.Tensor,
    size: Any,
    interpolation: _InterpolationMode = _InterpolationMode.BILINEAR,
    antialias: bool = True,
) -> torch.Tensor:
    """As torchvision does it: in float32, then rounded for pictures of whole numbers."""
    smooth = interpolation in (_InterpolationMode.BILINEAR, _InterpolationMode.BICUBIC)
    options = {"antialias": antialias, "align_corners": False} if smooth else {}
    batch = img if img.ndim == 4 else img[None]
    resized = F.interpolate(batch.float(), size=tuple(size), mode=interpolation.value, **options)
    if not img.is_floating_point():
        resized = resized.round().clamp(0, 255).to(img.dtype)
    return resized if img.ndim == 4 else resized[0]


def _pil_to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
