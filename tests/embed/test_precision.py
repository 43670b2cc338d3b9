"""The precision of the network, depending on the hardware."""

from __future__ import annotations

import pytest
import torch

from embed.precision import autocast, has_bfloat16


def hardware(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    """A CPU with or without these instructions for bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: torch.dtype
) -> None:
    hardware(monkeypatch, avx512, amx)
    x = torch.eye(2)
    with autocast(x.device):
        assert (x @ x).dtype == expected
    assert has_bfloat16("cpu") == (expected == torch.bfloat16)


def test_the_context_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, avx512=True, amx=False)
    x = torch.eye(2)
    with autocast(x.device):
        pass
    assert (x @ x).dtype == torch.float32
