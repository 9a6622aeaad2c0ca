"""`diffusion-perception models wrap`: a model folder for anyone's ONNX file, and a look at what it answers."""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.cli.prediction_writer import PredictionWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.sample import Intrinsics


QUANTITIES = ("metric_depth", "relative_depth", "relative_disparity")
_STORED = Path(__file__).resolve().parents[1] / "inference" / "parity_picture.jpg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("file", type=Path, metavar="FILE.onnx", help="the graph")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--name", help="on the card (default: the folder's)")
    parser.add_argument("--licence", help="of the weights, an SPDX identifier or a sentence")
    parser.add_argument("--quantity", choices=QUANTITIES, help="what the depth is, where the graph cannot say")
    parser.add_argument(
        "--range", type=_numbers(2), metavar="LOW,HIGH", help="of the depth (default: relative depth is normalised)"
    )
    parser.add_argument(
        "--focal-scale", type=float, metavar="X", help="metres = value * X * focal length in pixels of the input"
    )
    parser.add_argument("--mean", type=_numbers(3), metavar="R,G,B", help="subtracted from values in [0, 1]")
    parser.add_argument("--std", type=_numbers(3), metavar="R,G,B", help="divided by")
    parser.add_argument("--axes", metavar="X,Y,Z", help="of the normals (default: right,down,forward)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="classes: a JSON list, id2label of a config.json, or one per line"
    )
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the input of a graph that takes any")
    parser.add_argument("--multiple-of", type=int, metavar="N", help="of the sides of such an input")
    parser.add_argument(
        "--constant", action="append", default=[], metavar="NAME=X", help="another input, the same for every image"
    )
    parser.add_argument("--preview", type=Path, metavar="DIR", help="drawings of a test image (default: DIR-preview)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="another test image")
    parser.add_argument("--overwrite", action="store_true", help="replace the model folder")


def run(args: argparse.Namespace) -> int:
    """Wraps, runs and draws."""
    from diffusion_perception_ros.export.layouts import recognise  # imports onnx: only when it is needed
    from diffusion_perception_ros.export.model_folder import README, new_model_folder
    from diffusion_perception_ros.export.wrap import facts_of, read_graph, wrap
    from diffusion_perception_ros.inference.card import write_card

    model = read_graph(args.file)
    facts = facts_of(model)
    layout = recognise(facts)
    if layout is None:
        raise InputError(
            f"{args.file} is none of the known layouts (docs/recordings.md lists them): it has the "
            f"{facts.describe()}; "
            "one colour image and a map of depth or of classes are needed"
        )
    print(f"{args.file} looks like {layout.title}: {facts.describe()}", file=sys.stderr)
    options = _options(args, layout, facts)
    with new_model_folder(args.output, args.overwrite) as folder:
        card = wrap(model, layout, options, folder)
        write_card(card, folder)
        (folder / README).write_text(_readme(card.name, args.file.name, layout.title, options), encoding="utf-8")
        preview = _try(args, folder)
    print(
        f"{args.output}: {', '.join(card.tasks)}; look at {preview}: near must be near, up must be up", file=sys.stderr
    )
    return 0


def _options(args: argparse.Namespace, layout: Any, facts: Any) -> Any:
    """Raises InputError for everything that the graph cannot say and that was not given."""
    from diffusion_perception_ros.export.wrap import WrapOptions

    missing = []
    if not args.licence:
        missing.append("--licence, such as Apache-2.0 or CC-BY-NC-4.0")
    quantity = args.quantity or layout.quantity
    if layout.depth is not None and quantity is None:
        missing.append(f"--quantity {'|'.join(QUANTITIES)}: files of {layout.title} look alike for all of them")
    labels: tuple[Label, ...] = ()
    if layout.semantic is not None:
        beside = args.file.with_name("config.json")
        source = args.labels or (beside if beside.is_file() else None)
        if source is None:
            missing.append(f"--labels FILE with the names of the {facts.output(layout.semantic).shape[1]} classes")
        else:
            labels = read_labels(source)
            if len(labels) != facts.output(layout.semantic).shape[1]:
                raise InputError(
                    f"{source} names {len(labels)} classes, '{layout.semantic}' has "
                    f"{facts.output(layout.semantic).shape[1]} channels"
                )
    if missing:
        raise InputError(f"{args.file} does not say everything; give {'; and '.join(missing)}")
    mean, std = layout.normalisation
    return WrapOptions(
        name=args.name or args.output.resolve().name.lower(),
        licence=args.licence,
        source=args.file.name,
        command=f"diffusion-perception models wrap {args.file.name}",
        quantity=quantity or "",
        range=args.range or (layout.range if quantity == "metric_depth" else None),
        focal_scale=args.focal_scale or layout.focal_scale,
        mean=args.mean or mean,
        std=args.std or std,
        axes=tuple(args.axes.split(",")) if args.axes else ("right", "down", "forward"),
        labels=labels,
        size=args.size,
        multiple_of=args.multiple_of or layout.multiple_of,
        constants=dict(layout.constants) | dict(_constant(text) for text in args.constant),
    )


def read_labels(path: Path) -> tuple[Label, ...]:
    """Classes with colours of their own.

    Raises:
        InputError: it is no list of names.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = (
            json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
        )
        names = content.get("id2label", content) if isinstance(content, dict) else content
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        words = [str(name) for name in names]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not name classes: {error}") from error
    if len(set(words)) != len(words):
        words = [f"{name} ({number})" if words.count(name) > 1 else name for number, name in enumerate(words)]
    return tuple(Label(id=number, name=name, color=_color(number)) for number, name in enumerate(words))


def _color(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.55 + 0.15 * (number % 3), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _try(args: argparse.Namespace, folder: Path) -> Path:
    """Runs a test image through the folder as the node would, and draws the answer."""
    rgb = read_picture(args.image or _STORED)
    height, width = rgb.shape[:2]
    estimator = Estimator.load(str(folder), "cpu")
    focal = 0.9 * width
    prediction = estimator.predict(rgb, Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2))
    for name in ("depth", "depth_relative", "normals"):
        values = getattr(prediction, name)
        if values is not None and not np.isfinite(values).any():
            raise InputError(f"the graph gives no number in '{name}' for {args.image or 'the test image'}")
    preview: Path = args.preview or args.output.with_name(f"{args.output.name}-preview")
    PredictionWriter(preview, estimator.card, archives=False).write("preview", rgb, prediction)
    return preview


def _readme(name: str, file: str, title: str, options: Any) -> str:
    return (
        f"# {name}\n\nWrapped from `{file}` ({title}) by `diffusion-perception models wrap`. The weights are as "
        f"they were; "
        f"operators around them give the runtime what `model.yaml` says.\n\nLicence: {options.licence}. Its "
        f"accuracy was not "
        "measured by this package: `diffusion-perception evaluate --model` does that.\n"
    )


def _numbers(count: int) -> Any:
    def parse(text: str) -> tuple[float, ...]:
        values = tuple(float(word) for word in text.split(","))
        if len(values) != count:
            raise argparse.ArgumentTypeError(f"{count} numbers with commas between them, got '{text}'")
        return values

    return parse


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(word) for word in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT, got '{text}'") from None
    return width, height


def _constant(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise InputError(f"--constant takes NAME=NUMBER, got '{text}'") from None
