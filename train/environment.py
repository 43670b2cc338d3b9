"""What a training run's result depends on beside its recipe."""

from __future__ import annotations

import ctypes
import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def describe(device: str) -> dict[str, Any]:
    """Hardware, threads, versions and the project's git revision, for the bundle."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": _revision(),
    }


@functools.cache
def _revision() -> str:
    # Asked once, at the start: by the end of a long run somebody may have changed the files.
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # git is not installed
        return "unknown"
    return git.stdout.strip() or "unknown"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def prepare() -> None:
    """Settings of the process that make training faster and change no result that matters.

    Call this before torch's first work: its threads take the first setting over when they start,
    and memory is only kept from then on.

    - Numbers below 1e-38 count as zero. GELU's gradient far from zero is full of them, and they
      make a training step a third slower.
    - Freed memory is kept for the next step. By default glibc hands each large block back to the
      system at once, which then clears it page by page for the next activation: another third.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
