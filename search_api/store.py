"""The store's folder: one process at a time may build in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.stores import StoreBusyError

__all__ = ["StoreBusyError", "check_free", "store_lock"]


@contextmanager
def store_lock(var: Path, job: str = "") -> Iterator[None]:
    """Hold the right to build in ``var``; the system gives it back if the process dies.

    Args:
        var: the store's folder.
        job: names what is being done, for those who are refused meanwhile.

    Raises:
        StoreBusyError: somebody holds it.
    """
    with (var / "build.lock").open("a+") as file:
        _take(file.fileno(), var)
        file.truncate(0)
        file.write(f"{os.getpid()} {job}")
        file.flush()
        yield
        file.truncate(0)


def check_free(var: Path) -> None:
    """Raise StoreBusyError if somebody is building in ``var`` now."""
    with (var / "build.lock").open("a+") as file:
        _take(file.fileno(), var)


def _take(handle: int, var: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process, _, job = os.pread(handle, 200, 0).decode("ascii", "replace").partition(" ")
        who = f"another process ({process})" if process else "another process"
        doing = f", job {job}" if job else ""
        raise StoreBusyError(
            f"{who} is building the index in {var}{doing}; wait until it is done", job or None
        ) from None
