"""Whether to compute in bfloat16: one answer for training, evaluation and PyTorch's serving."""

from __future__ import annotations

import torch


def has_bfloat16(device: str) -> bool:
    """Whether ``device``, ``cuda`` or ``cpu``, has instructions for bfloat16.

    A CPU without them (x86 before AVX512-BF16 and AMX) emulates it, which is slower than float32:
    several times, where there is no AVX-512 either.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device) -> torch.autocast:
    """A context in which the network runs in bfloat16 where that is faster, else as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device.type))
