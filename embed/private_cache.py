"""The user's cache folder, which nobody else may write or read.

What is read from it is believed, such as a network that was exported for a runtime. So it must
belong to this user, and no other user may be able to write into it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UntrustedFolderError(OSError):
    """A folder belongs to another user, or others can write into it."""


def default_cache() -> Path:
    """The user's cache folder: ``LOOKALIKE_CACHE``, or ``lookalike`` in the system's place.

    Raises:
        OSError: neither is known, because the user has no home.
    """
    if chosen := os.environ.get("LOOKALIKE_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "lookalike"
    try:
        return Path.home() / ".cache" / "lookalike"
    except RuntimeError:
        raise FileNotFoundError(
            f"user {os.geteuid()} has no home folder; set LOOKALIKE_CACHE"
        ) from None


def private_folder(path: Path) -> Path:
    """The folder at ``path``, resolved; it is made if it does not exist, with mode 0700.

    Raises:
        UntrustedFolderError: it is another user's, or others can write into it or replace it.
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = path.resolve()
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise UntrustedFolderError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}, who runs this;"
            " choose another folder with LOOKALIKE_CACHE"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise UntrustedFolderError(
            f"other users can write into {path} (mode {mode:04o}); run chmod 700 on it, or choose"
            " another folder with LOOKALIKE_CACHE"
        )
    for parent in path.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UntrustedFolderError(
                f"other users can replace {path}, because everybody can write into {parent}; choose"
                " another folder with LOOKALIKE_CACHE"
            )
    return path
