"""metadata.yaml of rosbag2: which files make a bag, how they are compressed, how many messages there should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


METADATA = "metadata.yaml"
STORAGES = (".mcap", ".db3")
COMPRESSED_SUFFIX = ".zstd"


@dataclass
class Metadata:
    """What is known of a bag's folder before its files are opened."""

    files: list[Path] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Messages per topic."""
    compressed_messages: bool = False
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def storage_files(folder: Path) -> list[Path]:
    """Storage files of a folder in the order of their numbers, compressed ones included."""
    return sorted((file for file in folder.iterdir() if is_storage(file)), key=_natural)


def is_storage(path: Path) -> bool:
    """Whether a name is that of a storage file of rosbag2."""
    return Path(path.name.removesuffix(COMPRESSED_SUFFIX)).suffix in STORAGES and path.is_file()


def read_metadata(folder: Path) -> Metadata:
    """What metadata.yaml says, and where it does not agree with the folder."""
    found = storage_files(folder)
    path = folder / METADATA
    if not path.is_file():
        return Metadata(found)
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        information = content["rosbag2_bagfile_information"]
        listed = [folder / PurePosixPath(str(name)).name for name in information["relative_file_paths"]]
        mode = str(information.get("compression_mode") or "").lower()
        counts = _counts(information)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        reason = f"{path} cannot be read ({type(error).__name__}): the storage files beside it are read"
        return Metadata(found, notes=[reason])
    metadata = Metadata(counts=counts, compressed_messages=mode == "message")
    for file in listed:
        packed = file.with_name(file.name + COMPRESSED_SUFFIX)
        if file.is_file() or packed.is_file():
            metadata.files.append(file if file.is_file() else packed)
        else:
            metadata.damage.append(f"{file} is missing, which {METADATA} names: its messages are lost")
    names = {name for file in listed for name in (file.name, file.name.removesuffix(COMPRESSED_SUFFIX))}
    for file in found:
        if file.name.removesuffix(COMPRESSED_SUFFIX) not in names:
            metadata.files.append(file)
            metadata.notes.append(f"{file} is read although {METADATA} does not name it")
    return metadata


def _counts(information: dict[str, Any]) -> dict[str, int]:
    topics = information.get("topics_with_message_count") or []
    return {str(topic["topic_metadata"]["name"]): int(topic["message_count"]) for topic in topics}


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Numbers in a name count as numbers: bag_10 comes after bag_9."""
    parts: list[str] = []
    for character in path.name:
        if parts and parts[-1].isdecimal() == character.isdecimal():
            parts[-1] += character
        else:
            parts.append(character)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
