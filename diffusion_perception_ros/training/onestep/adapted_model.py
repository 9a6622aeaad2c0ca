"""From the run of an adaptation to a model folder, if the held-out pictures say that it helped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.model_folder import new_model_folder
from diffusion_perception_ros.export.readme import model_readme
from diffusion_perception_ros.inference.card import Label, ModelCard, SemanticOutput, read_card, write_card
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.checkpoint import ADAPTER, Checkpoint, latest_checkpoint, read_checkpoint
from diffusion_perception_ros.training.lora import Adapter, add_lora, learnt_parameters
from diffusion_perception_ros.training.monitor import EVALUATIONS
from diffusion_perception_ros.training.onestep.export import write_network
from diffusion_perception_ros.training.onestep.network import OneStepNet
from diffusion_perception_ros.training.readme import ROWS


CREDITS = "CREDITS.md"
MAIN_SCORES = {"depth": ("abs_rel", -1), "normals": ("normals_mean", -1), "semantic": ("miou", 1)}
"""Task → the score that says whether adapting helped, and the sign of better."""


@dataclass(frozen=True)
class AdaptationComparison:
    """Scores on the held-out pictures before the first and after the last step."""

    before: dict[str, float]
    after: dict[str, float]
    steps: int
    minutes: float

    def not_better(self, tasks: Sequence[str]) -> list[str]:
        """Those of the tasks whose main score did not improve."""
        return [
            task
            for task in tasks
            for score, sign in [MAIN_SCORES[task]]
            if not sign * self.after.get(score, float("nan")) > sign * self.before.get(score, float("nan"))
        ]

    def rows(self) -> list[tuple[str, str, str]]:
        """Measure, before, after: for tables."""
        return [
            (title, form.format(self.before[key]), form.format(self.after[key]))
            for title, key, form in ROWS
            if key in self.before and key in self.after
        ]


def compare_before_and_after(run: Path) -> AdaptationComparison:
    """The first and the last evaluation of a finished run.

    Raises:
        InputError: the run has not been evaluated.
    """
    path = run / EVALUATIONS
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first, last = records[0], records[-1]
        return AdaptationComparison(first["scores"], last["scores"], last["step"], last["minutes"])
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"{path} does not hold the evaluations of an adaptation: {error}") from error


@dataclass(frozen=True)
class AdaptedModel:
    """What the run itself does not say."""

    name: str
    base: Path
    """Folder of the model that was adapted."""
    data: str
    """Name of the pictures, without their path."""
    images: int
    held_out: int
    tasks: tuple[str, ...]
    labels: tuple[Label, ...]
    """Classes of the adapted model."""
    precision: Literal["fp32", "int8"]
    command: str
    overwrite: bool = False


def learnt_share(checkpoint: Checkpoint) -> tuple[int, float]:
    """Parameters that an adaptation learnt, and their share of those of the network."""
    network = OneStepNet(checkpoint.network)
    whole = sum(parameter.numel() for parameter in network.parameters())
    add_lora(network, Adapter.model_validate(checkpoint.identity[ADAPTER]))
    learnt = learnt_parameters(network)
    return learnt, learnt / whole


def last_state(run: Path) -> Checkpoint:
    """The checkpoint at the end of a run.

    Raises:
        InputError: there is none, as on a disk that was full.
    """
    folder = latest_checkpoint(run)
    if folder is None:
        raise InputError(f"{run} holds no checkpoint: the disk may be full; make room and give the same command again")
    return read_checkpoint(folder)


def export_adapted(run: Path, output: Path, pictures: Sequence[Sample], model: AdaptedModel) -> ModelCard:
    """Writes the model folder `output` with the adapter merged into the weights, complete or not at all.

    Args:
        run: a finished run; its last averaged weights are used.
        pictures: those that were adapted on, for calibration and for comparing the graph with PyTorch.

    Raises:
        InputError: no such run, the output exists or cannot be written, or the graph disagrees with PyTorch.
    """
    source, base = last_state(run), read_card(model.base)
    width, height = source.state["config"]["data"]["sizes"][0]
    network = source.averaged_network()
    with new_model_folder(output, model.overwrite) as folder:
        parity, files = write_network(network, folder, (width, height), pictures, model.precision)
        card = _card(base, model, source, parity, files)
        write_card(card, folder)
        if (model.base / CREDITS).is_file():
            shutil.copyfile(model.base / CREDITS, folder / CREDITS)
        text = _readme(card, base, model, source, compare_before_and_after(run))
        (folder / "README.md").write_text(text, encoding="utf-8")
    return card


def _card(
    base: ModelCard, model: AdaptedModel, source: Checkpoint, parity: dict[str, float], files: dict[str, str]
) -> ModelCard:
    outputs = tuple(
        output.model_copy(update={"labels": model.labels}) if isinstance(output, SemanticOutput) else output
        for output in base.outputs
    )
    tasks = " and ".join(model.tasks)
    origin = base.source.model_copy(
        update={
            "checkpoint": f"{base.name} adapted, step {source.state['step']}",
            "training_data": f"{base.source.training_data}; then {model.images} images of {model.data}",
            "command": model.command,
        }
    )
    fields: dict[str, Any] = {
        "name": model.name,
        "description": f"{base.name} adapted to {model.data} for {tasks}",
        "source": origin,
        "precision": model.precision,
        "outputs": outputs,
        "parity": parity,
        "files": files,
    }
    return ModelCard.model_validate(base.model_copy(update=fields).model_dump())


def _readme(
    card: ModelCard, base: ModelCard, model: AdaptedModel, source: Checkpoint, comparison: AdaptationComparison
) -> str:
    learnt, share = learnt_share(source)
    rows = "\n".join(f"| {title} | {before} | {after} |" for title, before, after in comparison.rows())
    credits = f" The credits of its training data are in {CREDITS}." if (model.base / CREDITS).is_file() else ""
    facts = (
        f"Everything else about it is as in `{base.name}`, with the same licence ({card.licence}).{credits}",
        f"Learnt: {', '.join(model.tasks)}, from {model.images} images; what was not learnt was kept as it was.",
        f"Parameters learnt: {learnt} of the network's, {share:.2%} (LoRA, merged into the weights).",
        f"Classes: {', '.join(label.name for label in model.labels)}.",
        f"Run: {comparison.steps} steps of {source.state['config']['data']['batch_size']} images, "
        f"{comparison.minutes:.1f} minutes.",
        f"Precision: {card.precision}.",
        f"Command: `{model.command}`",
    )
    scores = f"""They come later in the recording than the images that were learnt from, with a gap between, and chose
nothing. All scores are of the PyTorch network at {_size(source)} pixels.

| measure | {base.name} | {card.name} |
|---|---|---|
{rows}

It was made for this place and this camera: elsewhere `{base.name}` is likely to be better."""
    return model_readme(card, facts, {f"Before and after, on {model.held_out} held-out images": scores})


def _size(source: Checkpoint) -> str:
    width, height = source.state["config"]["data"]["sizes"][0]
    return f"{width}x{height}"
