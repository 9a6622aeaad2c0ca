"""The classes of the synthetic world, as a model card lists them."""

from __future__ import annotations

from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.world.labels import LABELS


def world_labels() -> tuple[Label, ...]:
    """One label per class id."""
    return tuple(
        Label(id=index, name=label.name, color=label.color, group=label.group, is_thing=label.is_thing)
        for index, label in enumerate(LABELS)
    )
