"""`diffusion-perception research create`: new labelled pairs from a network that creates them (Diff-2-in-1)."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from rich.console import Console

from diffusion_perception_ros.datasets.shards import ShardDataset, ShardWriter, read_manifest
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import write_bytes
from diffusion_perception_ros.folders import replaced_by, replacing_folder
from diffusion_perception_ros.sample import Sample


if TYPE_CHECKING:
    from diffusion_perception_ros.research.creation import Creator


_SHEET_PAIRS = 32
_SHARD = "created"
"""Name of the only shard in the output folder."""
Pair = tuple[Sample | None, Sample]
"""The real pair that it was made from, if any, and the created one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `create`."""
    parser.add_argument("run", type=Path, help="run folder or checkpoint of config/train/diff2in1.yaml")
    parser.add_argument("--data", type=Path, metavar="SHARDS", help="real pairs to start from")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="pairs to create (default: %(default)s)")
    parser.add_argument(
        "--noise-level",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="how far the real pairs are noised; 1: create from pure noise, without data (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="denoising steps from pure noise on (default: as trained)"
    )
    parser.add_argument(
        "--labels",
        choices=("perceived", "generated"),
        default="perceived",
        help="what the network perceives in the created image, or what came out with it (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="image of the first pairs, .png or .jpg")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the pairs, as shards")
    parser.add_argument("--overwrite", action="store_true", help="replace pairs created before")


def run(args: argparse.Namespace) -> int:
    """Creates, writes and draws."""
    _check(args)
    replaced = replaced_by(args.output, args.overwrite, _identify_pairs) if args.output else None
    from diffusion_perception_ros.research.creation import Creator  # imports torch: only when it is needed
    from diffusion_perception_ros.training.trainer import BEST

    best = args.run / BEST
    creator = Creator(best if best.is_dir() else args.run, args.steps)
    pairs = _pairs(creator, args)
    shown = list(itertools.islice(pairs, _SHEET_PAIRS))
    if args.output:
        _write(itertools.chain(shown, pairs), creator, args)
        _say(f"{args.count} pairs: {args.output}{f' (replaced {replaced})' if replaced else ''}")
    if args.sheet:
        _draw(shown, args.sheet)
        _say(f"{len(shown)} pairs: {args.sheet}")
    return 0


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


def _check(args: argparse.Namespace) -> None:
    if not (args.output or args.sheet):
        raise InputError("say where to write the pairs (-o DIR), an image of them (--sheet FILE), or both")
    if args.sheet and args.sheet.suffix.lower() not in (".png", ".jpg"):
        raise InputError(f"--sheet {args.sheet}: the name must end in .png or .jpg")
    if not 0 < args.noise_level <= 1:
        raise InputError(f"--noise-level {args.noise_level}: it is a share of T, above 0 and at most 1")
    for name in ("count", "steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: at least 1")
    if args.noise_level < 1 and args.data is None:
        raise InputError("--data is missing, the real pairs to start from; --noise-level 1 needs none")


def _pairs(creator: Creator, args: argparse.Namespace) -> Iterator[Pair]:
    if args.noise_level == 1:
        for created in creator.from_noise(args.count, args.labels, args.seed):
            yield None, created
        return
    dataset = ShardDataset(args.data)
    if args.count > len(dataset):
        raise InputError(
            f"{args.data} holds {len(dataset)} samples, --count asks for {args.count}: ask for fewer, or create from "
            "pure noise with --noise-level 1"
        )
    yield from creator.from_real(dataset, range(args.count), args.noise_level, args.labels, args.seed)


def _write(pairs: Iterable[Pair], creator: Creator, args: argparse.Namespace) -> None:
    width, height = creator.size
    origin = {name: getattr(args, name) for name in ("noise_level", "labels", "seed")}
    with replacing_folder(args.output, args.overwrite, _identify_pairs) as folder:
        writer = ShardWriter(folder / _SHARD, args.count, height, width)
        for _, created in pairs:
            writer.append(created, tags=["created"])
        writer.finish({"created_by": str(args.run), **origin})


def _identify_pairs(folder: Path) -> str:
    """What pairs a folder holds, in words.

    Raises:
        InputError: it holds anything else than one shard of created pairs.
    """
    if [path.name for path in folder.iterdir()] != [_SHARD]:
        raise InputError(
            f"{folder} does not hold created pairs and nothing else, and --overwrite replaces only such a folder: "
            "choose another one"
        )
    return f"{read_manifest(folder / _SHARD)['count']} created pairs"


def _draw(pairs: Sequence[Pair], path: Path) -> None:
    from diffusion_perception_ros.research.creation import pair_sheet

    suffix = path.suffix.lower()
    smallest = [cv2.IMWRITE_PNG_COMPRESSION, 9] if suffix == ".png" else []
    _, image = cv2.imencode(suffix, pair_sheet(pairs)[..., ::-1], smallest)
    write_bytes(path, image.tobytes())
