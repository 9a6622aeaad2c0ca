"""What a run tells: progress bar or log lines, TensorBoard, one JSON line per evaluation, sheets of pictures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.sample import UInt8Image


EVALUATIONS = "evaluations.jsonl"
_CURVES = "the curves for TensorBoard"
_LINE_SECONDS = 30.0


class TrainingMonitor:
    """Writes below the run folder and to stderr. A disabled monitor (other processes than the first) does nothing.

    What cannot be written, because the disk is full, is said and left out.
    """

    def __init__(self, run: Path, enabled: bool = True, console: Console | None = None) -> None:
        self._run, self._enabled = run, enabled
        self._console = console or Console(stderr=True, quiet=not enabled)
        self._board = SummaryWriter(str(run / "tensorboard")) if enabled else None
        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %  {task.fields[rate]}  loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=1.0, step=0, rate="", loss="", left="")
        self._last_line = 0.0
        self._failed: set[str] = set()

    def __enter__(self) -> TrainingMonitor:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._board:
            self._write(self._board.close, _CURVES)

    def say(self, text: str) -> None:
        """One line on stderr."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int, progress: float, seconds_left: float, rate: float, losses: dict[str, float]) -> None:
        """Progress in [0, 1], pictures per second, and losses by name, smoothed."""
        if not self._enabled:
            return
        fields: dict[str, Any] = {
            "step": step,
            "rate": f"{rate:.1f} pictures/s",
            "loss": f"{losses['total']:.3f}",
            "left": f"{seconds_left / 60:.0f} min left",
        }
        self._bar.update(self._task, completed=progress, **fields)
        if not self._console.is_terminal and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "total")
            self.say(f"step {step} ({progress:.1%}, {fields['left']}) {fields['rate']} loss {fields['loss']}: {terms}")

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """TensorBoard curves."""
        if (board := self._board) is None:
            return

        def add() -> None:
            for name, value in values.items():
                board.add_scalar(f"{group}/{name}", value, step)

        self._write(add, _CURVES)

    def evaluation(self, record: dict[str, Any], sheet: UInt8Image) -> None:
        """Keeps an evaluation: a line of `evaluations.jsonl`, TensorBoard, a picture, a line on stderr."""
        if not self._board:
            return
        board, step = self._board, record["step"]
        self._write(lambda: _append(self._run / EVALUATIONS, json.dumps(record)), f"a line of {EVALUATIONS}")
        self.scalars("validation", record["scores"], step)
        self._write(lambda: board.add_image("validation/pictures", sheet, step, dataformats="HWC"), _CURVES)
        self._write(lambda: _save_picture(self._run / "pictures" / f"step_{step:08d}.jpg", sheet), "a picture")
        scores = " ".join(f"{name} {value:.3f}" for name, value in record["scores"].items())
        self.say(f"evaluation at step {step}: {scores}")

    def _write(self, write: Callable[[], object], what: str) -> None:
        """Only the first failure of a kind is said."""
        try:
            write()
        except OSError as error:
            if what not in self._failed:
                self._failed.add(what)
                self.say(f"{what} could not be written ({error}); training goes on")


def _append(path: Path, line: str) -> None:
    """The whole line or nothing of it."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError:
        os.truncate(path, size)
        raise


def _save_picture(path: Path, rgb: UInt8Image) -> None:
    _, encoded = cv2.imencode(path.suffix, rgb[..., ::-1])
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
