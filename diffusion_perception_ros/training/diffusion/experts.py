"""A diffusion transformer's MLPs become mixtures of experts: more parameters for the same work per token.

Upcycling (Scaling, arXiv:2411.08034; Komatsuzaki et al., Sparse Upcycling, ICLR 2023) starts from a trained dense
network: every expert is a copy of the dense MLP, and only the gates are new. The weights of a token's experts are
scaled to a sum of 1, so that the new network answers as the dense one until it is trained. (The published network does
not scale them, and its training has to make up for it.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from diffusers import DiTTransformer2DModel
from torch import nn

from diffusion_perception_ros.mixture_of_experts import MixtureOfExperts
from diffusion_perception_ros.training.settings.parts import ExpertsConfig


def add_experts(transformer: DiTTransformer2DModel, settings: ExpertsConfig) -> None:
    """Puts a mixture of experts in the place of every block's MLP.

    Args:
        transformer: Changed; with dense weights already loaded if the experts are to be copies of its MLPs.
        settings: With `upcycle_from` the experts are copies, without it each starts from random weights of its own.
    """
    for block in transformer.transformer_blocks:
        experts = [copy.deepcopy(block.ff) for _ in range(settings.count)]
        if settings.upcycle_from is None:
            for expert in experts:
                for module in expert.modules():
                    if isinstance(module, nn.Linear):
                        module.reset_parameters()
        block.ff = MixtureOfExperts(experts, transformer.inner_dim, settings.per_token, normalised=True)


def mixtures_of(network: nn.Module) -> Iterator[MixtureOfExperts]:
    """The mixtures inside a network."""
    return (module for module in network.modules() if isinstance(module, MixtureOfExperts))
