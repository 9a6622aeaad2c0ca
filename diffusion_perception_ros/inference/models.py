"""Where model folders live, and how a name becomes one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import CARD_NAME, ModelCard, read_card


DEFAULT_MODEL = "onestep-m"
"""The better of the models that ship with the package."""

PACKAGE = "diffusion_perception_ros"
MODELS_VARIABLE = "DIFFUSION_PERCEPTION_MODELS"


@dataclass(frozen=True)
class ModelEntry:
    """One model folder found on the search path."""

    name: str
    """The folder's name, by which `find_model` knows it."""
    folder: Path
    card: ModelCard | None
    """None if the card cannot be used; `error` then says why. The hashes of the files are not checked."""
    error: str | None


def user_models_folder() -> Path:
    """Where models of this user are installed: `$XDG_DATA_HOME` or `~/.local/share`, then the package's name."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / PACKAGE / "models"


def search_path() -> list[Path]:
    """Folders that hold model folders, the first match wins; they need not exist.

    The user's own come first: `$DIFFUSION_PERCEPTION_MODELS` (several, split like `$PATH`), then
    `user_models_folder()`, then what came with the code that runs: the source checkout, `models` inside the Python
    package (pip), the share folder of every ament prefix (colcon).
    """
    folders = [Path(part).expanduser() for part in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if part]
    folders.append(user_models_folder())
    package = Path(__file__).resolve().parents[1]
    if (package.parent / "package.xml").is_file():
        folders.append(package.parent / "models")
    folders.append(package / "models")
    prefixes = [part for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    folders += [Path(prefix) / "share" / PACKAGE / "models" for prefix in prefixes]
    return list(dict.fromkeys(folders))


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a model given by name or by path.

    Anything with a path separator, or starting with `~` or `.`, is a path; everything else is looked up by name in
    `search_path()` and then tried as a folder of the working directory.

    Raises:
        InputError: there is none; the message lists where it was looked for and what exists.
    """
    text = os.fspath(name_or_path)
    if not text:
        raise InputError("the model's name is empty; 'diffusion-perception models list' shows what there is")
    path = Path(text).expanduser()
    if len(path.parts) > 1 or text.startswith(("~", ".")):
        if not path.is_dir():
            raise InputError(f"there is no model folder {path}")
        return path
    for folder in [*search_path(), Path()]:
        if (folder / text / CARD_NAME).is_file():
            return folder / text
    searched = ", ".join(str(folder) for folder in search_path())
    known = ", ".join(sorted({entry.name for entry in list_models()})) or "none"
    raise InputError(f"there is no model '{text}'; models found: {known}; searched: {searched}")


def list_models() -> list[ModelEntry]:
    """Every model that `find_model` would find by name, in order of name. Broken cards are listed with their error."""
    folders: dict[str, Path] = {}
    for parent in search_path():
        try:
            found = sorted(card.parent for card in parent.glob(f"*/{CARD_NAME}"))
        except OSError:  # a folder that may not be read offers nothing
            continue
        for folder in found:
            folders.setdefault(folder.name, folder)
    return [_entry(name, folders[name]) for name in sorted(folders)]


def _entry(name: str, folder: Path) -> ModelEntry:
    try:
        return ModelEntry(name, folder, read_card(folder, verify_files=False), None)
    except InputError as error:
        return ModelEntry(name, folder, None, str(error))
