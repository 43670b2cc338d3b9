"""Bounds on reading by a filter: how long one may take, and how many run at once."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class FilterTimeoutError(Exception):
    """A filter took longer than it may."""


class ScansBusyError(RuntimeError):
    """As many filters as may run at once are running, and none has ended in time."""


class Scan:
    """One read by a filter, begun now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def late(self) -> bool:
        """Whether its time is up."""
        return time.monotonic() > self._until

    def check(self) -> None:
        """Raise FilterTimeoutError if its time is up."""
        if self.late():
            raise self.timeout()

    def timeout(self) -> FilterTimeoutError:
        """The error for a read whose time is up."""
        return FilterTimeoutError(
            f"the filter took longer than {self.seconds:g} seconds; use fewer conditions, or "
            "conditions on label, split or ids, which need no payloads; an order reads its field of"
            " all that match"
        )


class FilterScans:
    """Lets ``at_once`` reads by a filter run, each for ``seconds``; thread-safe.

    Without arguments there is no bound.
    """

    def __init__(self, seconds: float = math.inf, at_once: int | None = None) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._places = None if at_once is None else threading.BoundedSemaphore(at_once)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a place, at most as long as a read may take, and hold it.

        Raises ScansBusyError if none gets free.
        """
        if self._places is None:
            yield
            return
        if not self._places.acquire(timeout=self._seconds):
            raise ScansBusyError(
                f"{self._at_once} other filters have been running for {self._seconds:g} seconds; "
                "try again later"
            )
        try:
            yield
        finally:
            self._places.release()

    def begin(self) -> Scan | None:
        """A read that begins now; None if it may take as long as it likes."""
        return None if self._seconds == math.inf else Scan(self._seconds)


UNBOUNDED = FilterScans()
