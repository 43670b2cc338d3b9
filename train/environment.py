"""The hardware, versions and process settings that a training run depends on."""

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
    # Cached when the run starts: by its end the files may have changed.
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
    """Change settings of the process to speed up training without affecting its results.

    Call this before torch does any work: its threads copy the first setting when they start, and
    the second only affects later allocations.

    - Numbers below 1e-38 count as zero. GELU's gradient far from zero is full of them, and they
      make a training step a third slower.
    - Freed memory is kept for the next step. By default glibc returns each large block to the
      system at once, which must then clear it page by page for the next activation: another third.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
