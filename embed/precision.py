"""Whether to compute in bfloat16, for training, evaluation and serving with PyTorch alike."""

from __future__ import annotations

import torch


def has_bfloat16(device: str) -> bool:
    """Whether ``device``, ``cuda`` or ``cpu``, has instructions for bfloat16.

    A CPU without them (x86 before AVX512-BF16 and AMX) emulates it more slowly than float32, and
    several times more slowly if it has no AVX-512 either.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device) -> torch.autocast:
    """A context in which networks run in bfloat16 if the hardware has it, otherwise unchanged."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device.type))
