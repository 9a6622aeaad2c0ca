"""Benchmarks of the training side: how fast the world renders, and what the trainer costs over a plain loop."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import torch

from diffusion_perception_ros.cli.benchmarks.comparison import Comparison, take_turns
from diffusion_perception_ros.datasets.shard_rendering import render_shards
from diffusion_perception_ros.training.batch_stream import Prefetcher
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.onestep.losses import multi_task_losses
from diffusion_perception_ros.training.onestep.network import OneStepNet
from diffusion_perception_ros.training.trainer import Trainer
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.generate import render_seeds, shared_renderer


_SCENES = 32
_BATCH = 8


def world(seconds: float) -> list[Comparison]:
    """Rendered samples of 256x192 with all ground truth, per second of one core's time."""
    renderer, rates = shared_renderer(256, 192, 1), {}
    for views, name in ((5, "five views per scene"), (1, "one view per scene")):
        samples = render_seeds(itertools.count(5000), WorldConfig(views_per_scene=views), renderer)
        for _ in range(5):  # shaders are compiled, textures drawn
            next(samples)
        start, count = time.process_time(), 0
        while time.process_time() - start < 3 * seconds or count % views:
            next(samples)
            count += 1
        rates[name] = count / (time.process_time() - start)
    return [Comparison("rendered samples per second and core, 256x192", "1/s", rates, True)]


def training(seconds: float) -> list[Comparison]:
    """Steps of the trainer against a plain PyTorch loop over the same network, losses and batches, in turns."""
    with tempfile.TemporaryDirectory(prefix="diffusion_perception_") as folder:
        data = Path(folder) / "scenes"
        render_shards(WorldConfig(), range(_SCENES), (256, 192), data)
        config = TrainingConfig.model_validate(
            {
                "name": "bench",
                "data": {"train": data, "validation": data, "sizes": [[256, 192]], "batch_size": _BATCH},
                "run": {"max_steps": 1_000_000},
            }
        )
        trainer = Trainer(config, Path(folder) / "run")
        theirs, ours = Prefetcher(iter(trainer.batches())), Prefetcher(iter(trainer.batches()))
        plain = _PlainLoop(config)
        try:
            times = take_turns(
                {
                    "trainer": lambda: trainer.optimiser_step(ours),
                    "plain PyTorch loop": lambda: plain.step(next(theirs)[0]),
                },
                4 * seconds,
            )
        finally:
            theirs.close()
            ours.close()
    notes = [f"the trainer also averages the weights; {_BATCH} pictures of 256x192 a step, size S"]
    return [Comparison("training step", "ms", times, notes=notes)]


class _PlainLoop:
    """What one would write without a trainer, on the device and in the precision that the trainer chooses."""

    def __init__(self, config: TrainingConfig) -> None:
        from diffusion_perception_ros.training.onestep.network import NetworkConfig
        from diffusion_perception_ros.training.precision import has_bf16
        from diffusion_perception_ros.world.labels import LABELS

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bf16, self._config = has_bf16(), config
        self._network = OneStepNet(NetworkConfig(classes=len(LABELS))).to(self._device).train()
        settings = config.optimiser
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=settings.learning_rate, fused=True)

    def step(self, batch: Batch) -> None:
        """Forward, losses, backward, clipping, update."""
        batch, weights = batch.to(self._device), self._config.losses
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            outputs = self._network(batch.image)
        terms = multi_task_losses(outputs, batch, weights)
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.optimiser.clip_norm)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
