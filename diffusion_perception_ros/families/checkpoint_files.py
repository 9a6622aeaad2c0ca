"""The files of a checkpoint: a local folder or a repository of the Hugging Face hub, in the layout of diffusers.

A part is a sub-folder with a config and one set of weights. Only safetensors are taken; of several sets the full
precision. A hub id is looked up in the local cache when there is no network or `HF_HUB_OFFLINE` is set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.hub_errors import first_line, refusal


_STEMS = ("diffusion_pytorch_model", "model")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
_MARKERS = ("config.json", "tokenizer_config.json", "scheduler_config.json", "spiece.model", "vocab.json")
"""Files one of which every part has."""
_TIMEOUT = 10.0
"""Seconds to wait for the hub."""
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class CheckpointPart:
    """A sub-folder of a checkpoint, on this disk."""

    root: Path
    subfolder: str
    """Empty for checkpoints that are a single network."""
    variant: str | None
    """`fp16` where nothing but half precision is published, else None."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.root / self.subfolder


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint, downloaded when they are asked for."""

    name: str
    revision: str | None = None
    role: str = ""
    """What it is for, in messages, where that is not plain: `tiny autoencoder`."""

    def __post_init__(self) -> None:
        if not self.is_local and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.name):
            raise InputError(
                f"the {self.role or 'checkpoint'} '{self.name}' is neither a folder of this machine nor a hub id such "
                "as 'owner/name'"
            )
        if self.is_local and self.revision is not None:
            raise InputError(f"{self.name} is a local folder: a revision belongs to hub ids only, leave it out")

    @property
    def is_local(self) -> bool:
        """A folder of this machine, not a hub id."""
        return Path(self.name).expanduser().is_dir()

    def has_part(self, subfolder: str) -> bool:
        """Whether the checkpoint has a sub-folder with files.

        Raises:
            InputError: a hub id that cannot be looked up.
        """
        return bool(self._names(subfolder))

    def part(self, subfolder: str) -> CheckpointPart:
        """A sub-folder with its config and, if it is a network's, one set of weights.

        Raises:
            InputError: the part or its weights are missing, pickled, incomplete, or cannot be downloaded.
        """
        names = self._names(subfolder)
        where = _join(self.name, subfolder).rstrip("/")
        if not names:
            raise InputError(
                f"{self._describe(subfolder)} is missing: it needs a folder with a config and safetensors weights, as "
                "save_pretrained writes them"
            )
        weights, variant = choose_weights(where, names)
        configs = [name for name in names if _is_text(name)]
        folder = self._root([_join(subfolder, name) for name in [*configs, *weights]])
        for name in weights:
            if name.endswith(".safetensors"):
                check_safetensors(folder / subfolder / name)
        return CheckpointPart(folder, subfolder, variant)

    def file(self, name: str) -> Path:
        """A single file, for checkpoints that are not in the layout of diffusers.

        Raises:
            InputError: it is missing or cannot be downloaded.
        """
        path = self._root([name]) / name
        if not path.is_file():
            raise InputError(f"the checkpoint {self.name} has no file '{name}'")
        return path

    def _describe(self, subfolder: str) -> str:
        """A part for messages; checkpoints of one network have it at their root."""
        title = f"the part '{subfolder}' of " if subfolder else ""
        return title + (f"the {self.role} {self.name}" if self.role else f"the checkpoint {self.name}")

    def _names(self, subfolder: str) -> list[str]:
        """Names of the files directly in a sub-folder."""
        if self.is_local:
            return _local_names(Path(self.name).expanduser() / subfolder)
        if constants.HF_HUB_OFFLINE:
            return _local_names(self._cached(subfolder))
        try:
            siblings = HfApi().model_info(self.name, revision=self.revision, timeout=_TIMEOUT).siblings
        except Exception as error:  # the hub client's HTTP library, and so its errors, depend on its version
            self._explain(error)
            return _local_names(self._cached(subfolder))
        files = [sibling.rfilename for sibling in siblings or ()]
        prefix = _join(subfolder, "")
        return sorted(name for file in files if file.startswith(prefix) and "/" not in (name := file[len(prefix) :]))

    def _cached(self, subfolder: str) -> Path:
        """A sub-folder in the hub's cache on this disk."""
        for marker in _MARKERS:
            try:
                path = hf_hub_download(
                    self.name, _join(subfolder, marker), revision=self.revision, local_files_only=True
                )
            except (EntryNotFoundError, OSError):
                continue
            return Path(path).parent
        raise InputError(
            f"{self._describe(subfolder)} is not in the local cache and the hub cannot be reached "
            "(no network, or HF_HUB_OFFLINE is set): connect once, or give a folder with the checkpoint"
        )

    def _root(self, files: list[str]) -> Path:
        """The checkpoint's folder on this disk, after the files named are in it."""
        if self.is_local:
            return Path(self.name).expanduser()
        root = None
        for file in files:
            try:
                path = hf_hub_download(self.name, file, revision=self.revision)
            except Exception as error:  # see _names
                self._explain(error)
                raise InputError(
                    f"'{file}' of {self.name} cannot be downloaded: {first_line(error)}; run the command again when "
                    "there is network, it goes on where it stopped"
                ) from error
            root = Path(path).parents[file.count("/")]
        assert root is not None
        return root

    def _explain(self, error: Exception) -> None:
        """Raises an InputError for what is wrong with the id; returns if the hub could not be reached."""
        if not isinstance(error, OfflineModeIsEnabled) and (refused := refusal(error, self.name, self.revision)):
            raise refused from error


def choose_weights(where: str, names: list[str]) -> tuple[list[str], str | None]:
    """Which of a folder's files are the weights to load, and their variant.

    Args:
        where: The folder, for messages.
        names: Its files.

    Returns:
        Names, empty for a folder without networks (a tokenizer or scheduler); `fp16` if only that is published.

    Raises:
        InputError: the weights are pickled only, or missing.
    """
    for variant in (None, "fp16"):
        for stem in _STEMS:
            single = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
            if single in names:
                return [single], variant
            index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
            if index in names:
                shards = re.compile(rf"{stem}(\.{variant})?-\d+-of-\d+(\.{variant})?\.safetensors")
                return [index, *(name for name in names if shards.fullmatch(name))], variant
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise InputError(
            f"{where} holds its weights only as {pickles[0]}, a format that can run code when it is read: convert it "
            "once with save_pretrained(..., safe_serialization=True), or take a revision with safetensors"
        )
    if "config.json" in names:
        raise InputError(
            f"{where} has a config.json but no weights: {_STEMS[0]}.safetensors or {_STEMS[1]}.safetensors is "
            "missing; download the checkpoint again"
        )
    return [], None


def check_safetensors(path: Path) -> None:
    """Checks that a weights file is complete.

    Raises:
        InputError: it is missing, cut off, or a Git LFS pointer.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise InputError(f"{path} is a Git LFS pointer, not the weights: run 'git lfs pull' in the checkpoint")
        with safe_open(path, framework="numpy"):
            pass
    except FileNotFoundError:
        raise InputError(f"{path} is missing: download the checkpoint again") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is incomplete or damaged ({first_line(error)}): delete it and download it again"
        ) from error


def _join(folder: str, name: str) -> str:
    """A path inside a checkpoint; the root is the empty string."""
    return "/".join(part for part in (folder, name) if part) + ("/" if folder and not name else "")


def _local_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _is_text(name: str) -> bool:
    """Configs, vocabularies and merges: small files that a part needs besides its weights."""
    return name.endswith((".txt", ".model", ".yaml")) or (name.endswith(".json") and ".index." not in name)
