"""Small real model folders of the newer kinds: three graphs with a sampler, and one graph that draws or takes prompts.

Three graphs, with rgb the picture in [0, 1]:

| graph | value |
|---|---|
| encode | `image_latent` = 2 * rgb - 1, averaged over cells of 8 x 8 |
| denoise | `prediction` = (`image_latent` + `gain` * `noisy_latent` + 1e-4 * `timestep`) * `conditional` if any |
| decode | `picture` = (latent + 1) / 2 in cells of 8 x 8, `depth` = its mean, `normals` = latent, all not clipped |

One graph: `picture` = rgb, `red` = its first channel, `flow` = (brightness of the last picture - brightness of this
one, 0), `point` = the first coordinate of the first point, `hint` = the prompt's mask, `latent` = `red` + 0.1 * noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx.parser
from model_factory import LABELS, write_card


LATENT_CHANNELS = 3
DOWNSCALE = 8
DDIM = {
    "scheduler": "ddim",
    "prediction_type": "sample",
    "num_inference_steps": 2,
    "latent_channels": LATENT_CHANNELS,
    "latent_downscale": DOWNSCALE,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "trailing",
}
"""The card's `sampler` of `write_sampled_model`."""

OUTPUTS: dict[str, dict[str, Any]] = {
    "depth": {"quantity": "relative_depth", "tensor": "depth", "range": [0.0, 1.0]},
    "normals": {"tensor": "normals", "axes": ["right", "up", "backward"]},
    "semantic": {
        "tensor": "picture",
        "encoding": "colors",
        "labels": [label.model_dump(mode="json") for label in LABELS],
    },
    "instances": {"tensor": "picture", "encoding": "colors"},
    "keypoints": {"tensor": "picture"},
    "albedo": {"tensor": "picture", "range": [0.0, 1.0]},
    "shading": {"tensor": "picture", "range": [0.0, 2.0], "prediction_space": "linear"},
    "alpha": {"tensor": "red", "range": [0.0, 1.0]},
    "flow": {"tensor": "flow", "scale": 10.0},
    "mask": {"tensor": "point", "range": [0.0, 1.0]},
}
_HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
_ENCODE = """ encode (float[1, 3, H, W] image) => (float[1, 3, h, w] image_latent)
<float[1] two = {2}, float[1] one = {1}> {
    doubled = Mul(image, two)
    signed = Sub(doubled, one)
    image_latent = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(signed)
}"""
_DENOISE = """ denoise (float[1, 3, h, w] image_latent, float[B, 3, h, w] noisy_latent, float[1] timestep%s)
=> (float[B, 3, h, w] prediction)
<float[1] gain = {%s}, float[1] speed = {0.0001}> {
    kept = Mul(noisy_latent, gain)
    time = Mul(timestep, speed)
    shifted = Add(image_latent, time)
    %s
}"""
_DECODE = """ decode (float[1, 3, h, w] latent)
=> (float[1, 3, H, W] picture, float[1, 1, H, W] depth, float[1, 3, H, W] normals)
<float[4] scales = {1, 1, 8, 8}, float[1] half = {0.5}> {
    normals = Resize<mode = "nearest">(latent, , scales)
    halved = Mul(normals, half)
    picture = Add(halved, half)
    depth = ReduceMean<axes = [1]>(picture)
}"""
_FUSED = """ fused (float[1, 3, H, W] image%s)
=> (%s)
<int64[1] zero = {0}, int64[1] first = {1}, int64[1] axis = {1}, float[1] nothing = {0}> {
    picture = Identity(image)
    red = Slice(image, zero, first, axis)
    blank = Mul(red, nothing)
    %s
}"""


def write_sampled_model(
    folder: Path,
    tasks: Sequence[str] = ("depth", "normals"),
    *,
    gain: float = 0.1,
    conditional: bool = False,
    sampler: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a model of three graphs and returns its folder.

    Args:
        folder: Where; its name is the model's name.
        tasks: Of `depth`, `normals`, `semantic`, `instances`, `keypoints`, `albedo`, `shading`.
        gain: How much of the noise stays in the prediction.
        conditional: Gives the denoising graph the input of classifier-free guidance.
        sampler: Changes to `DDIM`; `{"scheduler": ...}` with other fields takes its place.
        card: Changes to the top level of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = "whole = Add(shifted, kept)\n    prediction = Mul(whole, conditional)"
    denoise = _DENOISE % (
        ", float[1] conditional" if conditional else "",
        gain,
        last if conditional else "prediction = Add(shifted, kept)",
    )
    for name, text in (("encode", _ENCODE), ("denoise", denoise), ("decode", _DECODE)):
        _save(text, folder / f"{name}.onnx")
    sampler = dict(sampler or {})
    fields = {
        "graphs": {name: f"{name}.onnx" for name in ("encode", "denoise", "decode")},
        "sampler": sampler if "scheduler" in sampler else DDIM | sampler,
    }
    return _write_card(folder, tasks, fields, card)


def write_prompted_model(
    folder: Path, tasks: Sequence[str], *, prompts: Sequence[str] = (), card: Mapping[str, Any] | None = None
) -> Path:
    """Writes a model of one graph and returns its folder.

    Args:
        folder: Where; its name is the model's name.
        tasks: Keys of `OUTPUTS` without `depth` and `normals`.
        prompts: Further inputs: `second_image`, `points`, `prompt_mask` or `noise`.
        card: Changes to the top level of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {
        "second_image": ", float[1, 3, H, W] second_image",
        "points": ", float[1, 2, 3] points",
        "prompt_mask": ", float[1, 1, H, W] prompt_mask",
        "noise": ", float[1, 1, H, W] noise",
    }
    outputs = {"picture": "float[1, 3, H, W] picture", "red": "float[1, 1, H, W] red"}
    lines = []
    if "second_image" in prompts:
        outputs["flow"] = "float[1, 2, H, W] flow"
        lines += [
            "change = Sub(second_image, image)",
            "across = ReduceMean<axes = [1]>(change)",
            "flow = Concat<axis = 1>(across, blank)",
        ]
    if "points" in prompts:
        outputs["point"] = "float[1, 1, H, W] point"
        lines += [
            "ends = Constant<value = int64[3] {1, 1, 1}>()",
            "starts = Constant<value = int64[3] {0, 0, 0}>()",
            "cut = Slice(points, starts, ends)",
            "shape = Constant<value = int64[4] {1, 1, 1, 1}>()",
            "coordinate = Reshape(cut, shape)",
            "point = Add(blank, coordinate)",
        ]
    if "prompt_mask" in prompts:
        outputs["hint"] = "float[1, 1, H, W] hint"
        lines.append("hint = Add(blank, prompt_mask)")
    if "noise" in prompts:
        outputs["latent"] = "float[1, 1, H, W] latent"
        lines += [
            "gain = Constant<value = float[1] {0.1}>()",
            "weak = Mul(noise, gain)",
            "latent = Add(red, weak)",
        ]
    text = _FUSED % ("".join(inputs[name] for name in prompts), ", ".join(outputs.values()), "\n    ".join(lines))
    _save(text, folder / "model.onnx")
    described = {
        "second_image": {"tensor": "second_image"},
        "points": {"tensor": "points", "most": 2, "order": "xy"},
        "prompt_mask": {"tensor": "prompt_mask"},
        "noise": {"tensor": "noise", "channels": 1, "downscale": 1, "latent_tensor": "latent"},
    }
    fields = {"graph": "model.onnx", **{name: described[name] for name in prompts}}
    return _write_card(folder, tasks, fields, card)


def _save(text: str, path: Path) -> None:
    model = onnx.parser.parse_model(_HEAD + text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _write_card(folder: Path, tasks: Sequence[str], fields: dict[str, Any], changes: Mapping[str, Any] | None) -> Path:
    size = {"rule": "longest_side", "longest_side": 128, "multiple_of": 32, "interpolation": "area"}
    described = {
        "input": {"tensor": "image", "size": size, "mean": [0.0] * 3, "std": [1.0] * 3},
        "outputs": [{"task": task, **OUTPUTS[task]} for task in tasks],
    }
    return write_card(folder, fields | described, changes)
