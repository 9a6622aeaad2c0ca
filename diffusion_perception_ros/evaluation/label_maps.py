"""Which classes of a data set are compared with which labels of a model (`labels/<set>.yaml`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import Label


class ComparedClass(BaseModel):
    """One class of the comparison."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truth: tuple[str, ...]
    """Names of the data set's classes."""
    model: tuple[str, ...] | Literal["rest"]
    """Names or groups of the model's labels; `rest`: every label that belongs to none of the other classes."""


class LabelMap(BaseModel):
    """The classes that are compared, by name, in the order of their ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: dict[str, ComparedClass]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the compared classes; their index is their id."""
        return tuple(self.classes)

    @property
    def unknown(self) -> int:
        """Id of a ground-truth pixel that is not compared, and of a predicted label that is none of the classes."""
        return len(self.classes)

    def truth_ids(self, semantic: npt.NDArray[np.integer], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """(H, W) compared ids of a ground truth whose ids are named by `classes`."""
        table = np.full(max(256, len(classes)), self.unknown, np.int64)
        for index, compared in enumerate(self.classes.values()):
            for name in compared.truth:
                if name in classes:
                    table[classes.index(name)] = index
        return np.asarray(table[semantic], np.int64)

    def model_ids(self, semantic: npt.NDArray[np.integer], labels: Sequence[Label]) -> npt.NDArray[np.int64]:
        """(H, W) compared ids of a prediction whose ids are those of the card's labels."""
        table = np.full(65536, self.unknown, np.int64)
        rest = next((i for i, compared in enumerate(self.classes.values()) if compared.model == "rest"), self.unknown)
        for label in labels:
            table[label.id] = self._class_of(label, rest)
        return np.asarray(table[semantic], np.int64)

    def _class_of(self, label: Label, rest: int) -> int:
        for key in (label.name, label.group):
            for index, compared in enumerate(self.classes.values()):
                if key is not None and compared.model != "rest" and key in compared.model:
                    return index
        return rest


@cache
def read_label_map(label_set: str) -> LabelMap:
    """The mapping of a data set.

    Raises:
        InputError: no mapping of that name, or one that cannot be used.
    """
    source = files(__package__) / "labels" / f"{label_set}.yaml"
    try:
        return LabelMap.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"there is no label mapping '{label_set}': add {source}") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{source} is not a label mapping: {error}") from error
