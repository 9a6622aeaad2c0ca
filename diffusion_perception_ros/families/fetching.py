"""Downloads checkpoints from the Hugging Face hub: resumed where they stopped, and checked against the hub's hashes.

`huggingface_hub` throws a half file away when its process ends, in `hf_hub_download` as in `snapshot_download`, and
compares sizes only. Weights here are single files of several gigabytes, so the transfer (its `http_get`) continues our
own partial files, and every file is hashed before it gets its final name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.catalogue import PublishedModel, Repository
from diffusion_perception_ros.families.checkpoint_files import choose_weights
from diffusion_perception_ros.families.hub_errors import hub_errors


_TEXTS = (".json", ".txt", ".model")
_PARTIAL = ".part"
_TIMEOUT = 30.0
"""Seconds to wait for the first answer of the hub."""
_SPARE = 1 << 28
"""Bytes that stay free on the disk."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository, as the hub lists it."""

    path: str
    size: int
    blob_id: str
    """git's hash of the content, or of the pointer that git holds of a large file."""
    sha256: str | None
    """Of the content of a large file (LFS), None for those that git holds itself."""


@dataclass(frozen=True)
class RepositoryPlan:
    """What will be downloaded of one repository."""

    repository: Repository
    commit: str
    licence: str | None
    """What its model card on the hub says, None if it says nothing."""
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """`owner/name@commit`, for a model card."""
        return f"{self.repository.id}@{self.commit[:12]}"

    def folder(self, downloads: Path) -> Path:
        """Where it lies below the folder of all downloads."""
        return downloads / self.repository.id.replace("/", "--") / self.commit


def downloads_folder() -> Path:
    """Where checkpoints are kept: `$XDG_CACHE_HOME` or `~/.cache`, then the package's name."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "diffusion_perception_ros" / "checkpoints"


def plan_download(entry: PublishedModel, revision: str | None = None) -> list[RepositoryPlan]:
    """Asks the hub what has to be downloaded for a model; downloads nothing.

    Args:
        entry: The model.
        revision: Branch, tag or commit of its checkpoint, None = the catalogue's.

    Raises:
        InputError: no network, no such repository or revision, no access, or files that the model needs are missing.
    """
    plans = [_plan(entry.checkpoint, revision or entry.checkpoint.revision)]
    if entry.base is not None:
        plans.append(_plan(entry.base, entry.base.revision))
    return plans


def download(plan: RepositoryPlan, downloads: Path, report: Report) -> Path:
    """Downloads what is missing of a repository, and checks all of it.

    Args:
        plan: From `plan_download`.
        downloads: Folder of all downloads.
        report: Told of every file that is begun, resumed or found complete.

    Returns:
        The checkpoint's folder; every file in it has the hash that the hub gives.

    Raises:
        InputError: no network, no access, no space, a wrong hash, or another process downloads the same.
    """
    folder = plan.folder(downloads)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_space(plan, folder)
        for file in plan.files:
            _download_file(plan, file, folder / file.path, report)
    return folder


def _plan(repository: Repository, revision: str) -> RepositoryPlan:
    api = _api()
    with hub_errors(repository.id, revision):
        info = api.model_info(repository.id, revision=revision, timeout=_TIMEOUT)
        if repository.gated or info.gated:
            api.auth_check(repository.id)
        assert info.sha is not None
        tree = list(api.list_repo_tree(repository.id, recursive=True, revision=info.sha))
    files = {
        entry.path: RemoteFile(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in tree
        if isinstance(entry, RepoFile)
    }
    licence = info.card_data.get("license") if info.card_data else None
    chosen = _choose_files(repository, sorted(files))
    return RepositoryPlan(repository, info.sha, licence, tuple(files[path] for path in chosen))


def _choose_files(repository: Repository, paths: Sequence[str]) -> list[str]:
    """The files that a repository's parts need: of several sets of weights one.

    Raises:
        InputError: a part or a file is not there, or its weights are pickled.
    """
    chosen = []
    for part in (*repository.parts, *repository.optional_parts):
        names = [path.removeprefix(f"{part}/") for path in paths if path.rpartition("/")[0] == part]
        if not names and part in repository.optional_parts:
            continue
        if not names:
            raise InputError(
                f"{repository.id} has no '{part}' any more: its publisher changed it, see {repository.page}; "
                "an older state can be named with --revision"
            )
        weights, _ = choose_weights(f"{repository.id}/{part}", names)
        texts = [name for name in names if name.endswith(_TEXTS) and ".index." not in name]
        chosen += [f"{part}/{name}" for name in dict.fromkeys([*texts, *weights])]
    missing = sorted(set(repository.files) - set(paths))
    if missing:
        raise InputError(f"{repository.id} has no file '{missing[0]}' any more, see {repository.page}")
    return [*chosen, *repository.files]


def _download_file(plan: RepositoryPlan, file: RemoteFile, path: Path, report: Report) -> None:
    if path.is_file():
        if _has_hash(path, file):
            report(f"{file.path}: complete")
            return
        path.unlink()  # damaged on this disk
    partial = path.with_name(path.name + _PARTIAL)
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.is_file() else 0
    if have > file.size:
        partial.unlink()
        have = 0
    report(f"{file.path}: {'going on after ' + format_size(have) + ' of ' if have else ''}{format_size(file.size)}")
    repository = plan.repository
    # Unbuffered, so that what was received is on the disk whenever this process ends.
    with hub_errors(repository.id, plan.commit), partial.open("ab", buffering=0) as stream:
        http_get(
            hf_hub_url(repository.id, file.path, revision=plan.commit, endpoint=_api().endpoint),
            stream,
            resume_size=have,
            expected_size=file.size,
            headers=build_hf_headers(),
            displayed_filename=file.path,
        )
    if not _has_hash(partial, file):
        partial.unlink()
        raise InputError(
            f"{file.path} of {repository.id} arrived with another hash than the hub gives for it, and was removed: "
            "run the command again; if it happens twice, something between here and the hub alters files"
        )
    os.replace(partial, path)


def _has_hash(path: Path, file: RemoteFile) -> bool:
    """Whether a file's content is what the hub lists: sha256 of large files, git's hash of those in git itself."""
    if path.stat().st_size != file.size:
        return False
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % file.size)
        expected = file.blob_id
    else:
        digest = hashlib.sha256()
        expected = file.sha256
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected


def _check_space(plan: RepositoryPlan, folder: Path) -> None:
    missing = sum(file.size for file in plan.files if not (folder / file.path).is_file())
    missing -= sum(partial.stat().st_size for partial in folder.rglob(f"*{_PARTIAL}"))
    free = shutil.disk_usage(folder).free
    if missing > 0 and free < missing + _SPARE:
        raise InputError(
            f"{plan.repository.id} needs {format_size(missing)} more in {folder}, where {format_size(free)} are free: "
            "make room, or set XDG_CACHE_HOME to a folder on another disk"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process from writing the same files."""
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is downloading to {folder}: wait for it, or end it") from None
        yield


def _api() -> HfApi:
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def format_size(size: float) -> str:
    """Bytes for people: `5.2 GB`, `312 kB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
