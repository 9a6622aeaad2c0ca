"""The folder that an export writes, and what it may take the place of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.folders import replaced_by, replacing_folder
from diffusion_perception_ros.inference.card import CARD_NAME
from diffusion_perception_ros.safe_files import read_yaml


README = "README.md"
CREDITS = "CREDITS.md"
_ENGINES = "engines"
"""Where the runtime keeps what it built for one GPU."""


@contextmanager
def new_model_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block succeeds; see `folders.replacing_folder`.

    Raises:
        InputError: `output` exists and `overwrite` is not set or it is not a model folder, or it cannot be written.
    """
    with replacing_folder(output, overwrite, identify_model) as folder:
        yield folder


def write_documents(folder: Path, readme: str, credits: str | None) -> None:
    """Writes what is there for people: README.md, and CREDITS.md if there is an attribution."""
    (folder / README).write_text(readme, encoding="utf-8")
    if credits is not None:
        (folder / CREDITS).write_text(credits, encoding="utf-8")


def read_credits(path: Path | None) -> str | None:
    """The text of an attribution, None without a path.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def replaced_model(output: Path, overwrite: bool) -> str | None:
    """What an export to `output` would replace, in words; None if nothing is there. To ask before the long work.

    Raises:
        InputError: `output` exists and `overwrite` is not set, or it is not a model folder.
    """
    return replaced_by(output, overwrite, identify_model)


def identify_model(folder: Path) -> str:
    """What model a folder holds, in words. Cards of other versions count, too.

    Raises:
        InputError: it has no model card, or holds something that is no part of the model.
    """
    card = _read_fields(folder)
    parts = {CARD_NAME, README, CREDITS, _ENGINES, *card["files"]}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in parts)
    if foreign:
        raise InputError(
            f"{folder} is the model folder of '{card['name']}' but also holds {foreign[0]}, which is no part of it: "
            "move that away or choose another folder; nothing was changed"
        )
    return f"the model '{card['name']}' ({card['family']}, {len(card['files'])} files)"


def _read_fields(folder: Path) -> dict[str, Any]:
    path = folder / CARD_NAME
    refusal = f"{folder} is not a model folder, and --overwrite replaces nothing else: choose another folder"
    if not path.is_file():
        raise InputError(f"{refusal} ({CARD_NAME} is missing)")
    try:
        fields = read_yaml(path)
    except InputError as error:
        raise InputError(f"{refusal} ({error})") from error
    is_card = isinstance(fields, dict) and {"schema_version", "name", "family"} <= fields.keys()
    if not is_card or not isinstance(fields.get("files"), dict):
        raise InputError(f"{refusal} ({CARD_NAME} is not a model card)")
    return dict(fields)
