"""The run folder of `diffusion-perception adapt`: images, starting weights, the trainer's config, and a record."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file

from diffusion_perception_ros.cli import adaptation_data as images
from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import Label, ModelCard
from diffusion_perception_ros.training.config import read_fields
from diffusion_perception_ros.training.onestep.adaptation import with_classes
from diffusion_perception_ros.training.onestep.adapted_model import MAIN_SCORES
from diffusion_perception_ros.training.onestep.network import NetworkConfig
from diffusion_perception_ros.training.onestep.weights import read_weights


CONFIG = "config/train/adapt.yaml"
RUN_CONFIG, RECORD = "config.yaml", "adaptation.json"
"""The config that is trained; what was asked for, and what was found in the data."""
_START = "start.safetensors"
_SAME = ("task", "images", "held_out", "steps", "overrides", "labels", "background", "image_topic", "depth_topic")
"""Arguments that make two adaptations the same one, besides the paths."""


def prepare(args: argparse.Namespace, name: str, base: Path, card: ModelCard, folder: Path) -> dict[str, Any]:
    """Fills the run folder, unless an earlier call with the same arguments has done so.

    Args:
        args: of `adapt`.
        name: of the adapted model.
        base, card: the model to adapt.

    Returns:
        The record: `data`, `labels`, names of the `images` and of the `held_out` ones, what was `skipped`.

    Raises:
        InputError: the data cannot be used, or the folder holds another run or cannot be written.
    """
    folder = folder.resolve()
    path, request = folder / RECORD, _request(args)
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["request"] != request:
            raise InputError(f"{folder} holds an adaptation with other arguments: delete it, or give another --run")
        return record
    if (folder / "checkpoints").exists():
        raise InputError(f"{folder} holds a run of something else: give another --run")
    network = read_weights(base)
    data = _read(args, card)
    start = with_classes(network, tuple(label.name for label in card.labels), data.classes)
    fields = _config(args, name, network.config, data, folder)
    record = {
        "request": request,
        "data": args.data.resolve().name,
        "labels": [label.model_dump(mode="json") for label in data.labels],
        "images": [sample.name for sample in data.adapt],
        "held_out": [sample.name for sample in data.held_out],
        "skipped": [vars(entry) for entry in data.skipped],
    }
    try:
        shutil.rmtree(folder / "data", ignore_errors=True)  # of a call that was cut
        images.store(data.adapt, folder / "data" / "adapt")
        images.store(data.held_out, folder / "data" / "held_out")
        weights = {key: tensor.contiguous() for key, tensor in start.state_dict().items()}
        save_file(weights, folder / _START)
        (folder / RUN_CONFIG).write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return record


def _request(args: argparse.Namespace) -> dict[str, Any]:
    paths = {key: str(value.resolve()) for key in ("data", "config") if (value := getattr(args, key)) is not None}
    return {"model": args.model, **paths, **{name: getattr(args, name) for name in _SAME}}


@dataclass(frozen=True)
class _Data:
    """Images with the labels that the adapted model will have."""

    adapt: Sequence[EvaluationSample]
    held_out: Sequence[EvaluationSample]
    labels: tuple[Label, ...]
    size: tuple[int, int]
    """(width, height) that the network sees them at."""
    skipped: Sequence[Skipped]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


def _read(args: argparse.Namespace, card: ModelCard) -> _Data:
    dataset = images.open_images(args.data, args.task, args.background, args.image_topic, args.depth_topic)
    split = images.split_in_time(dataset.name, len(dataset), args.images, args.held_out)
    size_for = card.input.size.size_for
    with Console(file=sys.stderr).status(f"reading {dataset.name}"):
        adapt = images.read_images(
            dataset, split.adapt, args.images, args.task, lambda w, h: images.storage_size(size_for(w, h), w, h)
        )
        images.require(adapt, args.images, dataset)
        skipped = list(dataset.skipped)
        height, width = adapt[0].rgb.shape[:2]
        held_out = images.read_images(
            dataset, split.held_out, images.MOST_HELD_OUT, args.task, lambda *_: (width, height)
        )
        images.require(held_out, 1, dataset)
    skipped = [*dataset.damage, *skipped, *dataset.skipped]
    for sentence in [*dataset.notes, *(f"left out {entry.name}: {entry.reason}" for entry in skipped)]:
        print(f"diffusion-perception adapt: {sentence}", file=sys.stderr)
    labels = _labels(args, card, adapt, dataset) if "semantic" in args.task else card.labels
    classes = [label.name for label in labels]
    return _Data(
        adapt=list(images.relabelled(adapt, classes)),
        held_out=list(images.relabelled(held_out, classes)),
        labels=labels,
        size=size_for(width, height),
        skipped=skipped,
    )


def _labels(
    args: argparse.Namespace, card: ModelCard, adapt: Sequence[EvaluationSample], dataset: EvaluationDataset
) -> tuple[Label, ...]:
    found = images.classes_in(adapt)
    if args.labels == "own":
        return images.own_labels(found, card.labels, dataset)
    images.check_known(found, card.labels, card.name, dataset.name)
    return card.labels


def _config(args: argparse.Namespace, name: str, network: NetworkConfig, data: _Data, folder: Path) -> dict[str, Any]:
    """The settings of the config file with what this adaptation fills in."""
    fields = read_fields(args.config or find_resource(CONFIG), args.overrides)
    objects = "semantic" in args.task and any(s.instances is not None and s.instances.any() for s in data.adapt)
    tasks = [*args.task, *(["instances"] if objects else [])]
    noise = network.noise_channels
    run = {"max_steps": args.steps} if args.steps is not None else {}
    sections: dict[str, dict[str, Any]] = {
        "network": {"kind": "onestep", "size": network.size},
        "objective": {"kind": "lotus_g", "noise_channels": noise} if noise else {"kind": "lotus_d"},
        "adaptation": {"tasks": tasks, "new_classes": args.labels == "own"},
        "data": {
            "train": str(folder / "data" / "adapt"),
            "validation": str(folder / "data" / "held_out"),
            "classes": list(data.classes),
            "sizes": [list(data.size)],
        },
        "run": {"score": MAIN_SCORES[args.task[0]][0], **run},
    }
    merged = {section: {**(fields.get(section) or {}), **settings} for section, settings in sections.items()}
    return {**fields, "name": name, "init_from": str(folder / _START), **merged}
