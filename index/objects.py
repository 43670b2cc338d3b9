"""The bytes of added pictures in a folder or an object store that fsspec reaches.

As `index.blobs`, but for many machines: there is no lock, so `sweep` leaves what is younger than a
day, and an object is complete or not there, as object stores promise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from index.blobs import PREFIX, BlobError
from index.neighbours import IndexInputError

_NAME = re.compile(r"[0-9a-f]{64}")
_YOUNG = timedelta(days=1)
_COMPLETE = ".complete"


class ObjectBlobs:
    """Content-addressed objects below one address, such as ``s3://bucket/lookalike``."""

    def __init__(self, url: str, young: timedelta = _YOUNG) -> None:
        """Nothing is read yet.

        Raises:
            IndexInputError: fsspec, or what it needs for this address, is not installed.
        """
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise IndexInputError(
                f"pictures cannot be kept at {url!r} ({error}); install what is named, or give a"
                " folder"
            ) from error
        self._url = url
        self._young = young

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Nothing to hold off: see `sweep`."""
        yield

    def put(self, data: bytes) -> str:
        """Store ``data``; return its name, ``sha256:`` and 64 hexadecimal digits."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            # Written again even if it is there, so that it is young for `sweep`.
            self._files.pipe_file(path, data)
            if self._files.cat_file(path) != data:
                raise OSError("what was written cannot be read back")
        except OSError as error:
            raise BlobError(f"{self._url}: cannot store {digest} ({error})") from error
        return PREFIX + digest

    def get(self, name: str) -> bytes:
        """The bytes under ``name``. Raises BlobError if they are missing or damaged."""
        digest = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or not _NAME.fullmatch(digest):
            raise BlobError(f"{name!r} names no stored bytes; expected {PREFIX} and 64 hex digits")
        try:
            data: bytes = self._files.cat_file(self._path(digest))
        except OSError as error:
            raise BlobError(f"{self._url}: {digest} cannot be read ({error})") from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise BlobError(
                f"{self._url}: {digest} is damaged, its SHA-256 is {found}; add the picture again"
            )
        return data

    def names(self) -> list[str]:
        """Everything stored, sorted."""
        return sorted(PREFIX + digest for digest, _ in self._all())

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        """Remove all but the names that ``needed`` gives, and what is young; return how many.

        Another process may have stored bytes that it has not named yet.
        """
        found = list(self._all())
        keep = needed()
        before = datetime.now(UTC) - self._young
        removed = 0
        for digest, path in found:
            if PREFIX + digest in keep or self._changed(path) > before:
                continue
            self._files.rm_file(path)
            removed += 1
        return removed

    def upload(self, folder: Path, below: str) -> None:
        """Store the files in a folder, as objects ``below/<name>``."""
        target = f"{self._root}/{below}"
        self._files.makedirs(target, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                self._files.pipe_file(f"{target}/{path.name}", path.read_bytes())
        self._files.pipe_file(f"{target}/{_COMPLETE}", b"")

    def download(self, below: str, folder: Path) -> bool:
        """Fetch what `upload` stored into a new folder; False if there is nothing."""
        source = f"{self._root}/{below}"
        if not self._files.exists(f"{source}/{_COMPLETE}"):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._files.ls(source, detail=False):
            name = str(path).rpartition("/")[2]
            if name != _COMPLETE:
                (folder / name).write_bytes(self._files.cat_file(path))
        return True

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def _all(self) -> Iterator[tuple[str, str]]:
        try:
            paths = self._files.find(self._root)
        except FileNotFoundError:
            return
        for path in paths:
            name = str(path).rpartition("/")[2]
            if _NAME.fullmatch(name) and str(path).endswith(f"/{name[:2]}/{name}"):
                yield name, str(path)

    def _changed(self, path: str) -> datetime:
        found: datetime = self._files.modified(path)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
