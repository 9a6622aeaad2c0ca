"""The semantic classes of the synthetic world, which become the labels of every model trained on it."""

from __future__ import annotations

from typing import NamedTuple


class WorldLabel(NamedTuple):
    """One class: its colour is for eyes, its group is the coarse class used in evaluation."""

    name: str
    group: str
    color: tuple[int, int, int]
    is_thing: bool
    """Countable objects get instance ids; stuff (walls, ground, sky) does not."""


LABELS: tuple[WorldLabel, ...] = (
    WorldLabel("wall", "wall", (174, 199, 232), False),
    WorldLabel("floor", "floor", (152, 118, 84), False),
    WorldLabel("ceiling", "ceiling", (220, 220, 200), False),
    WorldLabel("door", "wall", (214, 39, 40), True),
    WorldLabel("window", "wall", (140, 220, 255), True),
    WorldLabel("stairs", "floor", (120, 90, 160), True),
    WorldLabel("table", "furniture", (255, 152, 84), True),
    WorldLabel("chair", "furniture", (188, 189, 34), True),
    WorldLabel("sofa", "furniture", (140, 86, 75), True),
    WorldLabel("bed", "furniture", (255, 187, 120), True),
    WorldLabel("cabinet", "furniture", (31, 119, 180), True),
    WorldLabel("shelf", "furniture", (148, 103, 189), True),
    WorldLabel("lamp", "object", (255, 240, 110), True),
    WorldLabel("plant", "object", (70, 160, 60), True),
    WorldLabel("picture", "wall", (196, 156, 148), True),
    WorldLabel("curtain", "wall", (219, 112, 147), True),
    WorldLabel("screen", "object", (20, 70, 110), True),
    WorldLabel("appliance", "furniture", (160, 170, 200), True),
    WorldLabel("sanitary", "furniture", (225, 245, 245), True),
    WorldLabel("box", "object", (200, 140, 60), True),
    WorldLabel("container", "object", (23, 190, 207), True),
    WorldLabel("object", "object", (247, 120, 182), True),
    WorldLabel("person", "person", (230, 25, 75), True),
    WorldLabel("animal", "object", (170, 110, 40), True),
    WorldLabel("car", "vehicle", (0, 60, 200), True),
    WorldLabel("truck", "vehicle", (0, 20, 110), True),
    WorldLabel("cycle", "vehicle", (119, 11, 132), True),
    WorldLabel("vegetation", "vegetation", (40, 110, 35), False),
    WorldLabel("building", "building", (110, 110, 120), False),
    WorldLabel("ground", "floor", (120, 150, 70), False),
    WorldLabel("road", "floor", (90, 64, 110), False),
    WorldLabel("sky", "sky", (70, 130, 210), False),
)

CLASS_ID: dict[str, int] = {label.name: index for index, label in enumerate(LABELS)}
"""Class name to id."""
