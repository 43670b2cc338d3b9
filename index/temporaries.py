"""Temporary files and folders of one maker each, and removing those of killed makers.

A maker locks what it makes for as long as it lives, and the system releases the lock when the
process dies: so everybody on the store can tell what is being made from what was left behind.
"""

import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
"""The start of the names of folders that are incomplete or about to be removed."""
_STARTS = (TEMPORARY, ".old-")
_END = ".tmp"


@contextmanager
def temporary_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A new folder in ``parent`` for this caller alone; removed at the end unless renamed by then.

    ``prefix`` follows `TEMPORARY` in its name. The folder stays locked when it is renamed.
    """
    with _made(lambda: parent / f"{TEMPORARY}{prefix}{_unique()}", Path.mkdir) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """As `temporary_folder`, an empty file next to ``path``."""
    with _made(lambda: path.with_name(f".{path.name}.{_unique()}{_END}"), _create) as made:
        try:
            yield made
        finally:
            made.unlink(missing_ok=True)


def remove_orphans(folder: Path) -> int:
    """Remove what killed makers left directly in ``folder``; return how many files and folders."""
    try:
        found = [entry.name for entry in os.scandir(folder) if is_temporary(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        log.warning("%s: cannot be searched for leftovers (%s)", folder, error.strerror)
        return 0
    return sum(remove_if_free(folder / name) for name in found)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is incomplete, or about to be removed."""
    return name.startswith(_STARTS) or (name.startswith(".") and name.endswith(_END))


def remove_if_free(path: Path) -> bool:
    """Remove a file or folder unless somebody has locked it; return whether it was removed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # renamed or removed meanwhile
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(handle, path):
            return False
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except BlockingIOError:
        return False  # its maker lives
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", path, error.strerror)
        return False
    finally:
        os.close(handle)
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody has locked a file or folder now."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def is_at(handle: int, path: Path) -> bool:
    """Whether the open file or folder is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_file(path: Path) -> int:
    """Create a file that is locked until its handle, which is returned, is closed.

    Raises BlockingIOError if another has locked it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # removed between opening and locking it


@contextmanager
def _made(name: Callable[[], Path], make: Callable[[Path], None]) -> Iterator[Path]:
    """Make what has this name, and lock it for as long as the block runs."""
    while True:
        path = name()
        make(path)
        handle = _lock_new(path)
        if handle is not None:
            break
    try:
        yield path
    finally:
        os.close(handle)


def _lock_new(path: Path) -> int | None:
    """Lock what was just made; None if `remove_orphans` of another process came in between."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(handle, path):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _unique() -> str:
    return f"{os.getpid()}-{secrets.token_hex(8)}"
