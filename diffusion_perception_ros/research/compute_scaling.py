"""Accuracy against compute at test time: the same images with more steps, larger ensembles, other noise schedules.

After Ravishankar et al., Scaling Properties of Diffusion Models for Perceptual Tasks (CVPR 2025, arXiv:2411.08034).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets import EvaluationSample, Skipped
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.prompting import Question, question
from diffusion_perception_ros.evaluation.scoring import ImageScores, score_image
from diffusion_perception_ros.evaluation.sparsification import confidence_scores
from diffusion_perception_ros.evaluation.summary import ALL, mean_of_known, summarise
from diffusion_perception_ros.files import json_line, write_text
from diffusion_perception_ros.inference.card import ModelCard, changed_sampler
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.sampling.ensemble import Merging
from diffusion_perception_ros.inference.sampling.schedulers import make_scheduler
from diffusion_perception_ros.metrics.dense import Scores
from diffusion_perception_ros.sample import Prediction


METHODS = {"depth": "model_affine"}
"""Which alignment of the model counts; `model` for the other tasks."""

Record = dict[str, Any]
"""One setting and what was measured with it, as in the file."""


@dataclass(frozen=True)
class SamplingSetting:
    """How much is computed for one prediction, and how."""

    steps: int
    ensemble_size: int
    merging: Merging | None
    """Of depth; None for a single member."""
    sampler: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Fields of the card's sampler with other values than the card's."""

    def as_dict(self) -> Record:
        """What tells it from other settings, for JSON."""
        return {
            "steps": self.steps,
            "ensemble_size": self.ensemble_size,
            "merging": self.merging,
            "sampler": dict(self.sampler),
        }


def settings_of(
    steps: Sequence[int], sizes: Sequence[int], mergings: Sequence[Merging], samplers: Sequence[Mapping[str, Any]]
) -> list[SamplingSetting]:
    """Every combination, sampler by sampler, the cheap ones first. A single member is not merged and comes once."""
    sampling = sorted(itertools.product(steps, sizes), key=lambda pair: (pair[0] * pair[1], pair))
    return [
        SamplingSetting(count, size, merging, sampler)
        for sampler in samplers
        for count, size in sampling
        for merging in (mergings if size > 1 else (None,))
    ]


def check_gain(card: ModelCard) -> None:
    """Refuses models to which more compute at test time gives nothing.

    Raises:
        InputError: the model takes no noise and has one step.
    """
    if card.sampler is None and card.noise is None:
        raise InputError(
            f"model '{card.name}' predicts in one step from the image alone: there is no step to add, and every "
            "member of an ensemble would be equal, so that more compute at test time cannot change its answer; give a "
            "model with several steps, such as one that `export marigold --steps 4` wrote"
        )


def check_settings(estimator: Estimator, settings: Sequence[SamplingSetting]) -> None:
    """Refuses what cannot be measured before anything is.

    Raises:
        InputError: the model cannot sample with one of the settings.
    """
    sampler = estimator.card.sampler
    for setting in settings:
        estimator.check_sampling(setting.steps, setting.ensemble_size)
        if sampler is not None:
            make_scheduler(changed_sampler(sampler, setting.sampler), setting.steps)


def network_evaluations(card: ModelCard, setting: SamplingSetting) -> int:
    """Passes of the denoising network (of the whole graph, for models of one) per prediction."""
    guided = card.sampler is not None and card.sampler.guidance_scale != 1.0
    return setting.steps * setting.ensemble_size * (2 if guided else 1)


def measure(
    estimator: Estimator,
    samples: Sequence[EvaluationSample],
    setting: SamplingSetting,
    seed: int = 0,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[Record, list[Skipped]]:
    """Predicts and scores all images with one setting.

    Args:
        estimator: Opened with the setting's `sampler`; opened for this alone.
        seed: Of the noise of the first image; image i has `seed` + i, so that scores are means over noises too.
        on_image: Called after every image.

    Returns:
        record: The setting, `network_evaluations`, `cpu_seconds` and `seconds` per image (the process's, all
            threads; wall clock), `images`, `scores` and `confidence` (task to metric, means over the images).
        failed: Images on which the model failed.

    Raises:
        InputError: it failed on every image.
    """
    sampling = {
        "steps": setting.steps,
        "ensemble_size": setting.ensemble_size,
        "merging": setting.merging,
        "noise_mode": "fixed",
    }
    images: list[ImageScores] = []
    sureness: list[dict[str, Scores]] = []
    spent: list[tuple[float, float]] = []
    failed: list[Skipped] = []
    for index, sample in enumerate(samples):
        started = time.process_time(), time.perf_counter()
        try:
            asked = question(estimator.card, sample)
            prediction = _predict(estimator, sample, asked, {**sampling, "seed": seed + index})
        except (InputError, RuntimeError) as error:
            failed.append(Skipped(sample.name, str(error)))
            continue
        finally:
            on_image()
        spent.append((time.process_time() - started[0], time.perf_counter() - started[1]))
        images.append(score_image(sample, prediction, estimator.card.labels, asked.answer))
        sureness.append(confidence_scores(sample, prediction))
    if not images:
        reasons = failed[0].reason if failed else "there is none"
        raise InputError(f"model '{estimator.card.name}' failed on every image: {reasons}")
    cpu, wall = np.mean(spent, axis=0)
    record = setting.as_dict() | {
        "network_evaluations": network_evaluations(estimator.card, setting),
        "cpu_seconds": round(float(cpu), 6),
        "seconds": round(float(wall), 6),
        "images": len(images),
        "scores": _scores(images),
        "confidence": _means(sureness),
    }
    return record, failed


def _predict(estimator: Estimator, sample: EvaluationSample, asked: Question, sampling: dict[str, Any]) -> Prediction:
    """A prediction of one image; optical flow leads to the sample's own previous image."""
    estimator.forget()
    if sample.previous is not None:
        estimator.predict(sample.previous, tasks=(), **sampling)
    return estimator.predict(sample.rgb, sample.intrinsics, **asked.arguments, **sampling)


def _scores(images: Sequence[ImageScores]) -> dict[str, Scores]:
    """Task → the model's mean scores."""
    return {task: groups[ALL].get(METHODS.get(task, "model"), {}) for task, groups in summarise(images).items()}


def _means(scores: Iterable[dict[str, Scores]]) -> dict[str, Scores]:
    """Task → metric → mean over the images that have the task."""
    collected: dict[str, dict[str, list[float]]] = {}
    for image in scores:
        for task, metrics in image.items():
            for metric, value in metrics.items():
                collected.setdefault(task, {}).setdefault(metric, []).append(value)
    return {
        task: {metric: mean_of_known(values) for metric, values in rows.items()} for task, rows in collected.items()
    }


class Measurements:
    """The file of the records: JSON with one line per setting, rewritten in one step after each of them."""

    def __init__(self, path: Path, subject: Record, facts: Record) -> None:
        """Reads the file if there is one.

        Args:
            path: Of the JSON file.
            subject: Model, images and seed: what the records of one file have in common.
            facts: The machine and the like, of the run that began the file.

        Raises:
            InputError: the file cannot be read, or is about something else.
        """
        self._path, self._subject, self._facts = path, _as_read(subject), facts
        self.records: list[Record] = []
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            subject, facts, records = stored["subject"], stored["facts"], stored["settings"]
            differing = sorted(
                name for name in subject | self._subject if subject.get(name) != self._subject.get(name)
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._path} is not a file of this command ({error!r}): choose another output"
            ) from error
        if differing:
            raise InputError(
                f"{self._path} was measured with another {', '.join(differing)}: choose another output folder, or "
                "delete it to measure anew"
            )
        self._facts, self.records = facts, records

    def has(self, setting: SamplingSetting) -> bool:
        """The setting was measured already."""
        wanted = _as_read(setting.as_dict())
        return any(all(record.get(name) == value for name, value in wanted.items()) for record in self.records)

    def add(self, record: Record) -> None:
        """Writes the file with one more record.

        Raises:
            InputError: it cannot be written; what it held is still there.
        """
        self.records.append(_as_read(record))
        lines = ",\n".join(json_line(line) for line in self.records)
        head = ",\n".join(f'"{name}": {json_line(value)}' for name, value in self._head().items())
        write_text(self._path, f'{{\n{head},\n"settings": [\n{lines}\n]\n}}\n')

    def _head(self) -> Record:
        return {"subject": self._subject, "facts": self._facts}


def _as_read(value: Record) -> Record:
    """As it will be after writing and reading: tuples are lists then, NaN is None."""
    result: Record = json.loads(json_line(value))
    return result
