"""Durable, atomic changes to files: a crash leaves either the old content or the new."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from index.temporaries import temporary_file, temporary_folder

_CHUNK = 1 << 20


def fsync_file(path: Path) -> None:
    """Wait until the file's content is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Wait until the folder's entries are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file next to ``path``, then replace ``path`` durably.

    If anything raises, ``path`` is unchanged and the temporary file is removed.
    """
    with temporary_file(path) as temporary:
        write(temporary)
        fsync_file(temporary)
        temporary.replace(path)
    fsync_folder(path.parent)


def drop_cached(path: Path) -> None:
    """Let the next reader of a synced file read it from the disk rather than from memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably; do nothing if it exists."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder; it is renamed first, so that a crash leaves none that looks complete."""
    with temporary_folder(path.parent) as doomed:
        # What is in a temporary folder is removed with it.
        path.rename(doomed / path.name)
        fsync_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Open for reading what may come from elsewhere.

    Raises OSError if it cannot be read, or is a link, a pipe or a device.
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits; raises OSError as `open_regular` does."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
