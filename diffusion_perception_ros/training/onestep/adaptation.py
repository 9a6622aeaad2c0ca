"""Few-shot adaptation of `OneStepNet`: LoRA for the tasks that have labels, the others stay as they were.

The tasks without labels would drift, as all share one trunk. So the network as it was answers for them on every
picture (Z. Li and D. Hoiem, "Learning without Forgetting", 2016, arXiv:1606.09282).
"""

from __future__ import annotations

import copy
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_perception_ros.training.lora import Adapter, add_lora, plan_adapter
from diffusion_perception_ros.training.onestep.losses import normals_loss
from diffusion_perception_ros.training.onestep.network import NetworkOutputs, OneStepNet
from diffusion_perception_ros.training.settings.names import AdaptedTask
from diffusion_perception_ros.training.settings.parts import AdaptationConfig, LossWeights


TASKS: tuple[AdaptedTask, ...] = get_args(AdaptedTask)

_TERMS: dict[str, tuple[str, ...]] = {
    "depth": ("scale_invariant", "metric", "gradient", "surface", "confidence"),
    "normals": ("normals",),
    "semantic": ("semantic",),
    "instances": ("instances",),
}
"""Task → its terms of `LossWeights`."""
_CLASS_ROWS = "labelling.out"
"""The layer that has a row per class (and sub-pixel)."""


class Adaptation:
    """What adapting adds to the learner of a `OneStepNet`, which gets its LoRA here."""

    def __init__(self, network: OneStepNet, settings: AdaptationConfig) -> None:
        self._kept = [task for task in TASKS if task not in settings.tasks]
        self._teacher: nn.Module = copy.deepcopy(network).requires_grad_(False).eval()
        trained = (_CLASS_ROWS,) if settings.new_classes else ()
        self.adapter: Adapter = plan_adapter(network, settings.share, trained)
        add_lora(network, self.adapter)
        network.eval()  # BatchNorm keeps its statistics: those of few pictures would be worse

    def to(self, device: torch.device) -> None:
        """Moves the network as it was."""
        self._teacher.to(device)

    def learnt(self, weights: LossWeights) -> LossWeights:
        """Weights of the loss terms against labels: zero for tasks that stay as they were."""
        return weights.model_copy(update={term: 0.0 for task in self._kept for term in _TERMS[task]})

    def kept(
        self, outputs: NetworkOutputs, image: Tensor, noise: Tensor | None, weights: LossWeights
    ) -> dict[str, Tensor]:
        """Weighted distances of the tasks that stay from what the network said before, zero at first.

        Args:
            image: (N, 3, H, W), what `outputs` answer.
            weights: of the terms as if they had labels.
        """
        with torch.no_grad():
            before: NetworkOutputs = self._teacher(image, noise)
        return {f"kept_{task}": _distance(task, outputs, before, weights) for task in self._kept}


def _distance(task: str, said: NetworkOutputs, before: NetworkOutputs, weights: LossWeights) -> Tensor:
    """Weighted distance of what a network says now from what it said before, zero if they agree."""
    if task == "depth":
        depth = (said.log_depth - before.log_depth).float().abs().mean()
        scale = (said.log_scale - before.log_scale).float().abs().mean()
        return weights.scale_invariant * depth + weights.confidence * scale
    if task == "normals":
        directions = (F.normalize(answer.normals.float()) for answer in (said, before))
        return weights.normals * normals_loss(*directions)
    if task == "semantic":
        now, then = (answer.semantic.float().log_softmax(1) for answer in (said, before))
        return weights.semantic * F.kl_div(now, then, reduction="none", log_target=True).sum(1).mean()
    return weights.instances * (said.offsets - before.offsets).float().abs().mean()


def with_classes(network: OneStepNet, names: tuple[str, ...], wanted: tuple[str, ...]) -> OneStepNet:
    """A copy of a network that tells other classes apart.

    Args:
        names: classes of the network.
        wanted: classes of the copy. Those among `names` keep their rows; the others start from the mean of all rows,
            which prefers none.
    """
    if wanted == names:
        return network
    result = OneStepNet(network.config.model_copy(update={"classes": len(wanted)}))
    tensors = network.state_dict()
    for suffix in ("weight", "bias"):
        key = f"{_CLASS_ROWS}.{suffix}"
        old = tensors[key].unflatten(0, (len(names) + 2, -1))  # the last two are the instance offsets
        mean = old[:-2].mean(0)
        rows = [old[names.index(name)] if name in names else mean for name in wanted]
        tensors[key] = torch.stack([*rows, *old[-2:]]).flatten(0, 1)
    result.load_state_dict(tensors)
    return result.train(network.training)
