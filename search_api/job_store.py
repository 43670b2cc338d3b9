"""What is known of jobs, kept in the store so that it outlasts the server.

One small SQLite file beside the catalogue, and a locked file for each job that runs: the system
gives the lock back when the process dies, so that every server on the store can tell a job that
runs elsewhere from one that will never go on.

Work never fails because of this file: what cannot be written is logged, and lost with the process.
"""

from __future__ import annotations

import fcntl
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from search_api.job import Job, Skipped

log = logging.getLogger(__name__)

MAX_LOGGED = 100_000
"""Skipped pictures whose reasons are kept for one job; ``Job.skipped`` counts all of them."""

_FORMAT = 1
_TABLES = (
    """CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        finished INTEGER NOT NULL,
        cancel INTEGER NOT NULL DEFAULT 0,
        seen REAL NOT NULL,
        job TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS skipped (
        job_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID""",
    f"PRAGMA user_version = {_FORMAT}",
)
_INTERRUPTED = (
    "the server ended while this job ran; start it again: what was embedded is kept, and it goes"
    " on from there"
)


class JobStore:
    """The jobs of all servers on one store; safe to use from several threads."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or make it in ``folder``; None, or a folder that cannot be used: memory only."""
        self._folder = folder
        self._using = threading.Lock()
        self._held: dict[str, IO[str] | None] = {}
        self._database = self._open()

    def close(self) -> None:
        """Close the file."""
        with self._using:
            self._database.close()

    def begin(self, job: Job, kept: int) -> None:
        """Record a new job as one of this process, and forget all finished ones but ``kept``."""
        self._hold(job.id)
        self._write(
            (
                "INSERT INTO jobs (id, finished, seen, job) VALUES (?, 0, ?, ?)",
                (job.id, time.time(), _text(job)),
            ),
            (
                "DELETE FROM jobs WHERE finished AND number <= "
                "(SELECT number FROM jobs ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (kept,),
            ),
            ("DELETE FROM skipped WHERE job_id NOT IN (SELECT id FROM jobs)", ()),
        )

    def save(self, job: Job) -> None:
        """Record how far it is; once it has finished, others may know that it is over."""
        self._write(
            (
                "UPDATE jobs SET finished = ?, seen = ?, job = ? WHERE id = ?",
                (job.finished is not None, time.time(), _text(job), job.id),
            )
        )
        if job.finished is not None:
            self._release(job.id)

    def skip(self, job_id: str, first: int, reasons: Mapping[str, str]) -> None:
        """Add to the log of a job: why each source was left out, numbered from ``first`` on."""
        rows = [
            (job_id, first + i, printable(source), printable(reason))
            for i, (source, reason) in enumerate(reasons.items())
            if first + i < MAX_LOGGED
        ]
        self._write(*(("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?)", row) for row in rows))

    def get(self, job_id: str) -> Job | None:
        """The job, or None if there is none of that id."""
        rows = self._read("SELECT job, seen FROM jobs WHERE id = ?", job_id)
        return self._job(*rows[0]) if rows else None

    def newest(self, limit: int) -> list[Job]:
        """The last jobs, the newest first."""
        rows = self._read("SELECT job, seen FROM jobs ORDER BY number DESC LIMIT ?", limit)
        return [self._job(*row) for row in rows]

    def skipped(self, job_id: str, after: int, limit: int) -> list[Skipped]:
        """A page of a job's log: at most ``limit``, numbered above ``after``."""
        rows = self._read(
            "SELECT number, source, reason FROM skipped WHERE job_id = ? AND number > ? "
            "ORDER BY number LIMIT ?",
            job_id,
            after,
            limit,
        )
        return [Skipped(*row) for row in rows]

    def cancel(self, job_id: str) -> None:
        """Ask the process that runs the job to stop it."""
        self._write(("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,)))

    def cancelled(self, job_id: str) -> bool:
        """Whether somebody asked for that."""
        return self._read("SELECT cancel FROM jobs WHERE id = ?", job_id) == [(1,)]

    def _job(self, text: str, seen: float) -> Job:
        job = _parse(text)
        if job.finished is not None or self._runs(job.id):
            return job
        # Its process may have ended it between the two looks; then that is what counts.
        over = replace(
            job, state="interrupted", finished=seen, eta_seconds=None, error=_INTERRUPTED
        )
        self._write(
            (
                "UPDATE jobs SET finished = 1, job = ? WHERE id = ? AND NOT finished",
                (_text(over), job.id),
            )
        )
        rows = self._read("SELECT job FROM jobs WHERE id = ?", job.id)
        found = _parse(rows[0][0]) if rows else over
        return found if found.finished is not None else over

    def _hold(self, job_id: str) -> None:
        file: IO[str] | None = None
        if self._folder is not None:
            try:
                file = self._locked(job_id).open("w")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                log.warning("the job %s cannot be marked as running: %s", job_id, error)
        self._held[job_id] = file

    def _release(self, job_id: str) -> None:
        file = self._held.pop(job_id, None)
        if file is not None:
            with suppress(OSError):
                self._locked(job_id).unlink(missing_ok=True)
            file.close()

    def _runs(self, job_id: str) -> bool:
        """Whether the process that began the job lives."""
        if job_id in self._held:
            return True
        if self._folder is None:
            return False
        try:
            with self._locked(job_id).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._locked(job_id).unlink(missing_ok=True)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _locked(self, job_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{job_id}.running"

    def _open(self) -> sqlite3.Connection:
        if self._folder is None:
            return _connect(":memory:")
        path = self._folder / "jobs.sqlite"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                return _connect(str(path))
            except sqlite3.DatabaseError as error:
                name = getattr(error, "sqlite_errorname", "")
                if not name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                    raise
                aside = path.with_suffix(".damaged")
                log.warning("%s is damaged (%s); it is now %s", path, error, aside.name)
                path.replace(aside)
                for rest in ("-wal", "-shm"):
                    path.with_name(path.name + rest).unlink(missing_ok=True)
                return _connect(str(path))
        except (sqlite3.Error, OSError) as error:
            log.warning("%s cannot be used (%s); jobs are forgotten at the end", path, error)
            return _connect(":memory:")

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        with self._using:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    for statement, values in statements:
                        self._database.execute(statement, values)
                    self._database.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                log.warning("what became of a job cannot be recorded: %s", error)

    def _read(self, statement: str, *values: str | int) -> list[Any]:
        with self._using:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                log.warning("the record of jobs cannot be read: %s", error)
                return []


def printable(text: str) -> str:
    """The text with what UTF-8 cannot write, as in names of files, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, 5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise sqlite3.NotSupportedError(
                f"it has format {found}, this Lookalike reads up to {_FORMAT}"
            )
        for statement in _TABLES:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _text(job: Job) -> str:
    return json.dumps(asdict(job))


def _parse(text: str) -> Job:
    return Job(**json.loads(text))
