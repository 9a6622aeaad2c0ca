"""Lets an algorithm of diffusers that is written for float32 compute in float64, to compare without rounding."""

from __future__ import annotations

from typing import Any

import torch


class DoublePrecision:
    """`torch` for diffusers' module, in which its alignment computes in float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
