"""Durable, atomic changes to files: a crash leaves either the old content or the new."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".tmp-"
"""The start of the names of folders that are incomplete or about to be removed."""
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        fsync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder; it is renamed first, so that a crash leaves none that looks complete."""
    doomed = path.with_name(f"{TEMPORARY}{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
