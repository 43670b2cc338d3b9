"""What a training run's result depends on beside its recipe."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, threads, versions and the project's git revision, for the bundle."""
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": _revision(),
    }


def _revision() -> str:
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


def flush_denormals() -> None:
    """Let the CPU take numbers below 1e-38 for zero.

    GELU's gradient far from zero is full of them, and they make a training step a third slower.
    Call this before torch's first parallel work: its threads take the setting over when they
    start.
    """
    torch.set_flush_denormal(True)
