"""The bytes of added pictures in a folder, one file each, named by their SHA-256.

A file is durable before `put` returns. Deleting an entry leaves its bytes, because a snapshot may
need them; `sweep` removes what neither the catalogue nor a snapshot refers to.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index.blobs.holding import BytesLock
from index.blobs.naming import DIGEST, PREFIX, check, digest_of
from index.contract import BlobError
from index.files import fsync_folder, make_folder, write_atomically
from index.temporaries import remove_orphans

log = logging.getLogger(__name__)


class FolderBlobs:
    """Implements `index.contract.Blobs`; several processes may use one folder at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = BytesLock(root / ".lock")

    @property
    def root(self) -> Path:
        """The folder; it need not exist yet."""
        return self._root

    def exists(self) -> bool:
        """Whether anything was ever added."""
        return (self._root / ".lock").exists()

    @property
    def folder(self) -> Path:
        return self._root

    @contextmanager
    def holding(self) -> Iterator[None]:
        with self._lock.shared():
            yield

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        stored = _size(path)
        if stored is not None and stored == len(data) and _read(path) == data:
            # Whoever wrote it may not have come to this yet.
            fsync_folder(path.parent)
            fsync_folder(self._root)
            return PREFIX + digest
        if stored is not None:
            log.warning("%s: was damaged and is replaced by the bytes added again", path)
        make_folder(path.parent)
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

    def size(self, name: str) -> int | None:
        return _size(self._path(digest_of(name)))

    def names(self) -> list[str]:
        if not self._root.is_dir():
            return []
        found = (p.name for p in self._root.glob("[0-9a-f][0-9a-f]/*") if DIGEST.fullmatch(p.name))
        return sorted(PREFIX + name for name in found)

    def missing(self, names: set[str]) -> set[str]:
        return names.difference(self.names())

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        if not self._root.is_dir():
            return 0
        # First without the lock, which is then held only for what may have changed meanwhile.
        unused = set(self.names()) - needed()
        if unused:
            with self._lock.exclusive():
                unused -= needed()
                for name in unused:
                    self._path(name.removeprefix(PREFIX)).unlink(missing_ok=True)
        return len(unused)

    def remove_orphans(self) -> int:
        if not self._root.is_dir():
            return 0
        return sum(remove_orphans(folder) for folder in self._root.glob("[0-9a-f][0-9a-f]"))

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # unreadable is as good as damaged


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
