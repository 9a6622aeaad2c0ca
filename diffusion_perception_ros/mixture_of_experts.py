"""A layer of several networks of which every token uses a few; what `families` and `training` have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MixtureOfExperts(nn.Module):
    """The experts that a token's gate scores highest, weighted with the softmax over all scores.

    As in Scaling's published `models/dit_moe.py`, there is no expert that every token uses.
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        width: int,
        per_token: int = 2,
        normalised: bool = False,
        dense: bool = False,
    ) -> None:
        """
        Args:
            experts: Networks (N, width) → (N, width).
            width: Of a token.
            per_token: Experts that a token uses.
            normalised: A token's weights are scaled to a sum of 1. The published network does not do that.
            dense: Every expert computes all tokens: more work, but all shapes are fixed. Otherwise it computes its own
                tokens, whose number is known at run time.
        """
        super().__init__()
        self.per_token, self.normalised, self.dense = per_token, normalised, dense
        self.experts = nn.ModuleList(experts)
        self.gate = nn.Linear(width, len(experts), bias=False)
        self.imbalance: Tensor | None = None
        """Of the last pass in training, a scalar: 1 if the experts share the tokens evenly, up to their number if one
        has them all (Switch Transformer, Fedus et al., JMLR 2022, eq. 4)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, width) → the same."""
        flat = tokens.reshape(-1, tokens.shape[-1])  # (N, width)
        scores = self.gate(flat).softmax(dim=-1)  # (N, experts)
        weights, chosen = torch.topk(scores, self.per_token, dim=-1, sorted=False)
        if self.training:
            self.imbalance = self._imbalance(scores, chosen)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        weights = torch.zeros_like(scores).scatter(1, chosen, weights)  # 0 for experts that are not chosen
        mixed = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            weight = weights[:, index : index + 1]  # (N, 1)
            if self.dense:
                mixed = mixed + weight * expert(flat)
            else:
                rows = torch.nonzero(weight[:, 0])[:, 0]
                share = weight[rows] * expert(flat[rows])
                mixed = mixed.index_add(0, rows, share.to(mixed.dtype))  # autocast computes in two formats
        return mixed.view_as(tokens)

    def _imbalance(self, scores: Tensor, chosen: Tensor) -> Tensor:
        tokens = torch.bincount(chosen.reshape(-1), minlength=len(self.experts)) / chosen.numel()
        return len(self.experts) * (tokens * scores.mean(dim=0)).sum()
