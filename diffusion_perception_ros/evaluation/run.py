"""An evaluation run: every image of a data set through a model, scored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.prompting import NO_QUESTION, Question, question
from diffusion_perception_ros.evaluation.scoring import ImageScores, ground_truth_normals, score_completed
from diffusion_perception_ros.evaluation.summary import Summary, class_iou, percentiles, summarise
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.metric_scale.scale import scale_by_sparse_depth
from diffusion_perception_ros.metrics.sparse_patterns import RANDOM, sparse_pattern
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


class Predictor(Protocol):
    """`inference.Estimator`, or anything that predicts like it (a network in training)."""

    card: ModelCard

    def predict(
        self,
        rgb: UInt8Image,
        intrinsics: Intrinsics | None = None,
        tasks: Collection[str] | None = None,
        *,
        points: npt.ArrayLike | None = None,
        prompt_mask: npt.ArrayLike | None = None,
    ) -> Prediction: ...


@dataclass
class EvaluatedFrame:
    """An image to show: its ground truth and its prediction."""

    sample: EvaluationSample
    prediction: Prediction
    question: Question = NO_QUESTION
    """What the model was prompted with."""


@dataclass
class Evaluation:
    """The outcome of a run."""

    data: str
    model: ModelCard
    images: list[ImageScores] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    """Images whose files could not be used."""
    failed: list[Skipped] = field(default_factory=list)
    """Images on which the model failed."""
    unscored: list[str] = field(default_factory=list)
    """Images without ground truth of anything that the model predicts."""
    frames: list[EvaluatedFrame] = field(default_factory=list)
    """Images kept for a report."""
    sparse: float | None = None
    """Share of the true depth that the model got to answer in metres."""

    @property
    def summary(self) -> Summary:
        return summarise(self.images)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the images, for JSON."""
        stages = dict.fromkeys(stage for image in self.images for stage in image.timings)
        return {
            "data": self.data,
            "model": {
                "name": self.model.name,
                "family": self.model.family,
                "tasks": list(self.model.tasks),
                "precision": self.model.precision,
                "licence": self.model.licence,
            },
            "tasks": self.summary,
            "class_iou": class_iou(self.images),
            "stage_ms": {
                stage: percentiles([1000 * image.timings[stage] for image in self.images if stage in image.timings])
                for stage in stages
            },
            "images": [{"name": image.name, "group": image.group, "scores": image.scores} for image in self.images],
            "skipped": [vars(entry) for entry in self.skipped],
            "failed": [vars(entry) for entry in self.failed],
            "unscored": self.unscored,
        }


def evaluate(
    dataset: EvaluationDataset,
    predictor: Predictor,
    show: int = 0,
    on_image: Callable[[int], None] | None = None,
    sparse: float | None = None,
    pattern: str = RANDOM,
) -> Evaluation:
    """Predicts and scores every usable image.

    Args:
        show: Number of images to keep for a report, spread over the groups.
        on_image: Called with the index of every image that is done (progress bars).
        sparse: Share of the ground-truth depth pixels that is given to the model, to scale its depth to metres; the
            others are scored. The choice only depends on the image's index.
        pattern: Which pixels these are (`sparse_patterns`).

    Raises:
        InputError: not one image could be scored.
    """
    result = Evaluation(dataset.name, predictor.card, sparse=sparse)
    kept = set(spread([dataset.group_of(index) for index in range(len(dataset))], show))
    for index, sample in dataset.usable():
        try:
            if sample.previous is not None and predictor.card.second_image is not None:
                predictor.predict(sample.previous, tasks=())  # flow leads to what was seen last
            asked = question(predictor.card, sample)
            prediction = predictor.predict(sample.rgb, sample.intrinsics, **asked.arguments)
            if sparse is not None:
                sample, prediction = _give_sparse_depth(sample, prediction, sparse, pattern, index)
        except (InputError, RuntimeError) as error:
            result.failed.append(Skipped(sample.name, str(error)))
            continue
        scores = score_completed(sample, prediction, predictor.card, asked.answer)
        if scores.scores:
            result.images.append(scores)
        else:
            result.unscored.append(sample.name)
        if index in kept:
            result.frames.append(EvaluatedFrame(sample, prediction, asked))
        if on_image:
            on_image(index)
    result.skipped = list(dataset.skipped)
    if not result.images and result.unscored:
        raise InputError(
            f"{dataset.name} has no ground truth of what model '{predictor.card.name}' predicts "
            f"({', '.join(predictor.card.tasks)}): give other data or another model"
        )
    if not result.images:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in (result.skipped + result.failed)[:3])
        raise InputError(f"not one image of {dataset.name} could be scored ({reasons or 'it is empty'})")
    return result


def _give_sparse_depth(
    sample: EvaluationSample, prediction: Prediction, share: float, pattern: str, seed: int
) -> tuple[EvaluationSample, Prediction]:
    """The sample without a share of its depth pixels, and the prediction scaled to metres by them."""
    if sample.depth is None:
        return sample, prediction
    given = sparse_pattern(sample.depth, share, pattern, seed)
    unknown = np.float32(np.nan)
    scaled = scale_by_sparse_depth(prediction, np.where(given, sample.depth, unknown), sample.rgb)
    # The normals come from the whole depth: holes would only make them worse.
    rest = replace(sample, depth=np.where(given, unknown, sample.depth), normals=ground_truth_normals(sample))
    return rest, scaled


def spread(groups: Sequence[str], count: int) -> list[int]:
    """`count` indices, in order: as evenly over the groups as they allow, and evenly over each group."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    quota = dict.fromkeys(members, 0)
    for _ in range(min(count, len(groups))):
        open_groups = [group for group in members if quota[group] < len(members[group])]
        quota[min(open_groups, key=quota.__getitem__)] += 1
    chosen = []
    for group, indices in members.items():
        chosen += [indices[(2 * step + 1) * len(indices) // (2 * quota[group])] for step in range(quota[group])]
    return sorted(chosen)
