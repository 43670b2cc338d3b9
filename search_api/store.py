"""The store's folder: one process at a time may build in it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoreBusyError(RuntimeError):
    """Another process, or another thread of this one, is building in the store."""


@contextmanager
def store_lock(var: Path) -> Iterator[None]:
    """Hold the right to build in ``var``; the system gives it back if the process dies.

    Raises:
        StoreBusyError: somebody holds it.
    """
    with (var / "build.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusyError(
                f"another process is building the index in {var}; wait until it is done"
            ) from None
        yield
