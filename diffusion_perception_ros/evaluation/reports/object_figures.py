"""The images of optical flow, prompted masks, opacity, keypoints and appearance in a report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.prompting import Question
from diffusion_perception_ros.evaluation.reports.panels import Panel, Wheel, css_color, embed, error_tile, thickened
from diffusion_perception_ros.evaluation.scoring import MASK_LEVEL
from diffusion_perception_ros.inference.card import ModelCard, PictureOutput
from diffusion_perception_ros.inference.visualization import (
    colorize_flow,
    draw_keypoints,
    draw_mask,
    flow_wheel,
    full_color_length,
    grey_image,
    property_image,
)
from diffusion_perception_ros.metrics.objects import mask_scores
from diffusion_perception_ros.sample import FloatImage, Prediction, UInt8Image


ALPHA_ERROR_LIMIT = 0.5
"""Absolute error shown as the brightest colour."""
FLOW_ERROR_SHARE, FLOW_ERROR_LEAST = 0.5, 3.0
"""The brightest colour of a flow error: share of the longest vectors, at least these pixels (KITTI's outlier)."""
FOUND, VISIBLE, HIDDEN = (255, 220, 0), (0, 220, 255), (130, 130, 255)
"""Colours of keypoints that the model found, and of true ones, seen and hidden."""
INSIDE, OUTSIDE = (60, 220, 80), (230, 60, 40)
"""Colours of point prompts."""
DOTS_ACROSS = 90
"""Radii of a drawn point that make up the longer side of an image, which is shown small."""
WHEEL_SIZE = 96
APPEARANCE = {
    "albedo": ("Albedo", "colour without the light"),
    "shading": ("Shading", "light on the surfaces"),
    "residual": ("Residual", "what albedo times shading leaves, such as highlights"),
    "material": ("Material", "red: roughness, green: metallicity"),
}


def flow_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Panel]:
    """Motion in colours of direction and length, with one scale for prediction and truth."""
    if prediction.flow is None:
        return
    truth = sample.flow if sample.flow is not None and np.isfinite(sample.flow).any() else None
    longest = full_color_length(prediction.flow if truth is None else truth)
    wheel = Wheel(_wheel(), f"the rim is {longest:.3g} px or more")
    if sample.previous is not None:
        yield Panel("Second image", "where the flow leads to", embed(sample.previous))
        where = "from each pixel to where it is in the second image"
    else:
        where = "from each pixel to where it was in the image before"
    yield Panel("Optical flow", where, embed(colorize_flow(prediction.flow, longest)), wheel=wheel)
    if truth is None:
        return
    image = colorize_flow(thickened(truth), longest)
    yield Panel("Optical flow, ground truth", "grey: not known", embed(image), wheel=wheel)
    error = np.linalg.norm(prediction.flow - truth, axis=2)
    limit = max(FLOW_ERROR_LEAST, FLOW_ERROR_SHARE * longest)
    yield error_tile("Flow error", "distance of the vectors' ends", error, limit, " px")


def mask_tiles(sample: EvaluationSample, prediction: Prediction, question: Question) -> Iterator[Panel]:
    """What was asked, what was answered and what the answer is."""
    if prediction.mask is None:
        return
    if question.mask is not None:
        prompt = draw_mask(sample.rgb, question.mask.astype(np.float32))
        yield Panel("Prompt", "the part of the object that is seen", embed(prompt))
    legend = [("inside", css_color(INSIDE)), ("outside", css_color(OUTSIDE))] if question.points else []
    image = _draw_points(draw_mask(sample.rgb, prediction.mask), question)
    if question.answer is None:
        yield Panel("Prompted mask", "what the prompt means", embed(image), legend=legend)
        return
    iou = mask_scores(prediction.mask >= MASK_LEVEL, question.answer)["iou"]
    caption = f"IoU {iou:.2f}" if math.isfinite(iou) else ""
    yield Panel("Prompted mask", caption, embed(image), legend=legend)
    truth = _draw_points(draw_mask(sample.rgb, question.answer.astype(np.float32)), question)
    yield Panel("Prompted mask, ground truth", "", embed(truth))


def alpha_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Panel]:
    """Opacity as editors show it: white is opaque."""
    if prediction.alpha is None:
        return
    yield Panel("Opacity", "of the foreground: white opaque, black none", embed(grey_image(prediction.alpha)))
    if sample.alpha is None:
        return
    truth = np.nan_to_num(sample.alpha)
    yield Panel("Opacity, ground truth", "", embed(grey_image(truth)))
    error = np.abs(prediction.alpha - sample.alpha)
    yield error_tile("Opacity error", "|predicted − true|", error, ALPHA_ERROR_LIMIT, "")


def keypoint_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Panel]:
    """What was found as dots, the truth as rings around where they should be."""
    if prediction.keypoints is None:
        return
    radius = max(3, round(max(sample.rgb.shape[:2]) / DOTS_ACROSS))
    image = draw_keypoints(sample.rgb, prediction.keypoints, radius)
    count = len(prediction.keypoints)
    caption = f"{count} point{'s' if count != 1 else ''} found, darker where unsure"
    legend = [("found", css_color(FOUND))]
    if sample.keypoints is not None:
        _draw_people(image, sample.keypoints, 2 * radius)
        legend += [("true, visible", css_color(VISIBLE)), ("true, hidden", css_color(HIDDEN))]
    yield Panel("Keypoints", caption, embed(image), legend=legend)


def appearance_tiles(prediction: Prediction, card: ModelCard) -> Iterator[Panel]:
    """Albedo, shading and the like, as images."""
    for output in card.outputs:
        values = getattr(prediction, output.task, None)
        if isinstance(output, PictureOutput) and values is not None:
            title, caption = APPEARANCE[output.task]
            yield Panel(title, caption, embed(property_image(values, output.prediction_space)))


@cache
def _wheel() -> str:
    return embed(flow_wheel(WHEEL_SIZE))


def _draw_points(image: UInt8Image, question: Question) -> UInt8Image:
    radius = max(3, round(max(image.shape[:2]) / DOTS_ACROSS))
    for u, v, inside in question.points:
        centre = (round(u), round(v))
        cv2.circle(image, centre, radius + 2, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, centre, radius, INSIDE if inside else OUTSIDE, cv2.FILLED, cv2.LINE_AA)
    return image


def _draw_people(image: UInt8Image, people: FloatImage, radius: int) -> None:
    """Rings on the joints (P, 17, 3) that are in the image; drawn into it."""
    for u, v, visibility in people.reshape(-1, 3):
        if visibility > 0:
            color = VISIBLE if visibility == 2 else HIDDEN
            cv2.circle(image, (round(float(u)), round(float(v))), radius, color, max(2, radius // 4), cv2.LINE_AA)
