"""The published checkpoints that can be fetched, by short names: `catalogue.yaml` beside this file."""

from __future__ import annotations

import difflib
import functools
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from diffusion_perception_ros.errors import InputError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repository(_Strict):
    """One repository of the Hugging Face hub, and what is needed of it."""

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    parts: tuple[str, ...] = ()
    """Sub-folders with a config and weights, in the layout of diffusers."""
    optional_parts: tuple[str, ...] = ()
    """Sub-folders that are used where the repository has them."""
    files: tuple[str, ...] = ()
    """Single files, for checkpoints in a layout of their own."""
    gated: bool = False
    """The hub gives the files only to those who have accepted the terms on its page."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Repository:
        if not self.parts and not self.files:
            raise ValueError(f"{self.id} names neither 'parts' nor 'files'")
        return self

    @property
    def page(self) -> str:
        """Its page on the hub, where the terms are."""
        return f"https://huggingface.co/{self.id}"


class PublishedModel(_Strict):
    """One model that can be fetched: what it gives, under which terms, and how it becomes a model folder."""

    name: str
    family: str
    task: str
    """Of `diffusion-perception export`."""
    quantity: str
    """Of the card's first output."""
    description: str
    licence: str
    """Terms of the weights; what the hub says is shown beside it before anything is downloaded."""
    non_commercial: bool = False
    checkpoint: Repository
    base: Repository | None = None
    """Gives the parts that the checkpoint lacks."""
    gigabytes: float = Field(gt=0)
    """About; the hub gives the exact size before the download begins."""
    steps: int = Field(default=1, ge=1)
    settings: dict[str, str] = Field(default_factory=dict)
    """The family's own settings."""

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """The checkpoint and its base."""
        return (self.checkpoint,) if self.base is None else (self.checkpoint, self.base)

    @property
    def gated(self) -> bool:
        """Whether one of the repositories asks for an account that has accepted its terms."""
        return any(repository.gated for repository in self.repositories)

    @property
    def needs_acceptance(self) -> bool:
        """Whether a user has to say that the terms are accepted before anything is downloaded."""
        return self.non_commercial or self.gated


@functools.cache
def read_catalogue() -> dict[str, PublishedModel]:
    """Every entry by name, in the order of the file."""
    text = resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    # Keys that start with a dot only hold what several entries share, through YAML's anchors.
    fields = {name: {"name": name, **entry} for name, entry in document.items() if not name.startswith(".")}
    return TypeAdapter(dict[str, PublishedModel]).validate_python(fields)


def find_entry(name: str) -> PublishedModel:
    """The entry of a name.

    Raises:
        InputError: there is none; the message has the nearest names.
    """
    catalogue = read_catalogue()
    if name not in catalogue:
        near = difflib.get_close_matches(name, catalogue, n=4, cutoff=0.4) or list(catalogue)[:4]
        raise InputError(
            f"the catalogue has no model '{name}'; the nearest are {', '.join(near)} "
            "('diffusion-perception models list --available' shows all)"
        )
    return catalogue[name]
