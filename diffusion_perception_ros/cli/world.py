"""`diffusion-perception world`: samples of the synthetic world, as shards for training or as an image for eyes."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import cv2

from diffusion_perception_ros.cli.common import progress_bar
from diffusion_perception_ros.datasets.shard_rendering import SHARD_SIZE, render_shards
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.world.config import TARGETS, WorldConfig, load_config
from diffusion_perception_ros.world.generate import render_seeds, shared_renderer
from diffusion_perception_ros.world.sheet import contact_sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write shards below this folder; resumable")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet of every modality instead")
    parser.add_argument("--clip", type=Path, metavar="DIR", help="write the demo's clip as a bag (mcap) instead")
    parser.add_argument("--count", type=_positive, default=8, metavar="N", help="number of samples (default 8)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the first sample (default 0)")
    parser.add_argument("--size", type=_size, default=(320, 240), metavar="WxH", help="image size (default 320x240)")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), metavar="K", help="processes")
    parser.add_argument("--shard", type=_positive, default=SHARD_SIZE, metavar="N", help="samples per shard")
    parser.add_argument(
        "--supersample", type=int, choices=(1, 2), default=1, help="2: colour from 4 samples per pixel, slower"
    )
    parser.add_argument(
        "--meshes", type=Path, metavar="DIR", help="Sweet Home 3D catalogues (.sh3f, .jar) to furnish with"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        metavar="T",
        help=f"more ground truth, at a cost: {', '.join(TARGETS)}",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="ranges to draw from; see world/config.py")
    parser.add_argument("--json", action="store_true", help="report on stdout as JSON")


def run(args: argparse.Namespace) -> int:
    """Writes shards, draws a sheet or writes the clip."""
    if sum(target is not None for target in (args.output, args.sheet, args.clip)) != 1:
        raise InputError(
            "Say one of: where to write shards (-o DIR), a contact sheet (--sheet FILE), a clip (--clip DIR)."
        )
    started = time.monotonic()
    if args.clip:
        report = _write_clip(args)
    else:
        config = _config(args)
        report = _draw_sheet(args, config) if args.sheet else _write_shards(args, config)
    report["seconds"] = round(time.monotonic() - started, 3)
    report["images_per_second"] = round(report["written"] / max(report["seconds"], 1e-9), 2)
    if args.json:
        print(json.dumps(report))
    else:
        print(
            f"{report['written']} samples in {report['seconds']:.1f} s ({report['images_per_second']:.1f}/s)"
            f" → {report['output']}"
        )
    return 0


def _config(args: argparse.Namespace) -> WorldConfig:
    config = load_config(args.config) if args.config else WorldConfig()
    given = {"meshes": args.meshes, "targets": args.targets and tuple(dict.fromkeys(args.targets))}
    return config.model_copy(update={name: value for name, value in given.items() if value})


def _write_shards(args: argparse.Namespace, config: WorldConfig) -> dict[str, Any]:
    seeds = range(args.seed, args.seed + args.count)
    with progress_bar() as progress:
        task = progress.add_task("rendering", total=args.count)
        result = render_shards(
            config,
            seeds,
            args.size,
            args.output,
            args.workers,
            args.shard,
            args.supersample,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    if result.rejected:
        print(f"replaced {len(result.rejected)} unusable scenes: {'; '.join(result.rejected[:5])}", file=sys.stderr)
    return {
        "output": str(args.output),
        "written": result.written,
        "kept": result.kept,
        "rejected": result.rejected,
        "restarts": result.restarts,
    }


def _draw_sheet(args: argparse.Namespace, config: WorldConfig) -> dict[str, Any]:
    samples = []
    width, height = args.size
    with progress_bar() as progress:
        task = progress.add_task("rendering", total=args.count)
        renderer = shared_renderer(width, height, args.supersample)
        for seeded in render_seeds(range(args.seed, args.seed + args.count), config, renderer):
            samples.append(seeded.sample)
            progress.advance(task)
    image = contact_sheet(samples, columns=1 if args.count <= 8 else 2)
    _write_image(args.sheet, image[..., ::-1])
    return {"output": str(args.sheet), "written": len(samples)}


def _write_clip(args: argparse.Namespace) -> dict[str, Any]:
    from diffusion_perception_ros.world.clip import CLIP_FRAMES, CLIP_SEED, write_clip  # needs rosbags

    with progress_bar() as progress:
        task = progress.add_task("rendering", total=CLIP_FRAMES)
        size = write_clip(args.clip, CLIP_SEED, CLIP_FRAMES, lambda: progress.advance(task))
    return {"output": str(args.clip), "written": CLIP_FRAMES, "bytes": size}


def _write_image(path: Path, bgr: Any) -> None:
    try:
        with whole_file(path) as temporary:
            if not cv2.imwrite(str(temporary), bgr):
                raise InputError(f"Cannot write {path}: the folder must be writable and the name end in .png or .jpg.")
    except (OSError, cv2.error) as error:
        raise InputError(f"Cannot write {path} ({error}): name a .png or .jpg in a writable folder.") from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(map(int, match.groups())) < 16:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT with both at least 16, got {text!r}")
    return int(match[1]), int(match[2])
