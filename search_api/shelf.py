"""The models that a store has served or is going over to, kept in the store itself.

So every process over the store can follow a change of model, and a restart needs no path.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from index.files import fsync_file, fsync_folder

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def model_folder(var: Path, digest: str) -> Path | None:
    """Where the store keeps the bundle with this digest; None where it does not."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        return None
    folder = var / "models" / match[1]
    return folder if folder.is_dir() else None


def shelve(var: Path, bundle: Path, digest: str) -> Path:
    """Copy the bundle, durably, into the store; return where it lies.

    Raises:
        ValueError: the digest is not one of a bundle.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"the model's digest is {digest!r}; expected sha256: and 64 hex digits")
    folder = var / "models" / match[1]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".tmp-{match[1]}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for path in bundle.iterdir():
            # Not what a runtime made of the network and keeps beside it: it may be written now.
            if path.is_file() and not path.name.startswith("."):
                fsync_file(Path(shutil.copy2(path, temporary)))
        fsync_folder(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.is_dir():  # else another process was first
            raise
    fsync_folder(folder.parent)
    return folder
