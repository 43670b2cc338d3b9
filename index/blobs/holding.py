"""Holding bytes: what keeps them from being removed between two steps of one piece of work.

A lock on a file, shared by all who need bytes and exclusive for who removes some. The system
releases it when a process dies.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.contract import BlobsBusyError
from index.files import make_folder

PATIENCE = 10.0
"""Seconds that a removal waits for those who hold bytes."""
_POLL_SECONDS = 0.02


class BytesLock:
    """The lock ``path``; its threads and processes exclude each other alike."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold what is stored; waits only while something is being removed."""
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait up to `PATIENCE` until nobody holds anything; raises BlobsBusyError.

        It asks again and again and never queues, so nobody who wants to add waits behind it.
        """
        handle = self._open()
        try:
            deadline = time.monotonic() + PATIENCE
            while not _taken(handle):
                if time.monotonic() >= deadline:
                    raise BlobsBusyError(
                        "the bytes of added pictures are in use (a snapshot is being made or"
                        " restored, or pictures are being added); try again later"
                    )
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(handle)

    def _open(self) -> int:
        make_folder(self._path.parent)
        return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
