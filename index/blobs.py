"""The bytes of pictures that were added, one file each, named by their SHA-256.

A file is durable before `Blobs.put` returns. Deleting an entry leaves its bytes, as a snapshot may
need them; `Blobs.sweep` removes what neither the catalogue nor a snapshot names.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index.files import fsync_folder, write_atomically

PREFIX = "sha256:"
_NAME = re.compile(r"[0-9a-f]{64}")


class BlobError(Exception):
    """The bytes of a picture are missing or damaged; the message names the file."""


class Blobs:
    """A folder of content-addressed files; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Hold off `sweep`, from `put` until an entry that names the bytes is recorded."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def put(self, data: bytes) -> str:
        """Store ``data`` durably; return its name, ``sha256:`` and 64 hexadecimal digits."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not path.exists():
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                fsync_folder(self._root)
            write_atomically(path, lambda temporary: _write(temporary, data))
        return PREFIX + digest

    def get(self, name: str) -> bytes:
        """The bytes under ``name``. Raises BlobError if they are missing or damaged."""
        digest = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or not _NAME.fullmatch(digest):
            raise BlobError(f"{name!r} names no stored bytes; expected {PREFIX} and 64 hex digits")
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BlobError(f"{path}: cannot be read ({error.strerror})") from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise BlobError(f"{path}: is damaged, its SHA-256 is {found}; add the picture again")
        return data

    def names(self) -> list[str]:
        """Everything stored, sorted."""
        if not self._root.is_dir():
            return []
        found = (p.name for p in self._root.glob("[0-9a-f][0-9a-f]/*") if _NAME.fullmatch(p.name))
        return sorted(PREFIX + name for name in found)

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        """Remove all but the names that ``needed`` gives once nobody is adding; return how many."""
        if not self._root.is_dir():
            return 0
        with self._locked(fcntl.LOCK_EX):
            unused = set(self.names()) - needed()
            for name in unused:
                self._path(name.removeprefix(PREFIX)).unlink(missing_ok=True)
            # What a crash in the middle of `put` has left.
            for path in self._root.glob("*/.*.tmp"):
                path.unlink(missing_ok=True)
        return len(unused)

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        if not self._root.is_dir():
            self._root.mkdir(parents=True, exist_ok=True)
            fsync_folder(self._root.parent)
        handle = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, mode)
            yield
        finally:
            os.close(handle)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
