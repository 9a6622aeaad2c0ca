"""LoRA on any of the trainer's networks: low-rank changes beside frozen weights, which merge into them in the end.

E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv:2106.09685); peft computes. DICEPTION
(arXiv:2502.17157, Sec. 4.1) adapts less than 1 % of the parameters from 50 pictures, all of it in its transformer's
attention. A convolutional network has little attention, so here every layer may change.
"""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict
from torch import nn

from diffusion_perception_ros.errors import InputError


class Adapter(BaseModel):
    """What is learnt of a network whose weights are frozen otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ranks: dict[str, int]
    """Module → rank of its change."""
    trained: tuple[str, ...] = ()
    """Modules that are learnt whole: what the network did not have before."""


def plan_adapter(network: nn.Module, share: float, trained: tuple[str, ...] = ()) -> Adapter:
    """Spends a share of the parameters, rank by rank, beginning at the output.

    First every layer gets rank 1, as far as the share goes, then rank 2, and so on: near the output layers are narrow,
    so that a rank is cheap there.

    Args:
        share: of the network's parameters. The modules of `trained` count; what they leave goes to the ranks.

    Raises:
        InputError: the share is too small for anything.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and _groups(module) == 1 and name not in trained
    }
    whole = sum(_count(network.get_submodule(name)) for name in trained)
    left = int(share * _count(network)) - whole
    ranks: Counter[str] = Counter()
    spent = True
    while spent:
        spent = False
        for name in reversed(layers):
            inputs, outputs = _sides(layers[name])
            if ranks[name] < min(inputs, outputs) and inputs + outputs <= left:
                ranks[name] += 1
                left -= inputs + outputs
                spent = True
    if not ranks and not trained:
        raise InputError(
            f"{share:.2%} of {_count(network)} parameters is too little for any layer: adapt more of them"
        )
    return Adapter(ranks={name: ranks[name] for name in layers if ranks[name]}, trained=trained)


def add_lora(network: nn.Module, adapter: Adapter) -> None:
    """Freezes a network in place and puts the adapter's changes, zero at first, beside its weights."""
    network.requires_grad_(False)
    if adapter.ranks:
        from peft import LoraConfig, inject_adapter_in_model  # imports transformers: only when it is needed

        # alpha equal to the rank: the change is B A, not scaled
        config = LoraConfig(
            r=1,
            lora_alpha=1,
            target_modules=list(adapter.ranks),
            rank_pattern=dict(adapter.ranks),
            alpha_pattern=dict(adapter.ranks),
        )
        inject_adapter_in_model(config, network)
    for name in adapter.trained:
        network.get_submodule(name).requires_grad_(True)


def merge_lora(network: nn.Module) -> None:
    """Adds the changes to the weights, in place: the network is as it was before `add_lora`, with other weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())


def learnt_parameters(network: nn.Module) -> int:
    """Number of parameters that are not frozen."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _groups(module: nn.Module) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _sides(layer: nn.Module) -> tuple[int, int]:
    """Rows and columns of the layer's weights as a matrix: what one rank costs is their sum."""
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    outputs = layer.weight.shape[0]
    return layer.weight[0].numel(), outputs


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
