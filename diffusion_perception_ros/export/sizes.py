"""Sizes of a graph's image, as they are given on the command line."""

from __future__ import annotations

from diffusion_perception_ros.errors import InputError


MAX_SIDE = 4096
"""Largest side of a graph's image: a full-size network takes hundreds of gigabytes there already."""


def parse_size(text: str) -> tuple[int, int] | None:
    """`768x576` → (768, 576), `dynamic` → None.

    Raises:
        InputError: neither of them, or a side that no graph may have.
    """
    if text == "dynamic":
        return None
    width, separator, height = text.partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise InputError(f"--size is WIDTHxHEIGHT in pixels, such as 768x576, or 'dynamic', got '{text}'")
    size = int(width), int(height)
    if not all(0 < side <= MAX_SIDE for side in size):
        raise InputError(f"--size {text}: sides must be between 1 and {MAX_SIDE} pixels")
    return size
