"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimiser state spread over the processes.

For networks that do not fit on one GPU with their gradients and moments (the U-Net of a full-size Stable Diffusion).
PyTorch's own `fully_shard` is used directly, because accelerate knows it on accelerators only, where it could not be
tested on two CPU processes. Files never hold shards: a checkpoint can be continued with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


_SMALLEST_UNIT = 1_000_000
"""Parameters from which a block is gathered and freed on its own; smaller ones go with the module around them."""


def shard(network: nn.Module, in_bf16: bool) -> None:
    """Spreads a network over all processes, in place. Its parameters become `DTensor`s; buffers stay whole.

    Args:
        in_bf16: compute in bfloat16; parameters, gradients' sums and outputs are float32 all the same.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if in_bf16 else None, reduce_dtype=torch.float32, output_dtype=torch.float32
    )
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # shards are rows of memory
    for module in _units(network):
        fully_shard(module, mp_policy=policy)
    fully_shard(network, mp_policy=policy)


def _units(network: nn.Module) -> list[nn.Module]:
    """The innermost elements of lists of blocks that are worth a gathering of their own."""
    units: list[nn.Module] = []
    for child in network.children():
        inner = _units(child)
        parameters = sum(p.numel() for p in child.parameters())
        is_block = isinstance(network, nn.ModuleList | nn.Sequential) and parameters >= _SMALLEST_UNIT
        units += inner or ([child] if is_block else [])
    return units


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; the tensor itself if it is not sharded. Shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from all processes' parts, which all must ask for it; itself if it is not sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, one by one, so that no device holds more than one. All processes must call it.

    Args:
        keep: whether this process wants them; otherwise it gets nothing.
    """
    result = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            result[name] = value.cpu()
    return result


def like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, sharded and laid out in memory as `example` is, if their shapes agree."""
    if value.shape != example.shape:
        return value
    if isinstance(example, DTensor):
        return distribute_tensor(value.to(example.device), example.device_mesh, example.placements)
    return torch.empty_like(example, dtype=value.dtype).copy_(value)
