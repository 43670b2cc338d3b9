"""The lock of a store's folder: one process at a time may build in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.contract import StoreBusyError


@contextmanager
def store_lock(root: Path, job: str = "") -> Iterator[None]:
    """Hold the exclusive right to build in ``root``; the kernel releases it if the process dies.

    Args:
        root: the store's folder.
        job: id of the job that builds, shown to others who are refused meanwhile.

    Raises:
        StoreBusyError: another holds it.
    """
    with (root / "build.lock").open("a+") as file:
        _take(file.fileno(), root)
        file.truncate(0)
        file.write(f"{os.getpid()} {job}")
        file.flush()
        yield
        file.truncate(0)


def check_free(root: Path) -> None:
    """Raise StoreBusyError if a build is running in ``root`` now."""
    with (root / "build.lock").open("a+") as file:
        _take(file.fileno(), root)


def _take(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process, _, job = os.pread(handle, 200, 0).decode("ascii", "replace").partition(" ")
        who = f"another process ({process})" if process else "another process"
        doing = f", job {job}" if job else ""
        raise StoreBusyError(
            f"{who} is building the index in {root}{doing}; wait until it is done", job or None
        ) from None
