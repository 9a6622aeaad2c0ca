"""`diffusion-perception run`: predictions and pictures from images, folders, videos and bags, without ROS running."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusion_perception_ros.cli.common import add_backend_arguments, add_model_argument, progress_bar
from diffusion_perception_ros.cli.prediction_sheet import MOST, PredictionSheet
from diffusion_perception_ros.cli.prediction_writer import PredictionWriter
from diffusion_perception_ros.cli.rerun_log import RerunLog
from diffusion_perception_ros.datasets.camera_files import Calibration, parse_calibration
from diffusion_perception_ros.datasets.frames import Frames, InputFrame, PictureFrames, open_frames
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.inference.temporal.filter import TIME_CONSTANT, TemporalFilter
from diffusion_perception_ros.inference.tiling import Tile
from diffusion_perception_ros.sample import UInt8Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="picture, folder of pictures, video or bag"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="where pictures go")
    add_model_argument(parser)
    parser.add_argument("--tasks", type=lambda text: text.split(","), metavar="T,T", help="only these tasks")
    parser.add_argument("--save", choices=["npz"], help="also write <stem>.npz with the numbers of every map")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help=f"also one PNG or JPEG with all predictions, of up to {MOST} frames"
    )
    parser.add_argument(
        "--sheet-without-input",
        action="store_true",
        help="leave the inputs out of the sheet: pictures that may not be published",
    )
    add_backend_arguments(parser)
    parser.add_argument(
        "--camera-info",
        metavar="FILE|fx,fy,cx,cy",
        help="intrinsics of the pictures: a camera calibration YAML, or pixels (bags bring their own)",
    )
    parser.add_argument("--image-topic", help="bags: the colour topic (default: the first one recorded)")
    parser.add_argument(
        "--temporal",
        type=float,
        nargs="?",
        const=TIME_CONSTANT,
        metavar="SECONDS",
        help="videos and bags: steady depth, normals and classes with this time constant (default: %(const)s)",
    )
    sampling = parser.add_argument_group("models of several steps, prompts and large pictures")
    sampling.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: as the model's card says)")
    sampling.add_argument(
        "--ensemble-size", type=int, metavar="N", help="predictions to merge into one (default: as the card says)"
    )
    sampling.add_argument(
        "--tile", metavar="SIZE[/OVERLAP]", help="predict larger pictures in tiles of so many pixels"
    )
    sampling.add_argument(
        "--point",
        action="append",
        metavar="U,V[,0]",
        help="pixel inside (with 0: outside) the object to segment; repeatable",
    )
    sampling.add_argument(
        "--prompt-mask", type=Path, metavar="FILE", help="picture, not black where the object to complete can be seen"
    )
    parser.add_argument(
        "--rerun", type=Path, metavar="FILE.rrd", help="also a recording for the Rerun viewer (needs rerun-sdk)"
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


@dataclass(frozen=True)
class _Settings:
    """How every frame is predicted on."""

    tasks: Sequence[str] | None
    calibration: Calibration | None
    steady: TemporalFilter | None
    points: Sequence[tuple[float, float, float]] | None
    prompt_mask: UInt8Image | None
    steps: int | None
    ensemble_size: int | None


def run(args: argparse.Namespace) -> int:
    """Predicts on every frame of every input; see `cli.main` for the exit codes."""
    problems: list[str] = []
    sources = _open_all(args.inputs, args.image_topic, problems.append)
    steady = None
    if args.temporal is not None:
        _check_are_videos(sources)
        steady = TemporalFilter(args.temporal)
    settings = _Settings(
        args.tasks,
        parse_calibration(args.camera_info) if args.camera_info else None,
        steady,
        [_parse_point(text) for text in args.point] if args.point else None,
        read_picture(args.prompt_mask).max(axis=2) if args.prompt_mask else None,
        args.steps,
        args.ensemble_size,
    )
    tile = Tile.parse(args.tile) if args.tile else None
    estimator = Estimator.load(args.model, args.backend, args.threads, tile=tile)
    estimator.check_sampling(args.steps, args.ensemble_size)
    _check_prompts(estimator, settings)
    writer = PredictionWriter(args.output, estimator.card, archives=args.save == "npz")
    sheet = PredictionSheet(args.sheet, not args.sheet_without_input) if args.sheet else None
    _protect_inputs(sources, args.output)
    rerun = RerunLog(args.rerun, estimator.card) if args.rerun else None
    if estimator.fallback_reason:
        _say(estimator.fallback_reason)
    done = []
    for stream, frame in _with_progress(sources, estimator.card.name):
        try:
            done.append(_predict(frame, stream, estimator, writer, settings, sheet, rerun))
        except (InputError, RuntimeError) as error:
            problems.append(str(error) if frame.name in str(error) else f"{frame.name}: {error}")
            _say(problems[-1])
    if rerun is not None:
        rerun.close()
    _summarise(args, estimator, done, problems)
    if not done:
        return 2
    if sheet is not None:
        sheet.write()
        if sheet.left_out:
            _say(f"{sheet.left_out} frames are not on the sheet, which has room for {MOST}")
    return 1 if problems else 0


def _open_all(paths: Sequence[Path], image_topic: str | None, note: Callable[[str], None]) -> list[Frames]:
    """Opens every input; those that cannot be opened are named.

    Raises:
        InputError: none can be opened.
    """
    sources = []
    for path in paths:
        try:
            sources.append(open_frames(path, image_topic))
        except InputError as error:
            if len(paths) == 1:
                raise
            note(str(error))
            _say(str(error))
    if not sources:
        raise InputError("none of the inputs can be read")
    return sources


def _check_are_videos(sources: Sequence[Frames]) -> None:
    """Raises InputError if there are single pictures: they have no time."""
    for source in sources:
        if isinstance(source, PictureFrames):
            raise InputError(f"--temporal is for videos and bags: {source.files[0]} is a picture without a time")


def _protect_inputs(sources: Sequence[Frames], output: Path) -> None:
    """Raises InputError if the output folder holds pictures that are inputs: `<stem>.png` would replace them."""
    for source in sources:
        for file in source.files if isinstance(source, PictureFrames) else ():
            if file.resolve().parent == output.resolve():
                raise InputError(f"the output folder {output} holds the input {file.name}: choose another folder")


def _parse_point(text: str) -> tuple[float, float, float]:
    """`u,v` or `u,v,label`.

    Raises:
        InputError: it is not that.
    """
    try:
        u, v, label = (float(part) for part in (text if text.count(",") == 2 else f"{text},1").split(","))
    except ValueError:
        raise InputError(f"a point is U,V or U,V,LABEL in pixels, got '{text}'") from None
    return u, v, label


def _check_prompts(estimator: Estimator, settings: _Settings) -> None:
    """Raises InputError if nothing can be predicted for want of a prompt, or the model lacks a task or a prompt."""
    card = estimator.card
    if settings.points and card.points is None:
        raise InputError(f"model '{card.name}' takes no point prompts: leave --point out")
    if estimator.check_tasks(settings.tasks) != {"mask"}:
        return
    for wanted, given, option in (
        (card.points, settings.points, "--point U,V"),
        (card.prompt_mask, settings.prompt_mask, "--prompt-mask FILE"),
    ):
        if wanted is not None and given is None:
            raise InputError(f"model '{card.name}' segments the object that it is asked for: give {option}")


def _with_progress(sources: Sequence[Frames], title: str) -> Iterator[tuple[str, InputFrame]]:
    """All frames, each with its stream; stems keep pictures of the same name apart by their folders' names."""
    stems = _distinct_stems([file for source in sources if isinstance(source, PictureFrames) for file in source.files])
    total = sum(len(source) for source in sources) if all(len(source) for source in sources) else None
    with progress_bar() as progress:
        task = progress.add_task(title, total=total)
        for number, source in enumerate(sources):
            for frame in source:
                yield str(number), replace(frame, stem=stems.get(frame.name, frame.stem))
                progress.advance(task)
            for note in source.notes:
                _say(f"note: {note}")


def _distinct_stems(files: Sequence[Path]) -> dict[str, str]:
    """Stem for each file: its own, with as many of its folders in front as tell equal ones apart."""
    resolved = {str(file): file.resolve() for file in files}
    counts = Counter(path.stem for path in set(resolved.values()))
    stems = {}
    for name, path in resolved.items():
        alike = [other for other in set(resolved.values()) if other.stem == path.stem]
        if counts[path.stem] == 1:
            stems[name] = path.stem
        else:
            common = Path(os.path.commonpath([other.parent for other in alike]))
            stems[name] = "_".join([*path.parent.relative_to(common).parts, path.stem])
    return stems


def _predict(
    frame: InputFrame,
    stream: str,
    estimator: Estimator,
    writer: PredictionWriter,
    settings: _Settings,
    sheet: PredictionSheet | None,
    rerun: RerunLog | None,
) -> dict[str, Any]:
    """Predicts on one frame and writes its files.

    Raises:
        InputError: the frame, its camera or an output file cannot be used.
    """
    if frame.rgb is None:
        raise InputError(frame.problem or f"{frame.name} has no picture")
    height, width = frame.rgb.shape[:2]
    intrinsics = settings.calibration.for_size(width, height) if settings.calibration else frame.intrinsics
    prediction = estimator.predict(
        frame.rgb,
        intrinsics,
        settings.tasks,
        points=settings.points,
        prompt_mask=settings.prompt_mask,
        steps=settings.steps,
        ensemble_size=settings.ensemble_size,
        stream=stream,
    )
    if settings.steady is not None and frame.stamp is not None:
        prediction = settings.steady.filter(prediction, frame.rgb, frame.stamp)
    files = writer.write(frame.stem, frame.rgb, prediction)
    if rerun is not None:
        rerun.add(frame.rgb, prediction, intrinsics, frame.stamp)
    if sheet is not None:
        overview, *maps = (file for file in files if file.suffix == ".png")
        sheet.add(overview.stem, frame.rgb, maps)
    return {
        "input": frame.name,
        "width": width,
        "height": height,
        "depth_quantity": prediction.depth_quantity,
        "milliseconds": {stage: round(1e3 * seconds, 3) for stage, seconds in prediction.timings.items()},
        "files": [str(file) for file in files],
    }


def _summarise(
    args: argparse.Namespace, estimator: Estimator, done: list[dict[str, Any]], problems: list[str]
) -> None:
    if args.json:
        facts = {
            "model": estimator.card.name,
            "backend": estimator.backend_name,
            "fallback_reason": estimator.fallback_reason,
            "predictions": done,
            "problems": problems,
        }
        print(json.dumps(facts, indent=2))
    trouble = f"; {len(problems)} problems" if problems else ""
    model = f"{estimator.card.name} on {estimator.backend_name}"
    _say(f"{len(done)} pictures predicted with {model}, written to {args.output}{trouble}")


def _say(sentence: str) -> None:
    print(f"diffusion-perception run: {sentence}", file=sys.stderr)
