"""Time spent in each stage of answering."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Adds up wall time by stage: ``with stages("decode"): ...``."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time towards the stage ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + passed

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds by stage so far, in order of first use, and ``total`` since the start."""
        rounded = {name: round(1000 * seconds, 3) for name, seconds in self._seconds.items()}
        return {**rounded, "total": round(1000 * (time.perf_counter() - self._started), 3)}
