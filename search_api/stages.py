"""Time spent in each stage of answering."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager


class Stages:
    """Adds up wall time by stage: ``with stages("decode"): ...``."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time towards the stage ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count ``seconds`` towards the stage ``name``."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def begin(self, name: str) -> None:
        """Start a stage that another thread will ``end``."""
        self._begun[name] = time.perf_counter()

    def end(self, name: str) -> None:
        """End a stage; nothing happens if it was not begun, or ended before."""
        started = self._begun.pop(name, None)
        if started is not None:
            self.add(name, time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds by stage so far, in order of first use, and ``total`` since the start."""
        rounded = {name: round(1000 * seconds, 3) for name, seconds in self._seconds.items()}
        return {**rounded, "total": round(1000 * (time.perf_counter() - self._started), 3)}


def together(group: Sequence[Stages]) -> Callable[[str], AbstractContextManager[None]]:
    """A stage that several requests pass in one go: each is given the whole of its time."""

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - started
            for stages in group:
                stages.add(name, passed)

    return stage
