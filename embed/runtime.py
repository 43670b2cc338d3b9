"""What runs a bundle's network: the interface, and which implementation to take."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embed.bundle import Bundle

log = logging.getLogger(__name__)

RuntimeName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]

LANES = 2
"""How many passes a runtime that can share its threads runs at a time. While the answers of one
batch are put together, which is Python, another one is in the network."""
_NVIDIA = Path("/dev/nvidiactl")


class Raw(NamedTuple):
    """A forward pass's ``logits`` float32 ``(n, classes)``, ``features`` float32 ``(n, d)``."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


class Runtime(Protocol):
    """Runs one network; ``Encoder`` sees to it that a lane, or all of it, is used by one thread."""

    name: str
    precision: Precision
    device: str
    """``cpu`` or ``cuda``."""

    lanes: int
    """Passes that can run at a time, each on its share of the threads; 1 where only whole ones."""

    def run(self, batch: NDArray[np.uint8], lane: int | None = None) -> Raw:
        """One forward pass over RGB pictures uint8 ``(n, input_size, input_size, 3)``.

        On all threads, or on those of a ``lane``, 0 to ``lanes - 1``.
        """


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_runtime(
    bundle: Bundle,
    name: RuntimeName = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    cache: Path | None = None,
) -> Runtime:
    """The runtime of that name; for ``auto`` the fastest that works here.

    On a CPU that is OpenVINO (``benchmarks/runtime.py`` measures the choice); with an NVIDIA GPU,
    or where OpenVINO cannot be used, it is PyTorch, which always works.

    Args:
        bundle: the trained model.
        name: ``auto``, ``openvino`` or ``torch``.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the hardware has it.
        threads: CPU threads; None for one a core.
        cache: folder in which an exported network is kept, usually the bundle's own.

    Raises:
        ValueError: ``name`` is not a runtime.
        ImportError: OpenVINO was asked for by name and is not installed.
    """
    if name not in ("auto", "openvino", "torch"):
        raise ValueError(f"runtime is {name!r}; expected auto, openvino or torch")
    wanted = name == "openvino" or (
        name == "auto" and not _NVIDIA.exists() and importlib.util.find_spec("openvino")
    )
    if wanted:
        try:
            from embed.openvino_runtime import OpenVinoRuntime

            return OpenVinoRuntime(bundle, precision, threads, cache)
        except Exception as error:
            if name == "openvino":
                raise
            # A CPU or a network that OpenVINO does not know must not stop the service.
            log.warning("OpenVINO cannot run this model, going on with PyTorch: %s", error)
    from embed.torch_runtime import TorchRuntime

    return TorchRuntime(bundle, precision, threads)
