"""The catalogue's SQLite file: its connections, its format and its errors."""

import errno
import logging
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.contract import CatalogueError, NoSpaceError, ReadOnlyError
from index.files import fsync_folder
from index.local.commit_watermark import Acknowledged, CommitWatermark, WatermarkError
from index.local.filter_sql import define
from index.local.history import begin_epoch, read_history
from index.local.schema import (
    COMMITS,
    COUNT_COMMIT,
    FORMAT_VERSION,
    META_CHECKSUMS,
    UPDATE_META_CHECKSUM,
    crc,
    create,
    upgrade,
)
from index.scans import FilterScans

log = logging.getLogger(__name__)

_BUSY_SECONDS = 30.0
# SQLite's operations between two looks at the clock: less than a millisecond, or as long as some
# hundred texts take whose words are compared.
_OPERATIONS = 1_000
_TRUNCATE_MILLISECONDS = 1000
_PAGES = 65_536
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class Database:
    """Opens or creates the file and pools connections, each used by one thread at a time.

    Writes are durable when `write` returns: write-ahead log with ``synchronous=FULL``.

    A file that this process may not write, or that is in a folder that it may not write, is opened
    for reading only. While another process has it open, its write-ahead log and shared memory are
    there and are read; where they are not, nobody writes, and SQLite takes the file for immutable.
    If it changes nevertheless, as under a read-only mount of another machine's store, every access
    is refused from then on.

    Attributes:
        read_only: whether it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, ...] | None = None
        self.read_only = path.exists() and not all(
            os.access(place, os.W_OK) for place in (path, path.parent)
        )
        # SQLite creates neither a log nor shared memory where it may not write.
        self._immutable = self.read_only and not _has_log(path)
        self._watermark = CommitWatermark(path.with_name(f"{path.name}-acknowledged"))
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueError(f"{path}: cannot create its folder: {error.strerror}") from error
        try:
            self._prepare(path.exists())
        except BaseException:
            self.close()
            raise

    def _prepare(self, existed: bool) -> None:
        if not existed:
            self._watermark.reset()
        with self._pooled() as connection:
            tables = {
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master")
                if not name.startswith("sqlite_")
            }
            new = not tables
            if not new and not {"meta", "images"} <= tables:
                raise CatalogueError(
                    f"{self._path}: is a database with the tables {sorted(tables)[:10]}, not a "
                    "Lookalike catalogue; give another path"
                )
            # Until the version is known, nothing may be written, not even the journal mode.
            old = not new and self._version(connection) < FORMAT_VERSION
            recorded = self._check_commits(connection, new)
            if self.read_only:
                # What is never written needs no history of its own.
                if new or old:
                    raise self._only_read("its format has to be brought up to date first")
                return
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise CatalogueError(
                    f"{self._path}: has journal mode {mode!r}; expected 'wal'; put the catalogue "
                    "on a local disk"
                )
        if new or old:
            with self.write() as connection:
                (create if new else upgrade)(connection)
            fsync_folder(self._path.parent)
        self._check_history(recorded)

    def _check_commits(self, connection: sqlite3.Connection, new: bool) -> Acknowledged | None:
        """Detect acknowledged commits that were lost with a damaged log; return the last one."""
        try:
            recorded = self._watermark.read()
        except WatermarkError as error:
            raise CatalogueError(
                f"{error}; lost writes cannot be detected without it: compare the catalogue with a"
                " backup, then delete that file"
            ) from error
        row = None if new else connection.execute(COMMITS).fetchone()
        found = 0 if row is None else int(row[0])
        if recorded is not None and found < recorded.number:
            raise CatalogueError(
                f"{self._path}: lacks acknowledged writes: it ends with commit {found}, and "
                f"{recorded.number} were made. Its write-ahead log ({self._path.name}-wal) is "
                "damaged or missing; restore it from a backup. After that, or to continue with "
                f"what is left, delete {self._watermark.path}"
            )
        return recorded

    def _check_history(self, recorded: Acknowledged | None) -> None:
        """Begin a new epoch if the file may not continue the history that others know."""
        with self.read_one_state() as connection:
            now = read_history(connection).now
        inode = self._file[1] if self._file else 0
        if not now.epoch:
            reason = "it has none yet"
        elif not now.sequence:
            return  # nothing has been written that could be confused with anything
        elif recorded is None:
            reason = f"there is no {self._watermark.path.name}, so it may be an older copy"
        elif recorded.epoch not in ("", now.epoch):
            reason = f"{self._watermark.path.name} belongs to another history"
        elif recorded.inode not in (0, inode):
            reason = "the file was put back or copied"
        else:
            return
        self.begin_epoch(reason)

    def begin_epoch(self, reason: str) -> None:
        """Begin a new epoch; ``reason`` is for the log. Raises CatalogueError if damaged."""
        with self.write() as connection:
            expected, found = connection.execute(META_CHECKSUMS).fetchone()
            if expected not in (None, found):  # it must not be replaced by a right one
                raise CatalogueError(
                    f"{self._path}: the checksum of the catalogue's own settings does not match; "
                    "restore it from a backup"
                )
            begin_epoch(connection)
        log.info("%s: begins a new epoch: %s", self._path, reason)

    def _version(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
        if row is None or not row[0].isdecimal():
            found = "no format version" if row is None else f"the format version {row[0]!r}"
            raise CatalogueError(
                f"{self._path}: has {found}; expected a number up to {FORMAT_VERSION}; restore it "
                "from a backup"
            )
        if int(row[0]) > FORMAT_VERSION:
            raise CatalogueError(
                f"{self._path}: has format version {row[0]}, and this Lookalike reads up to "
                f"{FORMAT_VERSION}; upgrade Lookalike or give another path"
            )
        return int(row[0])

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading."""
        with self._pooled() as connection:
            yield connection

    @contextmanager
    def read_by_filter(self, scans: FilterScans) -> Iterator[sqlite3.Connection]:
        """A connection for reading by a filter, within the bounds of ``scans``.

        Raises ScansBusyError and FilterTimeoutError.
        """
        with scans.one(), self._pooled() as connection, within(connection, scans):
            yield connection

    @contextmanager
    def read_one_state(self) -> Iterator[sqlite3.Connection]:
        """A connection whose statements all see the same state of the file."""
        with self._pooled() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction: everything in the block is stored, or nothing."""
        self.check_writable()
        with self._write_lock, self._pooled() as connection, self._transaction(connection):
            yield connection

    @contextmanager
    def write_with(self, other: Path) -> Iterator[sqlite3.Connection]:
        """Like `write`, with the database file ``other`` attached for reading as ``snap``."""
        self.check_writable()
        with self._write_lock, self._pooled() as connection:
            # Immutable, so that SQLite creates no journal for a file that is only read.
            uri = f"{other.absolute().as_uri()}?mode=ro&immutable=1"
            connection.execute("ATTACH ? AS snap", (uri,))
            try:
                with self._transaction(connection):
                    yield connection
            finally:
                connection.execute("DETACH snap")

    def truncate_log(self) -> bool:
        """Empty the write-ahead log, which holds earlier contents; False if readers prevent it."""
        self.check_writable()
        with self._write_lock, self._pooled() as connection:
            connection.execute(f"PRAGMA busy_timeout = {_TRUNCATE_MILLISECONDS}")
            try:
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        return not busy

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            number, epoch = _count_commit(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        # Only a commit to the file that others will open may be acknowledged.
        self._check_in_place()
        self._watermark.advance(Acknowledged(number, epoch, self._file[1] if self._file else 0))

    @contextmanager
    def _pooled(self) -> Iterator[sqlite3.Connection]:
        with self._pool_lock:
            if self._closed:
                raise CatalogueError(f"{self._path}: the catalogue is closed; open it again")
        self._check_in_place()
        with self._pool_lock:
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except sqlite3.DatabaseError as error:
            raise self._as_catalogue_error(error) from error
        finally:
            if connection is not None:
                self._release(connection)

    def check_writable(self) -> None:
        """Raise ReadOnlyError if the file may only be read."""
        if self.read_only:
            raise self._only_read()

    def _only_read(self, why: str = "this would write to it; searching it works") -> ReadOnlyError:
        return ReadOnlyError(
            f"{self._path.parent}: the store is read-only here, and {why}. To change it, use it"
            " where its folder and files can be written, or a copy of it"
        )

    def _connect(self) -> sqlite3.Connection:
        uri = self._path.absolute().as_uri()
        if self.read_only:
            uri += "?mode=ro&immutable=1" if self._immutable else "?mode=ro"
        connection = sqlite3.connect(
            uri,
            _BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            distrust(connection)
            connection.execute("PRAGMA synchronous = FULL")
            # What is deleted is overwritten with zeros, not left in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.create_function("crc", -1, crc, deterministic=True)
            define(connection)
            with self._pool_lock:
                if self._file is None:
                    self._file = self._found()
            self._check_in_place()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_in_place(self) -> None:
        """Refuse to go on with a file that is no longer the one at its path."""
        if self._file is not None and self._found() != self._file:
            what = "changed" if self._immutable else "replaced or removed"
            raise CatalogueError(
                f"{self._path}: was {what} while it was open; restart this process"
            )

    def _found(self) -> tuple[int, ...] | None:
        """What tells the file from another; of one taken for immutable, its state, too."""
        found = _file_at(self._path)
        if found is None or not self._immutable:
            return found
        now = self._path.stat()
        return (*found, now.st_size, now.st_mtime_ns, int(_has_log(self._path)))

    def _release(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _as_catalogue_error(self, error: sqlite3.DatabaseError) -> CatalogueError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGED):
            return CatalogueError(
                f"{self._path}: is damaged or not a database ({error}); restore it from a backup, "
                "or move it away and index the pictures again"
            )
        if self.read_only and name == "SQLITE_CANTOPEN":
            return self._only_read(
                f"{_log_of(self._path).name} has writes that must be merged with it first"
            )
        if name.startswith("SQLITE_READONLY") or _is_read_only(name, self._path):
            return self._only_read()
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _is_full(self._path)):
            return NoSpaceError(
                f"{self._path}: the disk is full ({error}); nothing was stored. Free some space: "
                "delete pictures for good with `lookalike purge`, or snapshots"
            )
        return CatalogueError(f"{self._path}: SQLite says {error} ({name or 'no code'})")

    def close(self) -> None:
        """Close the connections; those in use are closed when they are released."""
        with self._pool_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _log_of(path: Path) -> Path:
    """SQLite's write-ahead log of a database file."""
    return path.with_name(f"{path.name}-wal")


def _has_log(path: Path) -> bool:
    """Whether there are writes in the log, or a process that may make some."""
    log = _log_of(path)
    return log.exists() and (log.stat().st_size > 0 or path.with_name(f"{path.name}-shm").exists())


def _is_read_only(name: str, path: Path) -> bool:
    """Whether an error comes of a file system that has become read-only."""
    if not name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return False
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _is_full(path: Path) -> bool:
    """Whether even a small file cannot be written; SQLite does not name a full disk quota."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_PAGES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def distrust(connection: sqlite3.Connection) -> None:
    """Let nothing that a database file defines call functions of this program."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


@contextmanager
def within(connection: sqlite3.Connection, scans: FilterScans) -> Iterator[None]:
    """Interrupt the statements in the block when they take longer than ``scans`` allow.

    Raises FilterTimeoutError then.
    """
    scan = scans.begin()
    if scan is None:
        yield
        return
    connection.set_progress_handler(scan.late, _OPERATIONS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise scan.timeout() from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _count_commit(connection: sqlite3.Connection) -> tuple[int, str]:
    """Count the transaction and write the checksum of ``meta``; return its number and epoch."""
    (number,) = connection.execute(COUNT_COMMIT).fetchone()
    connection.execute(UPDATE_META_CHECKSUM)
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return int(number), "" if row is None else str(row[0])
