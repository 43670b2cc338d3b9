"""The choice of a runtime for this machine."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from embed.bundle import Bundle
from embed.runtime.protocol import Precision, Runtime, RuntimeName

log = logging.getLogger(__name__)

_NVIDIA = Path("/dev/nvidiactl")


def make_runtime(
    bundle: Bundle,
    name: RuntimeName = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    cache: Path | None = None,
) -> Runtime:
    """The runtime called ``name``; for ``auto``, the fastest that works here.

    On a CPU that is OpenVINO (``benchmarks/runtime.py`` compares them); with an NVIDIA GPU, or if
    OpenVINO does not work, it is PyTorch.

    Args:
        bundle: the trained model.
        name: ``auto``, ``openvino`` or ``torch``.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 if the hardware has it.
        threads: CPU threads; None for one per core.
        cache: private folder in which an exported network is kept; None for none.

    Raises:
        ValueError: ``name`` is not a runtime.
        ImportError: ``name`` is ``openvino`` and OpenVINO is not installed.
    """
    if name not in ("auto", "openvino", "torch"):
        raise ValueError(f"runtime is {name!r}; expected auto, openvino or torch")
    try_openvino = name == "openvino" or (
        name == "auto" and not _NVIDIA.exists() and importlib.util.find_spec("openvino")
    )
    if try_openvino:
        try:
            from embed.runtime.openvino import OpenVinoRuntime

            return OpenVinoRuntime(bundle, precision, threads, cache)
        except Exception as error:
            if name == "openvino":
                raise
            # A CPU or a network that OpenVINO does not support must not stop the service.
            why = " ".join(str(error).split())[:300]  # OpenVINO prints whole graphs
            log.warning("OpenVINO cannot run this model; using PyTorch instead: %s", why)
    from embed.runtime.pytorch import TorchRuntime

    return TorchRuntime(bundle, precision, threads)
