"""Who may read what is written: the store is for its user alone, a table as that user likes.

Added pictures, jobs and snapshots hold what other users of the machine have no business with. So
whatever opens a store runs with the umask 077, or with that in ``LOOKALIKE_UMASK``, and tightens
what an earlier version has written.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "LOOKALIKE_UMASK"
_PRIVATE = 0o077
_users: int | None = None
"""The umask of the user, while that of the store applies."""


class UmaskError(ValueError):
    """``LOOKALIKE_UMASK`` is not a umask."""


def store_umask() -> int:
    """The umask of what belongs to a store: 077, or ``LOOKALIKE_UMASK``.

    Raises:
        UmaskError: that is not an octal number up to 077.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        mask = int(text, 8) if text else _PRIVATE
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o077:
        raise UmaskError(
            f"{VARIABLE} is {text!r}; expected an octal number up to 077, such as 027 to let the"
            " group read the store"
        )
    return mask


@contextmanager
def private_files() -> Iterator[None]:
    """In this block, new files and folders are for this user alone, in all threads.

    Raises:
        UmaskError: see `store_umask`.
    """
    global _users
    before = _users
    umask = os.umask(store_umask())
    _users = umask if before is None else before
    try:
        yield
    finally:
        os.umask(umask)
        _users = before


@contextmanager
def users_files() -> Iterator[None]:
    """In this block, new files and folders are as the user likes them: what was asked for."""
    umask = os.umask(users_umask())
    try:
        yield
    finally:
        os.umask(umask)


def users_umask() -> int:
    """The umask that the user has set."""
    if _users is not None:
        return _users
    umask = os.umask(_PRIVATE)
    os.umask(umask)
    return umask


def tighten(folder: Path) -> int:
    """Take from other users what `store_umask` does not allow them in ``folder``; say so once.

    Only a folder that is too open itself is looked through: what is in a closed one cannot be
    reached. Links are not followed, and what belongs to others is left alone.

    Returns:
        How many files and folders had another mode.
    """
    mask = store_umask()
    if not _too_open(folder, mask) or folder.resolve() in (Path.home(), *Path.home().parents):
        return 0
    changed = int(_close(folder, mask))
    for root, folders, files in os.walk(folder):
        changed += sum(_close(Path(root, name), mask) for name in folders + files)
    if not changed:
        return 0  # where nothing can be written, modes cannot be changed either
    log.warning(
        "other users could read %s; the modes of %d files and folders in it are now"
        " tightened (%s allows more)",
        *(folder, changed, VARIABLE),
    )
    return changed


def _too_open(path: Path, mask: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False  # it does not exist, or no longer
    kind = found.st_mode
    return (
        found.st_uid == os.geteuid() and not stat.S_ISLNK(kind) and bool(stat.S_IMODE(kind) & mask)
    )


def _close(path: Path, mask: int) -> bool:
    if not _too_open(path, mask):
        return False
    try:
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~mask)
    except OSError:
        return False
    return True
