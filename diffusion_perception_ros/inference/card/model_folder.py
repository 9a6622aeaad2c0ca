"""How a model folder is read and written. It is data: nothing in it is run, nothing is opened that is not hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import yaml
from pydantic import ValidationError

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.inference.card.external_data import GraphFileError, external_files
from diffusion_perception_ros.inference.card.model_card import ModelCard
from diffusion_perception_ros.safe_files import open_regular, read_yaml


CARD_NAME = "model.yaml"


class CardError(InputError):
    """A model folder that cannot be used; the message names the file, the field and the remedy."""


def read_card(folder: Path, verify_files: bool = True) -> ModelCard:
    """Reads and checks `folder/model.yaml`, the hash of every file that it names, and that its graphs open no others.

    Raises:
        CardError: no such folder or card, not YAML, a wrong field, a missing or altered file, one that is no regular
            file or lies elsewhere, or a graph that opens a file whose hash the card does not have.
    """
    path = folder / CARD_NAME
    try:
        fields = read_yaml(path)
    except FileNotFoundError:
        raise CardError(f"{folder} is not a model folder: it has no {CARD_NAME}") from None
    except InputError as error:
        raise CardError(str(error)) from error
    try:
        card = ModelCard.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'card'}: {problem['msg']}"
            for problem in error.errors()[:10]
        )
        raise CardError(f"{path} is not a valid model card: {problems}") from error
    if verify_files:
        _verify_files(folder, card)
        _verify_graphs(folder, card)
    return card


def write_card(card: ModelCard, folder: Path) -> None:
    """Writes `folder/model.yaml` atomically."""
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, width=119)
    with whole_file(folder / CARD_NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex digest of a regular file, read in pieces.

    Raises:
        OSError: the file cannot be read.
        InputError: it is a pipe, a device or larger than any file of a model.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _verify_files(folder: Path, card: ModelCard) -> None:
    # A build may install links to a source folder; then the card is such a link, too.
    homes = {folder.resolve(), (folder / CARD_NAME).resolve().parent}
    for name, expected in card.files.items():
        path = folder / name
        named = f"{path} is named by {folder / CARD_NAME} but"
        try:
            actual = sha256_of(path)
            real = path.resolve()
        except InputError as error:
            raise CardError(f"{path} is named by {folder / CARD_NAME} but cannot be used: {error}") from error
        except OSError as error:
            raise CardError(f"{named} cannot be read: {error.strerror}") from error
        if not any(real.is_relative_to(home) for home in homes):
            raise CardError(f"{named} is a link to {real}, outside the model folder: put the file itself there")
        if actual != expected:
            raise CardError(
                f"{path} does not match its card: sha256 is {actual[:12]}…, the card says {expected[:12]}…; "
                "fetch or export the model again"
            )


def _verify_graphs(folder: Path, card: ModelCard) -> None:
    for graph in card.graph_files.values():
        path = folder / graph
        try:
            locations = external_files(path)
        except (GraphFileError, InputError, OSError) as error:
            raise CardError(f"{path} cannot be used as an ONNX graph: {error}") from error
        for location in sorted(locations):
            if str(PurePosixPath(graph).parent / location) not in card.files:
                raise CardError(
                    f"{path} reads the file '{location}', whose sha256 is not among the card's 'files': "
                    "add it there, or export the model again"
                )
