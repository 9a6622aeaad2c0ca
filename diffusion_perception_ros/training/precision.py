"""Which number formats the machine at hand computes with."""

from __future__ import annotations

import torch


def has_bf16() -> bool:
    """Whether bfloat16 is faster than float32 here: on a GPU that has it, or a CPU with AVX512-BF16 or AMX.

    PyTorch emulates it on every other x86 processor, at a tenth of float32's speed.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.accelerator.is_available():
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
