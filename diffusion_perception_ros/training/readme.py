"""The README of a model folder, written from its checkpoint and card."""

from __future__ import annotations

import json
from typing import Any

from diffusion_perception_ros.export.readme import model_readme, size_in_words
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.training.checkpoint import Checkpoint
from diffusion_perception_ros.training.monitor import EVALUATIONS


ROWS = (
    ("depth AbsRel, scale and shift aligned", "abs_rel", "{:.3f}"),
    ("… best constant", "constant_abs_rel", "{:.3f}"),
    ("… best plane over the rows", "row_plane_abs_rel", "{:.3f}"),
    ("depth δ1, scale and shift aligned", "delta1", "{:.3f}"),
    ("… best constant", "constant_delta1", "{:.3f}"),
    ("… best plane over the rows", "row_plane_delta1", "{:.3f}"),
    ("depth AbsRel in metres, not aligned", "metric_abs_rel", "{:.3f}"),
    ("normals, mean angle", "normals_mean", "{:.1f}°"),
    ("normals, median angle", "normals_median", "{:.1f}°"),
    ("normals within 30°", "normals_30", "{:.3f}"),
    ("semantic pixel accuracy", "pixel_accuracy", "{:.3f}"),
    ("semantic mIoU, all classes", "miou", "{:.3f}"),
    ("… most frequent class everywhere", "majority_miou", "{:.3f}"),
    ("semantic mIoU, coarse groups", "group_miou", "{:.3f}"),
    ("entities, mean coverage", "entity_coverage", "{:.3f}"),
    ("… the whole picture as one", "one_entity_coverage", "{:.3f}"),
    ("mask of a point, IoU", "mask_iou", "{:.3f}"),
    ("… the whole picture", "whole_mask_iou", "{:.3f}"),
    ("whole object of its visible part, IoU", "amodal_iou", "{:.3f}"),
    ("… the visible part", "visible_amodal_iou", "{:.3f}"),
    ("opacity, mean absolute error", "alpha_mae", "{:.3f}"),
    ("… nothing is foreground", "empty_alpha_mae", "{:.3f}"),
    ("optical flow, end-point error in pixels", "flow_epe", "{:.2f}"),
    ("… no motion", "still_flow_epe", "{:.2f}"),
    ("joints found (PCK)", "pose_pck", "{:.3f}"),
    ("found joints that are right", "pose_precision", "{:.3f}"),
)

_CURVE = ("abs_rel", "delta1", "metric_abs_rel", "normals_mean", "pixel_accuracy", "group_miou")


def trained_readme(checkpoint: Checkpoint, card: ModelCard, network: str, has_credits: bool = False) -> str:
    """Markdown: what the model gives, how it was made, how good it was on unseen rendered scenes.

    Args:
        network: its kind and size, in words.
    """
    state = checkpoint.state
    evaluation = state.get("evaluation", {})
    scores = evaluation.get("scores", {})
    table = "\n".join(f"| {title} | {form.format(scores[key])} |" for title, key, form in ROWS if key in scores)
    outputs = ", ".join(
        output.quantity.replace("_", " ") if output.task == "depth" else output.task for output in card.outputs
    )
    credits = "\n\nThe meshes in the training images are other people's work: see CREDITS.md." if has_credits else ""
    minutes = evaluation.get("minutes", round(state["seconds"] / 60, 1))
    width, height = state["config"]["data"]["sizes"][0]
    photographs = "; no photograph was used" if "ImageNet" not in card.source.training_data else ""
    sections = {
        "How it was made": f"""- Data: {card.source.training_data}, at {width}x{height}{photographs}.
- Network: {network}.
- Run: config `{state["name"]}`, seed {state["config"]["seed"]}, {state["step"]} steps of
  {state["samples"] // max(1, state["step"])} images, {minutes:.0f} minutes.
- Command: `{card.source.command or "diffusion-perception train"}`{credits}""",
        "Validation on unseen rendered scenes": f"| measure | value |\n|---|---|\n{table}",
    }
    if curve := _learning_curve(checkpoint):
        sections["Learning curve, on the same scenes"] = curve
    facts = (
        f"Gives: {outputs}.",
        f"Input: {size_in_words(card.input.size)}.",
        f"Precision: {card.precision}. Licence: {card.licence}.",
    )
    return model_readme(card, facts, sections)


def _learning_curve(checkpoint: Checkpoint) -> str:
    """All evaluations of the run that the checkpoint lies in; nothing if it was taken out of it."""
    try:
        lines = (checkpoint.folder.parent / EVALUATIONS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    shown = [row for row in ROWS if row[1] in _CURVE and any(row[1] in record["scores"] for record in records)]
    titles = " | ".join(["minutes", "pictures", *(title for title, _, _ in shown)])
    rows = [
        " | ".join(
            [f"{record['minutes']:.0f}", f"{record['samples'] / 1000:.1f} k"]
            + [form.format(record["scores"][key]) if key in record["scores"] else "" for _, key, form in shown]
        )
        for record in records
    ]
    return "\n".join(f"| {row} |" for row in [titles, " | ".join(["---"] * (2 + len(shown))), *rows])
