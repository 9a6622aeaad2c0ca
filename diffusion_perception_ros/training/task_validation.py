"""Validation of the tasks that only a generalist has, next to answers that never look at the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from diffusion_perception_ros.metrics.dense import flow_scores, instance_scores
from diffusion_perception_ros.metrics.objects import alpha_scores, keypoint_scores, mask_scores
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.estimates import Estimates


Named = tuple[str, float]


def task_scores(said: Estimates, batch: Batch) -> Iterator[Named]:
    """Names and values of one picture's scores after the other, of every task that both sides have; some are NaN.

    `flow_epe` in pixels and `still_flow_epe` of no motion; `mask_iou` of the object pointed at and `whole_mask_iou` of
    the whole picture; `amodal_iou` and `visible_amodal_iou` of what the prompt shows; `alpha_mae`, `alpha_sad`, and
    `empty_alpha_mae` of no foreground; `entity_coverage`, `entity_found`, and `one_entity_coverage` of a single
    entity; `pose_pck`, `pose_precision`.
    """
    scorers: tuple[Callable[[Estimates, Batch, int], Iterator[Named]], ...] = (
        _flow, _mask, _amodal, _alpha, _entities, _pose
    )  # fmt: skip
    for index in range(len(batch.image)):
        for scorer in scorers:
            yield from scorer(said, batch, index)


def _flow(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.flow is None or batch.flow is None:
        return
    truth = batch.flow[index].permute(1, 2, 0).double().cpu().numpy()
    known = np.isfinite(truth).all(-1)
    if known.any():
        flow = said.flow[index].permute(1, 2, 0).double().cpu().numpy()
        yield "flow_epe", flow_scores(flow[known], truth[known])["epe"]
        yield "still_flow_epe", flow_scores(np.zeros_like(truth[known]), truth[known])["epe"]


def _mask(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.mask is None or said.objects is None or batch.instances is None or not said.objects[index]:
        return
    truth = (batch.instances[index] == said.objects[index]).cpu().numpy()
    yield "mask_iou", mask_scores((said.mask[index] >= 0.5).cpu().numpy(), truth)["iou"]
    yield "whole_mask_iou", float(truth.mean())


def _amodal(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.amodal is None or batch.amodal is None or batch.instances is None:
        return
    truth = batch.amodal[index].cpu().numpy()
    if truth.any():
        visible = (batch.instances[index].cpu().numpy() == truth) & (truth > 0)
        yield "amodal_iou", mask_scores((said.amodal[index] >= 0.5).cpu().numpy(), truth > 0)["iou"]
        yield "visible_amodal_iou", mask_scores(visible, truth > 0)["iou"]


def _alpha(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.alpha is None or batch.alpha is None:
        return
    truth = batch.alpha[index].cpu().numpy()
    found = alpha_scores(said.alpha[index].float().cpu().numpy(), truth)
    yield "alpha_mae", found["mae"]
    yield "alpha_sad", found["sad"]
    yield "empty_alpha_mae", alpha_scores(np.zeros_like(truth), truth)["mae"]


def _entities(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.instances is None or batch.instances is None:
        return
    truth = batch.instances[index].cpu().numpy()
    found = instance_scores(said.instances[index], truth)
    yield "entity_coverage", found["coverage"]
    yield "entity_found", found["found"]
    yield "one_entity_coverage", instance_scores(np.ones_like(truth), truth)["coverage"]


def _pose(said: Estimates, batch: Batch, index: int) -> Iterator[Named]:
    if said.keypoints is None or batch.keypoints is None:
        return
    people = batch.keypoints[index].cpu().numpy()
    if np.isfinite(people).all():
        for name, value in keypoint_scores(said.keypoints[index], people).items():
            yield f"pose_{name}", value
