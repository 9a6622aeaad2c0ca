"""The Scaling generalist's network: a diffusion transformer (DiT) whose MLPs are mixtures of experts.

Written from `models/dit_moe.py` of the published code (`DiTMultiTaskMoE` as `DiTMultiTaskMoE_uc` configures it), whose
experts cannot be exported; the names of the parameters are its own, so that its checkpoints load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_perception_ros.mixture_of_experts import MixtureOfExperts


HEADS = 16
EXPERTS_PER_TOKEN = 2
FREQUENCIES = 128
"""Of the timestep's sinusoidal embedding: as many cosines, then as many sines."""
TASKS = {1000: "conv_in_1", 1001: "conv_in_2", 1002: "conv_in_3", 1003: "conv_in_4"}
"""Row of the label embedding → patch embedding: depth, amodal segmentation, horizontal and vertical flow."""


@dataclass(frozen=True)
class DitConfig:
    """Sizes of the network; `config_of` reads them from a checkpoint."""

    tokens: int = 1024
    """Patches of the latent; the latent is square."""
    patch_size: int = 2
    in_channels: int = 12
    out_channels: int = 8
    """Half of them are the prediction, the other half its variance."""
    width: int = 1152
    depth: int = 28
    experts: int = 8
    hidden: int = 4608
    """Width of an expert's hidden layer."""
    labels: int = 1005

    @property
    def side(self) -> int:
        """Patches per row of the latent."""
        return math.isqrt(self.tokens)

    @property
    def latent_side(self) -> int:
        """Rows and columns of the latent."""
        return self.side * self.patch_size


def config_of(weights: dict[str, Tensor]) -> DitConfig:
    """Reads the sizes from a checkpoint's tensors.

    Raises:
        KeyError: it lacks one of the network's tensors.
        ValueError: sizes that cannot be.
    """
    _, tokens, width = weights["pos_embed"].shape
    _, in_channels, patch_size, _ = weights["x_embedder.proj.conv_in_1.weight"].shape
    if math.isqrt(tokens) ** 2 != tokens or width % HEADS:
        raise ValueError(
            f"pos_embed has {tokens} tokens of width {width}: expected a square and a multiple of {HEADS}"
        )
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return DitConfig(
        tokens=tokens,
        patch_size=patch_size,
        in_channels=in_channels,
        out_channels=weights["final_layer.linear.weight"].shape[0] // patch_size**2,
        width=width,
        depth=len(blocks),
        experts=weights["blocks.0.moe.gate.weight"].shape[0],
        hidden=weights["blocks.0.moe.experts.0.fc1.weight"].shape[0],
        labels=weights["y_embedder.embedding_table.weight"].shape[0],
    )


class DiTMultiTaskMoE(nn.Module):
    """Predicts noise and variance of a latent from a stack of latents, for one of four tasks."""

    def __init__(self, config: DitConfig, dense: bool = False) -> None:
        """
        Args:
            dense: Every expert computes all tokens: four times the work, but all shapes are fixed. Otherwise it
                computes its own tokens, whose number is known at run time.
        """
        super().__init__()
        self.config = config
        self.x_embedder = _PatchEmbedder(config)
        self.t_embedder = _TimestepEmbedder(config.width)
        self.y_embedder = _LabelEmbedder(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(config, dense) for _ in range(config.depth))
        self.final_layer = _FinalLayer(config)

    def forward(self, stacked: Sequence[Tensor], timestep: Tensor, labels: Sequence[int]) -> Tensor:
        """
        Args:
            stacked: For each label (B, in_channels, h, w), h = w = `config.latent_side`.
            timestep: (1,) float32.
            labels: Of `TASKS`; constants of the graph.

        Returns:
            (labels, B, out_channels, h, w).
        """
        members, width = stacked[0].shape[0], self.config.width
        patches = [self.x_embedder(part, label) for part, label in zip(stacked, labels, strict=True)]
        tokens = torch.cat(patches) + self.pos_embed  # (labels B, T, width)
        rows = torch.cat([self.y_embedder(label) for label in labels])  # (labels, width)
        condition = (self.t_embedder(timestep, rows.dtype) + rows)[:, None].expand(-1, members, -1).reshape(-1, width)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self._unpatchify(self.final_layer(tokens, condition), len(labels))

    def _unpatchify(self, patches: Tensor, labels: int) -> Tensor:
        """(labels B, T, patch_size² c) → (labels, B, c, h, w); the channel comes last in a patch."""
        side, patch, channels = self.config.side, self.config.patch_size, self.config.out_channels
        grid = patches.reshape(-1, side, side, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(labels, -1, channels, side * patch, side * patch)


class _PatchEmbedder(nn.Module):
    """One convolution per task."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.ModuleDict(
            {name: nn.Conv2d(config.in_channels, config.width, patch, stride=patch) for name in TASKS.values()}
        )

    def forward(self, stacked: Tensor, label: int) -> Tensor:
        return self.proj[TASKS[label]](stacked).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class _TimestepEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """(1,) float32 → (1, width) of `dtype`, in which the timestep itself would be rounded."""
        exponents = torch.arange(FREQUENCIES, dtype=torch.float32, device=timestep.device) / FREQUENCIES
        angles = timestep[:, None].float() * torch.exp(-math.log(10000) * exponents)
        embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
        return self.mlp(embedding.to(dtype))  # type: ignore[no-any-return]


class _LabelEmbedder(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(config.labels, config.width)

    def forward(self, label: int) -> Tensor:
        return self.embedding_table.weight[label : label + 1]


class _Block(nn.Module):
    """Attention and experts, each shifted, scaled and gated by the condition (adaLN-zero)."""

    def __init__(self, config: DitConfig, dense: bool) -> None:
        super().__init__()
        self.norm1 = _norm(config.width)
        self.attn = _Attention(config.width)
        self.norm2 = _norm(config.width)
        self.moe = mixture(config, dense)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        tokens = tokens + gate1 * self.attn(self.norm1(tokens) * (1 + scale1) + shift1)
        return tokens + gate2 * self.moe(self.norm2(tokens) * (1 + scale2) + shift2)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        _, count, width = tokens.shape
        query, key, value = self.qkv(tokens).view(-1, count, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, T, width / heads)
        return self.proj(attended.transpose(1, 2).reshape(-1, count, width))  # type: ignore[no-any-return]


def mixture(config: DitConfig, dense: bool) -> MixtureOfExperts:
    """The experts of one block."""
    experts = [_Expert(config.width, config.hidden) for _ in range(config.experts)]
    return MixtureOfExperts(experts, config.width, EXPERTS_PER_TOKEN, dense=dense)


class _Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens), approximate="tanh"))  # type: ignore[no-any-return]


class _FinalLayer(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.norm_final = _norm(config.width)
        self.linear = nn.Linear(config.width, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 2 * config.width))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(self.norm_final(tokens) * (1 + scale) + shift)  # type: ignore[no-any-return]


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
