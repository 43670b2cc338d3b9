"""The catalogue's SQLite file: its connections, its format and its errors."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.acknowledged import Acknowledged, AcknowledgedError
from index.checksums import crc
from index.files import fsync_folder
from index.schema import COMMITS, COUNT_COMMIT, FORMAT_VERSION, SEAL_META, create, upgrade

_BUSY_SECONDS = 30.0
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class CatalogueError(Exception):
    """The catalogue's file cannot be used; the message names it and says what to do."""


class Database:
    """Opens or creates the file and lends connections, one thread at a time each.

    Writes are durable when `write` returns: write-ahead log with ``synchronous=FULL``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._acknowledged = Acknowledged(path.with_name(f"{path.name}-acknowledged"))
        self._idle: list[sqlite3.Connection] = []
        self._lending = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueError(f"{path}: cannot make its folder: {error.strerror}") from error
        try:
            self._prepare(path.exists())
        except BaseException:
            self.close()
            raise

    def _prepare(self, existed: bool) -> None:
        if not existed:
            self._acknowledged.forget()
        with self._lent() as connection:
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
            # Before the version is known nothing may be written: not even the journal mode.
            old = not new and self._version(connection) < FORMAT_VERSION
            self._check_commits(connection, new)
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

    def _check_commits(self, connection: sqlite3.Connection, new: bool) -> None:
        """Find out whether commits that were acknowledged are gone with a damaged log."""
        noted = self._acknowledged.path
        try:
            expected = self._acknowledged.read()
        except AcknowledgedError as error:
            raise CatalogueError(
                f"{error}; so nobody can tell whether the catalogue lacks writes: compare it with "
                "a backup, then delete that file"
            ) from error
        row = None if new else connection.execute(COMMITS).fetchone()
        found = 0 if row is None else int(row[0])
        if found < expected:
            raise CatalogueError(
                f"{self._path}: lacks writes that were acknowledged: it ends with commit {found}, "
                f"and {expected} were made. Its write-ahead log ({self._path.name}-wal) is damaged "
                f"or missing; restore it from a backup. To go on with what is left, or if you have "
                f"put it back from a backup, delete {noted}"
            )

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
        """Lend a connection for reading."""
        with self._lent() as connection:
            yield connection

    @contextmanager
    def read_one_state(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection whose statements all see the same state of the file."""
        with self._lent() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside a transaction: all of the block is stored, or nothing."""
        with self._writing, self._lent() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                number = _sealed(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            self._acknowledged.note(number)

    @contextmanager
    def write_with(self, other: Path) -> Iterator[sqlite3.Connection]:
        """As `write`, with the database file ``other`` attached for reading under ``snap``."""
        with self._writing, self._lent() as connection:
            # Immutable: SQLite then makes no journal beside a file that nobody writes.
            connection.execute("ATTACH ? AS snap", (f"{other.absolute().as_uri()}?immutable=1",))
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    number = _sealed(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
                self._acknowledged.note(number)
            finally:
                connection.execute("DETACH snap")

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        with self._lending:
            if self._closed:
                raise CatalogueError(f"{self._path}: the catalogue is closed; open it again")
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error
        finally:
            if connection is not None:
                self._take_back(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path.absolute().as_uri(),
            _BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.create_function("crc", -1, crc, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_back(self, connection: sqlite3.Connection) -> None:
        with self._lending:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _translated(self, error: sqlite3.DatabaseError) -> CatalogueError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGED):
            return CatalogueError(
                f"{self._path}: is damaged or not a database ({error}); restore it from a backup, "
                "or move it away and index the pictures again"
            )
        return CatalogueError(f"{self._path}: SQLite says {error} ({name or 'no code'})")

    def close(self) -> None:
        """Close the connections; those lent out are closed when they come back."""
        with self._lending:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _sealed(connection: sqlite3.Connection) -> int:
    """Count the transaction and write the checksum of the settings; the number of the commit."""
    (number,) = connection.execute(COUNT_COMMIT).fetchone()
    connection.execute(SEAL_META)
    return int(number)
