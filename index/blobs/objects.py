"""The bytes of added pictures in a folder or an object store that fsspec reaches.

Like `index.blobs.folder`, but for many machines, which have no lock in common: `sweep` therefore
spares objects younger than a day. A store on one machine has a lock as well, because its snapshots
refer to objects of any age. Object stores guarantee that an object is complete or absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

from index.blobs.holding import BytesLock
from index.blobs.naming import DIGEST, PREFIX, check, digest_of
from index.contract import BlobError, IndexInputError

_GRACE = timedelta(days=1)
_COMPLETE = ".complete"


class ObjectBlobs:
    """Implements `index.contract.Blobs` below one URL, such as ``s3://bucket/lookalike``."""

    def __init__(self, url: str, grace: timedelta = _GRACE, lock: Path | None = None) -> None:
        """Prepare access; nothing is read yet.

        Args:
            url: where the objects are.
            grace: how old an object must be for `sweep` to remove it.
            lock: file to lock where one machine has the store; None where many have it.

        Raises:
            IndexInputError: fsspec, or the package it needs for this URL, is not installed.
        """
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise IndexInputError(
                f"added pictures cannot be stored at {url!r} ({error}); install the package that is"
                " missing, or use a folder"
            ) from error
        self._url = url
        self._grace = grace
        self._lock = None if lock is None else BytesLock(lock)

    @property
    def folder(self) -> None:
        return None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Without a lock, do nothing: the grace period of `sweep` takes its place."""
        with self._lock.shared() if self._lock is not None else nullcontext():
            yield

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            # Write it even if it exists, so that the grace period starts again.
            self._files.pipe_file(path, data)
            if self._files.cat_file(path) != data:
                raise OSError("the bytes read back differ from those written")
        except OSError as error:
            raise BlobError(f"{self._url}: cannot store {digest} ({error})") from error
        return PREFIX + digest

    def get(self, name: str) -> bytes:
        digest = digest_of(name)
        try:
            data: bytes = self._files.cat_file(self._path(digest))
        except OSError as error:
            raise BlobError(f"{self._url}: {digest} cannot be read ({error})") from error
        return check(data, digest, f"{self._url}: {digest}")

    def size(self, name: str) -> int | None:
        try:
            return int(self._files.size(self._path(digest_of(name))))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        return sorted(PREFIX + digest for digest, _ in self._all())

    def missing(self, names: set[str]) -> set[str]:
        return names.difference(self.names())

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        """See `Blobs.sweep`; spares objects during their grace period.

        Another process may have stored bytes whose entry it has not stored yet.
        """
        found = dict(self._all())
        keep = needed()
        before = datetime.now(UTC) - self._grace
        unused = {
            digest: path
            for digest, path in found.items()
            if PREFIX + digest not in keep and self._changed(path) < before
        }
        if not unused:
            return 0
        with self._lock.exclusive() if self._lock is not None else nullcontext():
            keep = needed()
            return sum(
                self._remove(path, before)
                for digest, path in unused.items()
                if PREFIX + digest not in keep
            )

    def remove_orphans(self) -> int:
        """Nothing: object stores keep no incomplete objects."""
        return 0

    def _remove(self, path: str, before: datetime) -> bool:
        try:
            if self._changed(path) > before:
                return False  # added again meanwhile
            self._files.rm_file(path)
        except FileNotFoundError:
            return False  # another process was first
        return True

    def upload(self, folder: Path, below: str) -> None:
        """Store the files of a folder as objects ``below/<name>``."""
        target = f"{self._root}/{below}"
        self._files.makedirs(target, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                self._files.pipe_file(f"{target}/{path.name}", path.read_bytes())
        self._files.pipe_file(f"{target}/{_COMPLETE}", b"")

    def download(self, below: str, folder: Path) -> bool:
        """Fetch what `upload` stored into a new folder; return False if there is nothing."""
        source = f"{self._root}/{below}"
        if not self._files.exists(f"{source}/{_COMPLETE}"):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._files.ls(source, detail=False):
            name = str(path).rpartition("/")[2]
            if name != _COMPLETE:
                (folder / name).write_bytes(self._files.cat_file(path))
        return True

    def remove(self, below: str) -> None:
        """Remove what `upload` stored; do nothing if there is nothing."""
        target = f"{self._root}/{below}"
        if self._files.exists(target):
            self._files.rm(target, recursive=True)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def _all(self) -> Iterator[tuple[str, str]]:
        try:
            paths = self._files.find(self._root)
        except FileNotFoundError:
            return
        for path in paths:
            name = str(path).rpartition("/")[2]
            if DIGEST.fullmatch(name) and str(path).endswith(f"/{name[:2]}/{name}"):
                yield name, str(path)

    def _changed(self, path: str) -> datetime:
        found: datetime = self._files.modified(path)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
