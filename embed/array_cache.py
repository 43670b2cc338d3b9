"""A corpus's arrays cached as plain ``.npy`` files and mapped into memory.

Opening them imports nothing and takes memory only for the pictures that are read, so a service that
only shows pictures need not unpack the whole data set.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""For each split, pictures uint8 ``(n, h, w, 3)`` and labels int64 ``(n,)``."""

_SUMS = "checksums.json"


def cached(folder: Path, load: Callable[[], Splits]) -> Splits:
    """The splits cached in ``folder``; if they are missing or damaged, loaded and cached there.

    If they cannot be cached (full or read-only disk), the result of ``load`` is returned.
    """
    found = _read(folder)
    if found is not None:
        return found
    splits = load()
    try:
        _write(splits, folder)
    except OSError:
        return splits
    return _read(folder) or splits


def _read(folder: Path) -> Splits | None:
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        splits: Splits = {}
        for split, expected in sums.items():
            paths = [folder / f"{split}-{part}.npy" for part in ("pictures", "labels")]
            if [_sha256(path) for path in paths] != expected:
                return None
            pictures, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
            splits[split] = pictures, labels
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return splits or None


def _write(splits: Splits, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as name,
        _locked(Path(name)),
    ):
        new = Path(name) / "new"
        new.mkdir()
        sums = {}
        for split, arrays in splits.items():
            paths = [new / f"{split}-{part}.npy" for part in ("pictures", "labels")]
            np.save(paths[0], arrays[0], allow_pickle=False)
            np.save(paths[1], arrays[1], allow_pickle=False)
            sums[split] = [_sha256(path) for path in paths]
        (new / _SUMS).write_text(json.dumps(sums))
        if folder.exists():  # damaged
            folder.rename(Path(name) / "old")
        new.rename(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a temporary folder, so that a store can tell it from what a killed process left."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    # Read, not mapped: pages only hashed should not count towards the process's memory.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
