"""Colours as annotation tools write them."""

from __future__ import annotations

import re
from typing import Any

from matplotlib import colors as names


Color = tuple[int, int, int]


def read_color(value: Any) -> Color | None:
    """RGB of `[r, g, b]`, `[r, g, b, a]`, `#rgb`, `#rrggbb`, `#rrggbbaa`, `rgb(r, g, b)` or a name; else None."""
    if isinstance(value, (list, tuple)) and len(value) in (3, 4):
        numbers = [number for number in value[:3] if isinstance(number, (int, float)) and not isinstance(number, bool)]
        if len(numbers) == 3 and all(0 <= number <= 255 for number in numbers):
            share = any(isinstance(number, float) for number in numbers) and max(numbers) <= 1
            red, green, blue = (round(number * (255 if share else 1)) for number in numbers)
            return red, green, blue
        return None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if match := re.fullmatch(r"rgba?\(([^)]*)\)", text):
        return read_color([int(part) for part in re.findall(r"\d+", match[1])[:3]])
    text = text if not re.fullmatch(r"[0-9a-f]{6}", text) else f"#{text}"
    if names.is_color_like(text):
        red, green, blue = (round(255 * channel) for channel in names.to_rgb(text))
        return red, green, blue
    return None
