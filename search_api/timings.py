"""Time spent in each step of a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial


class Timings:
    """Adds up wall time by step: ``with timings("decode"): ...``."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def __call__(self, name: str) -> _Step:
        """Add the duration of the block to the step ``name``."""
        return _Step((self,), name)

    def add(self, name: str, seconds: float) -> None:
        """Add ``seconds`` to the step ``name``."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def begin(self, name: str) -> None:
        """Start a step that another thread will `end`."""
        self._begun[name] = time.perf_counter()

    def end(self, name: str) -> None:
        """End a step; does nothing unless it was begun and has not ended yet."""
        started = self._begun.pop(name, None)
        if started is not None:
            self.add(name, time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds per step, in order of first use, and ``total`` since creation."""
        rounded = {name: round(1000 * seconds, 3) for name, seconds in self._seconds.items()}
        return {**rounded, "total": round(1000 * (time.perf_counter() - self._started), 3)}


def time_all(group: Sequence[Timings]) -> Callable[[str], AbstractContextManager[None]]:
    """Times a step that several requests share: each is charged its full duration."""

    return partial(_Step, group)


class _Step:
    """Adds the duration of a block to several timings; a generator would take twice as long."""

    __slots__ = ("_group", "_name", "_started")

    def __init__(self, group: Sequence[Timings], name: str) -> None:
        self._group = group
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._started
        for timings in self._group:
            timings.add(self._name, seconds)
