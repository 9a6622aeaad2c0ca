"""The trainer: one loop for every objective, on `accelerate` (one or many processes, CPU or GPU)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.batch_stream import BatchStream, Position, Prefetcher
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.engine import TrainingEngine
from diffusion_perception_ros.training.evaluator import Evaluator
from diffusion_perception_ros.training.learner import EmaTeacher, make_learner
from diffusion_perception_ros.training.monitor import TrainingMonitor
from diffusion_perception_ros.training.onestep.losses import inverse_frequency_weights
from diffusion_perception_ros.training.schedule import Schedule, StopSignal
from diffusion_perception_ros.training.sources import evenly, label_counts, open_sources
from diffusion_perception_ros.training.validation import selection_error


BEST = "best"
_SMOOTHING = 0.95


class Trainer:
    """Trains one config into one run folder, and continues where that folder's newest checkpoint stands.

    The run folder gets `checkpoints/step_*` (everything needed to go on), `best` (averaged weights of the best
    evaluation), `evaluations.jsonl`, `pictures` and `tensorboard`.
    """

    def __init__(self, config: TrainingConfig, run: Path, console: Console | None = None) -> None:
        """Opens the data, builds the network and restores the newest checkpoint.

        Raises:
            InputError: no or too little data, a checkpoint of another network, or a folder that cannot be written.
        """
        self.config, self.folder = config, run
        self._engine = TrainingEngine(config)
        self._schedule = Schedule(config.run, config.optimiser)
        self.step, self.seconds = 0, 0.0
        self._position = Position()
        self._best = math.inf
        self._smoothed: dict[str, float] = {}
        self._damaged: dict[Path, str] = {}
        self._validation_data = self._open(config.data.validation)
        self._validation_indices = evenly(len(self._validation_data), config.run.validation_samples)
        dataset = self._open_training_data()
        counts = label_counts(dataset, len(config.data.classes))
        self._class_weights = self._engine.agreed(inverse_frequency_weights(counts))
        torch.manual_seed(config.seed)
        self._learner = make_learner(config, self._class_weights)
        self._learner.to(self._engine.device)
        self._engine.start(self._learner.network, self._resume())
        if isinstance(self._learner, EmaTeacher):
            self._learner.follow(self._engine.averaged)
        self._evaluator = self._make_evaluator(self._validation_data, self._validation_indices)
        self._real = self._make_real_evaluator()
        try:
            run.mkdir(parents=True, exist_ok=True)
            self._monitor = TrainingMonitor(run, self._engine.accelerator.is_main_process, console)
        except OSError as error:
            raise InputError(
                f"{run} cannot be written ({error.strerror or error}): choose another run folder"
            ) from error
        self._stop = StopSignal()

    def _open(self, sources: Sequence[Any]) -> Mixture:
        return open_sources(sources, len(self.config.data.classes))

    def _open_training_data(self) -> Mixture:
        dataset = self._open(self.config.data.train)
        if len(dataset) < self.config.data.minimum_samples:
            raise InputError(
                f"data.train holds {len(dataset)} samples, data.minimum_samples asks for "
                f"{self.config.data.minimum_samples}: render more with `diffusion-perception world`"
            )
        return dataset

    def _make_evaluator(self, data: Mixture, indices: list[int], keep_aspect: bool = False) -> Evaluator:
        return Evaluator(
            self._engine.scored, self._learner, data, indices, self.config, self._engine.accelerator, keep_aspect
        )

    def _make_real_evaluator(self) -> Evaluator | None:
        if self.config.data.real is None:
            return None
        data = self._open(self.config.data.real)
        return self._make_evaluator(data, evenly(len(data), self.config.run.validation_samples), keep_aspect=True)

    def train(self) -> bool:
        """Trains to the end of the budget.

        Returns:
            False if SIGTERM or SIGINT ended it early; the state is then in a checkpoint.

        Raises:
            InputError: the loss is no longer finite; names the samples and the checkpoint to go on from.
        """
        started = time.monotonic() - self.seconds
        last_checkpoint = last_validation = self.seconds
        batches = self.batches()
        source = Prefetcher(iter(batches))
        rate_from = (self.step, time.monotonic())
        with self._monitor, self._stop.listening():
            for folder, reason in self._damaged.items():
                self._monitor.say(f"{folder} is left out, an older checkpoint takes its place: {reason}")
            self._monitor.say(self._describe())
            if self.step == 0 and self.config.init_from is not None:
                self._evaluate()  # what it starts from
            try:
                while not (stop := self._agree(time.monotonic() - started)) and self._progress < 1.0:
                    if self.seconds - last_validation > 60 * self.config.run.validate_minutes:
                        last_validation = self.seconds
                        self._evaluate()
                    if self.seconds - last_checkpoint > 60 * self.config.run.checkpoint_minutes:
                        last_checkpoint = self.seconds
                        self._save()
                    losses = self.optimiser_step(source)
                    self.step += 1
                    self._smooth(losses)
                    if self.step % self.config.run.log_steps == 0:
                        self._report(self._smoothed, rate_from)
                        rate_from = (self.step, time.monotonic())
            finally:
                source.close()
            if not stop:
                self._evaluate()
            self._save()
            if not stop:
                self._finish()
            self._monitor.say(f"{'stopped' if stop else 'done'} at step {self.step}: {self.folder}")
            self._report_unreadable("training", batches.unreadable)
            self._report_unreadable("validation", self._evaluator.unreadable)
            if self._real is not None:
                self._report_unreadable("real", self._real.unreadable)
        return not stop

    def _smooth(self, losses: dict[str, float]) -> None:
        """Takes the losses of a step into the running means that are logged."""
        before = self._smoothed
        self._smoothed = {k: _SMOOTHING * before.get(k, v) + (1 - _SMOOTHING) * v for k, v in losses.items()}

    def batches(self) -> BatchStream:
        """This process's training batches, from where the newest checkpoint stands."""
        data = self.config.data
        return BatchStream(
            self._open_training_data,
            data.batch_size,
            data.sizes,
            self.config.augmentation,
            self.config.seed,
            self._position,
            self._engine.accelerator.process_index,
            self._engine.accelerator.num_processes,
        )

    def optimiser_step(self, source: Prefetcher) -> dict[str, float]:
        """One update of the weights from `accumulation` batches; losses of the last one."""
        while True:
            batch, position = next(source)
            batch = batch.to(self._engine.device)
            with self._engine.accumulating():
                generator = torch.Generator().manual_seed(_noise_seed(self.config.seed, position))
                terms = self._learner.losses(self._engine.network, batch, generator)
                loss = torch.stack(list(terms.values())).sum()
                self._refuse_nan(loss, "loss", batch)
                norm = self._engine.backward(loss)
                if norm is not None:
                    self._refuse_nan(norm, "gradient", batch)
                self._engine.update(self._learning_rate)
            if norm is not None:
                self._position = position
                self._engine.average(self._schedule.average_decay(self.step))
                return {"total": loss.item(), **{name: term.item() for name, term in terms.items()}}

    def _refuse_nan(self, value: Tensor, what: str, batch: Batch) -> None:
        if torch.isfinite(value):
            return
        latest = checkpoints.latest_checkpoint(self.folder)
        raise InputError(
            f"the {what} is {value.item()} at step {self.step} on the samples {', '.join(batch.names)}: check them or "
            f"lower optimiser.learning_rate; the last good state is {latest or 'the start, nothing was saved yet'}"
        )

    def _agree(self, seconds: float) -> bool:
        """Sets `seconds` and says whether to stop, both as the first process sees it: all must decide alike."""
        self.seconds, stop = seconds, self._stop.asked
        if self._engine.accelerator.num_processes > 1:
            shared = self._engine.agreed(torch.tensor([seconds, float(stop)], dtype=torch.float64))
            self.seconds, stop = shared[0].item(), bool(shared[1].item())
        return stop

    @property
    def _progress(self) -> float:
        return self._schedule.progress(self.step, self.seconds)

    @property
    def _learning_rate(self) -> float:
        return self._schedule.learning_rate(self.step, self.seconds)

    # --- evaluation and state ---

    def _evaluate(self) -> None:
        """Scores the averaged network on the first process and keeps it if it is the best so far."""
        self._engine.refresh_scored()
        if self._engine.accelerator.is_main_process:
            scores = self._evaluator.scores()
            score = selection_error(scores, self.config.run.score)
            is_best = score < self._best
            record = {
                "step": self.step,
                "minutes": round(self.seconds / 60, 2),
                "samples": self._samples_seen,
                "is_best": is_best,
                "scores": scores,
            }
            if self._real is not None:
                try:
                    record["real_scores"] = self._real.scores()
                except InputError as error:  # they choose nothing: a run does not end for them
                    self._monitor.say(f"the real pictures are left out: {error}")
            self._monitor.evaluation(record, self._evaluator.sheet())
            if is_best:
                averaged = {checkpoints.AVERAGED: self._engine.scored.state_dict()}
                if self._write(self.folder / BEST, {"evaluation": record}, averaged):
                    self._best = score
        self._engine.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        best = self.folder / BEST / checkpoints.AVERAGED
        if self._engine.accelerator.is_main_process and best.is_file():
            self._learner.network = self._engine.scored  # the trained one may be sharded
            try:
                self._learner.finish(checkpoints.load_tensors(best), self.folder)
            except OSError as error:
                self._monitor.say(f"the result could not be written ({error}); it is in {best.parent} as well")
        self._engine.accelerator.wait_for_everyone()

    @property
    def _samples_seen(self) -> int:
        processes = self._engine.accelerator.num_processes
        return int(self.step * self.config.data.batch_size * self.config.optimiser.accumulation * processes)

    def _save(self) -> None:
        files = self._engine.files()
        if self._engine.accelerator.is_main_process:
            best = {"best": self._best if math.isfinite(self._best) else None}
            folder = checkpoints.step_folder(self.folder, self.step)
            if self._write(folder, best, files):
                checkpoints.prune_checkpoints(self.folder, self._damaged.keys() - {folder})
                self._damaged.clear()
        self._engine.accelerator.wait_for_everyone()

    def _write(self, folder: Path, extra: dict[str, Any], files: dict[str, dict[str, Tensor]]) -> bool:
        """A full disk costs this checkpoint, not the run."""
        state = {
            "name": self.config.name,
            "step": self.step,
            "seconds": self.seconds,
            "samples": self._samples_seen,
            "position": self._position.as_dict(),
            "losses": self._smoothed,
            "class_weights": self._class_weights.tolist(),
            "validation_indices": self._validation_indices,
            "config": self.config.model_dump(mode="json"),
            **extra,
        }
        try:
            checkpoints.write_checkpoint(folder, self._learner.identity, state, files)
        except OSError as error:
            self._monitor.say(f"checkpoint {folder} could not be written ({error}); training goes on")
            return False
        return True

    def _resume(self) -> Path | None:
        """Takes up the state of the newest whole checkpoint, if there is one; the tensors are the engine's."""
        latest = checkpoints.latest_checkpoint(self.folder, self._damaged.__setitem__)
        if latest is None:
            if self._damaged:
                folder, reason = next(iter(self._damaged.items()))
                raise InputError(
                    f"no checkpoint of {self.folder} is whole, the newest ({folder.name}) because {reason}: remove "
                    f"{folder.parent} to start anew"
                )
            return None
        checkpoint = checkpoints.read_checkpoint(latest)
        if checkpoint.identity != self._learner.identity:
            raise InputError(
                f"{latest} holds another network ({checkpoint.identity}) than the config asks for "
                f"({self._learner.identity}): choose another output folder"
            )
        try:
            self._restore(checkpoint.state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{latest} cannot be continued: its {checkpoints.STATE} lacks or has a wrong {error}"
            ) from error
        return latest

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self._position = Position(**state["position"])
        self._best = math.inf if state["best"] is None else state["best"]
        self._smoothed = dict(state.get("losses", {}))
        self._class_weights.copy_(torch.tensor(state["class_weights"]))  # in place: the learner holds it, too
        self._validation_indices = [
            index for index in state["validation_indices"] if index < len(self._validation_data)
        ]

    def _describe(self) -> str:
        engine = self._engine
        parameters = sum(p.numel() for p in engine.scored.parameters()) / 1e6
        return (
            f"{self.config.name}: {parameters:.1f} M parameters, {len(self._open_training_data())} training samples, "
            f"{len(self._validation_indices)} for validation, {engine.accelerator.num_processes} process(es) on "
            f"{engine.device}, {'bf16' if engine.bf16 else 'fp32'}, from step {self.step}"
        )

    def _report_unreadable(self, kind: str, unreadable: dict[int, str]) -> None:
        if unreadable:
            first = next(iter(unreadable.values()))
            self._monitor.say(f"{len(unreadable)} {kind} samples could not be read and were passed over: {first}")

    def _report(self, smoothed: dict[str, float], since: tuple[int, float]) -> None:
        per_step = self._samples_seen / self.step
        rate = (self.step - since[0]) * per_step / (time.monotonic() - since[1])
        left = self.seconds / max(self._progress, 1e-6) * (1 - self._progress)
        self._monitor.step(self.step, self._progress, left, rate, smoothed)
        self._monitor.scalars("loss", smoothed, self.step)
        self._monitor.scalars("run", {"learning_rate": self._learning_rate, "pictures_per_second": rate}, self.step)


def _noise_seed(seed: int, position: Position) -> int:
    (number,) = np.random.SeedSequence([seed, position.epoch, position.start]).generate_state(1)
    return int(number)
