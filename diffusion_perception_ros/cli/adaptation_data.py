"""The images of `diffusion-perception adapt`: chosen, checked, labelled in one way, and stored for the trainer."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.datasets.augment import resize_sample
from diffusion_perception_ros.datasets.drawn_shapes import AnnotatedDataset
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.datasets.shards import ShardWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.scoring import ground_truth_normals
from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.recordings.recording import is_recording
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED


GAP = 0.05
"""Share of the images between those that are adapted on and those that are held out: neighbours look alike."""
MOST_HELD_OUT = 200
_DETAIL = 2
"""Images are stored with up to this many times the pixels per side that the network sees, for crops."""


class Split(NamedTuple):
    """Places of images in a recording."""

    adapt: range
    held_out: range


def open_images(
    data: Path, tasks: Collection[str], background: str | None, image_topic: str | None, depth_topic: str | None
) -> EvaluationDataset:
    """What `open_dataset` opens; for classes annotations come before plain folders.

    Raises:
        InputError: none of them, or one that cannot have labels of the tasks.
    """
    semantic = "semantic" in tasks
    if semantic and is_recording(data):
        raise InputError(f"{data} is a bag, which has no classes: draw masks on some of its images, see the docs")
    dataset = open_dataset(data, None, image_topic, depth_topic, background=background, classes_only=semantic)
    if isinstance(dataset, AnnotatedDataset) and len(tasks) > 1:
        raise InputError(f"drawn masks have labels for 'semantic' only: adapt to {', '.join(tasks)} one by one")
    return dataset


def split_in_time(name: str, count: int, images: int, held_out: float) -> Split:
    """The end of a recording is held out, a gap before it is left out, what comes before is for adapting.

    Raises:
        InputError: fewer images than asked for.
    """
    held = max(1, round(held_out * count))
    first = count - held - round(GAP * count)
    if first < images:
        raise InputError(
            f"{name} has {count} images: {max(first, 0)} are left when {held_out:.0%} are held out, {images} were "
            f"asked for; record more, or give --images {max(first, 1)} or a smaller --held-out"
        )
    return Split(range(first), range(count - held, count))


def read_images(
    dataset: EvaluationDataset,
    places: range,
    count: int,
    tasks: Collection[str],
    size_for: Callable[[int, int], tuple[int, int]],
) -> list[EvaluationSample]:
    """At most `count` images, spread evenly over the places; the next one for each that has no use.

    Args:
        size_for: (width, height) of the first image → those to store all at.

    Returns:
        Fewer, or none, if so few can be read and have labels for all tasks.
    """
    found: list[EvaluationSample] = []
    dataset.skipped.clear()
    for number, index in enumerate(places, start=1):
        due = min(count, math.ceil(number * count / len(places)))
        if len(found) < due:
            try:
                sample = _with_labels(dataset[index], tasks)
            except InputError as error:
                dataset.skipped.append(Skipped(dataset.name_of(index), str(error)))
                continue
            height, width = (found[0] if found else sample).rgb.shape[:2]
            size = (width, height) if found else size_for(width, height)
            found.append(cast(EvaluationSample, resize_sample(sample, *size)))
    return found


def require(found: Sequence[EvaluationSample], count: int, dataset: EvaluationDataset) -> None:
    """Refuses too few images, with the reasons of the last `read_images`.

    Raises:
        InputError: fewer than `count`.
    """
    if len(found) >= count:
        return
    reasons = [entry.reason for entry in dataset.skipped]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    raise InputError(
        f"only {len(found)} of the {count} images needed of {dataset.name} can be used: "
        f"{reasons[0] if reasons else 'there are no more'}{more}"
    )


def _with_labels(sample: EvaluationSample, tasks: Collection[str]) -> EvaluationSample:
    """The sample, normals told from depth where they are asked for.

    Raises:
        InputError: it has no labels for one of the tasks.
    """
    if "depth" in tasks and sample.depth is None:
        raise InputError(f"{sample.name} has no depth")
    if "normals" in tasks:
        normals = ground_truth_normals(sample)
        if normals is None:
            raise InputError(f"no normals can be told of {sample.name}: that takes near depth and intrinsics")
        sample = dataclasses.replace(sample, normals=normals)
    if "semantic" in tasks and (sample.semantic is None or not (sample.semantic != UNLABELLED).any()):
        raise InputError(f"{sample.name} has no pixel with a class")
    return sample


def storage_size(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """(width, height) to store images of width x height pixels at, of which the network sees `size`."""
    larger = size[0] * _DETAIL, size[1] * _DETAIL
    return larger if width >= larger[0] and height >= larger[1] else size


def classes_in(samples: Sequence[EvaluationSample]) -> tuple[str, ...]:
    """Names of the classes that occur, in the order of the data's classes."""
    found: set[str] = set()
    for sample in samples:
        if sample.semantic is not None:
            found |= {sample.classes[number] for number in np.unique(sample.semantic) if number < len(sample.classes)}
    order = dict.fromkeys(name for sample in samples for name in sample.classes)
    return tuple(name for name in order if name in found)


def check_known(classes: Sequence[str], labels: Sequence[Label], model: str, data: str) -> None:
    """Compares the classes of the data with the labels of the model.

    Raises:
        InputError: some are not the model's.
    """
    known = [label.name for label in labels]
    if unknown := [name for name in classes if name not in known]:
        raise InputError(
            f"{data} has the labels {', '.join(unknown)}, which '{model}' lacks (it has {', '.join(known)}): rename "
            "them, or give --labels own for a model of these classes"
        )


def own_labels(classes: Sequence[str], known: Sequence[Label], dataset: EvaluationDataset) -> tuple[Label, ...]:
    """Labels for the classes of the data: those that the model knows as they are, the others with a colour.

    Raises:
        InputError: fewer than two classes.
    """
    if len(classes) < 2:
        raise InputError(
            f"{dataset.name} has only the class {', '.join(classes) or '(none)'}: give --background NAME, what pixels "
            "outside of the drawn objects are"
        )
    by_name = {label.name: label for label in known}
    colors = dataset.colors if isinstance(dataset, AnnotatedDataset) else {}
    things = dataset.things if isinstance(dataset, AnnotatedDataset) else frozenset()
    labels = []
    for number, name in enumerate(classes):
        if name in by_name:
            labels.append(by_name[name].model_copy(update={"id": number}))
            continue
        hue = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.65, 0.95)  # golden ratio: neighbours differ
        color = colors.get(name, tuple(round(255 * channel) for channel in hue))
        labels.append(Label(id=number, name=name, color=color, is_thing=name in things))  # type: ignore[arg-type]
    return tuple(labels)


def relabelled(samples: Sequence[EvaluationSample], classes: Sequence[str]) -> Iterator[EvaluationSample]:
    """The samples with ids that number `classes`; other names count as unlabelled, unknown objects as none."""
    for sample in samples:
        table = np.full(256, UNLABELLED, np.uint8)
        for number, name in enumerate(sample.classes):
            table[number] = classes.index(name) if name in classes else UNLABELLED
        semantic = None if sample.semantic is None else table[sample.semantic]
        instances = None
        if sample.instances is not None:
            known = sample.instances != UNKNOWN_INSTANCE
            instances = np.where(known, sample.instances, 0).astype(np.uint16)
        yield dataclasses.replace(sample, semantic=semantic, instances=instances)


def store(samples: Sequence[EvaluationSample], folder: Path) -> None:
    """Writes images of one size as a shard.

    Raises:
        InputError: it cannot be written, such as on a full disk.
    """
    height, width = samples[0].rgb.shape[:2]
    writer = ShardWriter(folder, len(samples), height, width)
    for sample in samples:
        writer.append(sample)
    try:
        writer.finish()
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
