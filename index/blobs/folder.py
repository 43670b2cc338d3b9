"""The bytes of added pictures in a folder, one file each, named by their SHA-256.

A file is durable before `put` returns. Deleting an entry leaves its bytes, because a snapshot may
need them; `sweep` removes what neither the catalogue nor a snapshot refers to.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index.blobs.naming import DIGEST, PREFIX, check, digest_of
from index.contract import BlobError
from index.files import fsync_folder, write_atomically


class FolderBlobs:
    """Implements `index.contract.Blobs`; several processes may use one folder at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def adding(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_SH):
            yield

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not path.exists():
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                fsync_folder(self._root)
            write_atomically(path, lambda temporary: _write(temporary, data))
        return PREFIX + digest

    def get(self, name: str) -> bytes:
        digest = digest_of(name)
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BlobError(f"{path}: cannot be read ({error.strerror})") from error
        return check(data, digest, f"{path}:")

    def names(self) -> list[str]:
        if not self._root.is_dir():
            return []
        found = (p.name for p in self._root.glob("[0-9a-f][0-9a-f]/*") if DIGEST.fullmatch(p.name))
        return sorted(PREFIX + name for name in found)

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        """Remove what ``needed``, called once nobody is adding, does not name; return how many."""
        if not self._root.is_dir():
            return 0
        with self._locked(fcntl.LOCK_EX):
            unused = set(self.names()) - needed()
            for name in unused:
                self._path(name.removeprefix(PREFIX)).unlink(missing_ok=True)
            # Left by a crash during `put`.
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
