"""The interface of every runtime."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

RuntimeName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]

WORKERS = 2
"""How many passes run at a time on a runtime that can divide its threads: while Python assembles
the results of one batch, the network processes another."""


class Raw(NamedTuple):
    """A forward pass's ``logits`` float32 ``(n, classes)`` and ``features`` float32 ``(n, d)``."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


class Runtime(Protocol):
    """Runs one network; ``Encoder`` ensures that only one thread at a time uses each worker."""

    name: str
    precision: Precision
    device: str
    """``cpu`` or ``cuda``."""

    workers: int
    """How many passes can run at a time, each on an equal share of the threads."""

    def run(self, batch: NDArray[np.uint8], worker: int | None = None) -> Raw:
        """One forward pass over RGB pictures uint8 ``(n, input_size, input_size, 3)``.

        It runs on the threads of ``worker``, 0 to ``workers - 1``, or on all threads for None.
        """


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
