"""Which procedural item stands for which class of the world's labels."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_perception_ros.world.builder import Item, SceneBuilder
from diffusion_perception_ros.world.items import (
    appliances,
    fixtures,
    furniture,
    objects,
    people,
    plants,
    seating,
    vehicles,
)


def make(builder: SceneBuilder, label: str, placements: Sequence[str]) -> Item:
    """A procedural item of a thing's class (or a tree, for `vegetation`) that suits one of the placements."""
    if label in _BY_PLACEMENT:
        return _BY_PLACEMENT[label](builder, placements)
    if label == "object":
        return fixtures.wall_object(builder) if "wall" in placements else objects.small_thing(builder, 0.0)
    if label == "container":
        return (objects.tray, objects.vase, objects.bowl)[int(builder.rng.integers(3))](builder)
    return _MAKERS[label](builder)


_BY_PLACEMENT = {"lamp": fixtures.lamp, "screen": fixtures.screen, "appliance": appliances.appliance}
_MAKERS = {
    "door": fixtures.door,
    "window": fixtures.window,
    "stairs": fixtures.stairs,
    "table": furniture.table,
    "chair": seating.chair,
    "sofa": seating.sofa,
    "bed": furniture.bed,
    "cabinet": furniture.cabinet,
    "shelf": furniture.shelf,
    "plant": plants.potted_plant,
    "picture": fixtures.picture,
    "curtain": fixtures.curtain,
    "sanitary": appliances.sanitary,
    "box": objects.carton,
    "person": people.person,
    "animal": people.animal,
    "car": vehicles.car,
    "truck": vehicles.truck,
    "cycle": vehicles.cycle,
    "vegetation": plants.tree,
}
