"""The job store: the state of jobs on disk, so that it survives the server.

It is a small SQLite file next to the catalogue, and a locked file for each running job. The system
releases the lock when the process dies, so that every server on the store can tell a job that runs
elsewhere from one that will never finish.

A job never fails because of this file: if it cannot be written, that is logged, and the state of
the job is lost with the process.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from index.temporaries import is_locked, lock_file, remove_if_free
from search_api.jobs.model import Job, Skipped
from search_api.text import printable

log = logging.getLogger(__name__)

MAX_LOGGED = 100_000
"""How many skipped pictures are logged per job; ``Job.skipped`` counts all of them."""

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
    "the server stopped while this job was running; start it again: what was embedded is kept, and"
    " it continues from there"
)


class JobStore:
    """The jobs of all servers on one store; safe to use from several threads."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open or create it in ``folder``; in memory if that is None or cannot be used."""
        self._folder = folder
        self._using = threading.Lock()
        self._held: dict[str, int | None] = {}
        self._database = self._open()

    def close(self) -> None:
        """Close the file."""
        with self._using:
            self._database.close()

    def begin(self, job: Job, kept: int) -> None:
        """Record a new job of this process; drop finished jobs older than the last ``kept``."""
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
        """Record the state of a job of this process; release its lock if it has finished."""
        self._write(
            (
                "UPDATE jobs SET finished = ?, seen = ?, job = ? WHERE id = ?",
                (job.finished is not None, time.time(), _text(job), job.id),
            )
        )
        if job.finished is not None:
            self._release(job.id)

    def skip(self, job_id: str, first: int, reasons: Mapping[str, str]) -> None:
        """Add skipped pictures, source to reason, to a job's log, numbered from ``first``."""
        rows = [
            (job_id, first + i, printable(source), printable(reason))
            for i, (source, reason) in enumerate(reasons.items())
            if first + i < MAX_LOGGED
        ]
        self._write(*(("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?)", row) for row in rows))

    def get(self, job_id: str) -> Job | None:
        """The job, or None if it is unknown."""
        rows = self._read("SELECT job, seen FROM jobs WHERE id = ?", job_id)
        return self._job(*rows[0]) if rows else None

    def newest(self, limit: int) -> list[Job]:
        """The last jobs, newest first."""
        rows = self._read("SELECT job, seen FROM jobs ORDER BY number DESC LIMIT ?", limit)
        return [self._job(*row) for row in rows]

    def skipped(self, job_id: str, after: int, limit: int) -> list[Skipped]:
        """A page of a job's log: at most ``limit`` entries numbered above ``after``."""
        rows = self._read(
            "SELECT number, source, reason FROM skipped WHERE job_id = ? AND number > ? "
            "ORDER BY number LIMIT ?",
            job_id,
            after,
            limit,
        )
        return [Skipped(*row) for row in rows]

    def cancel(self, job_id: str) -> None:
        """Request that the process which runs the job stop it."""
        self._write(("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,)))

    def cancelled(self, job_id: str) -> bool:
        """Whether the job was requested to stop."""
        return self._read("SELECT cancel FROM jobs WHERE id = ?", job_id) == [(1,)]

    def _job(self, text: str, seen: float) -> Job:
        job = _parse(text)
        if job.finished is not None or self._runs(job.id):
            return job
        # Its process may have finished it between the two reads; then that state counts.
        interrupted = replace(
            job, state="interrupted", finished=seen, eta_seconds=None, error=_INTERRUPTED
        )
        self._write(
            (
                "UPDATE jobs SET finished = 1, job = ? WHERE id = ? AND NOT finished",
                (_text(interrupted), job.id),
            )
        )
        rows = self._read("SELECT job FROM jobs WHERE id = ?", job.id)
        found = _parse(rows[0][0]) if rows else interrupted
        return found if found.finished is not None else interrupted

    def _hold(self, job_id: str) -> None:
        handle: int | None = None
        if self._folder is not None:
            try:
                handle = lock_file(self._locked(job_id))
            except OSError as error:
                log.warning("cannot mark job %s as running: %s", job_id, error)
        self._held[job_id] = handle

    def _release(self, job_id: str) -> None:
        handle = self._held.pop(job_id, None)
        if handle is not None:
            with suppress(OSError):
                self._locked(job_id).unlink(missing_ok=True)
            os.close(handle)

    def _runs(self, job_id: str) -> bool:
        """Whether the process that started the job is alive."""
        if job_id in self._held:
            return True
        if self._folder is None:
            return False
        if is_locked(self._locked(job_id)):
            return True
        remove_if_free(self._locked(job_id))
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
                damaged = path.with_suffix(".damaged")
                log.warning("%s is damaged (%s); renamed to %s", path, error, damaged.name)
                path.replace(damaged)
                for rest in ("-wal", "-shm"):
                    path.with_name(path.name + rest).unlink(missing_ok=True)
                return _connect(str(path))
        except (sqlite3.Error, OSError) as error:
            log.warning(
                "cannot use %s (%s); the state of jobs will be lost when the server stops",
                path,
                error,
            )
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
                log.warning("cannot record the state of a job: %s", error)

    def _read(self, statement: str, *values: str | int) -> list[Any]:
        with self._using:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                log.warning("cannot read the state of jobs: %s", error)
                return []


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, 5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise sqlite3.NotSupportedError(
                f"it has format {found}; this version of Lookalike reads formats up to {_FORMAT}"
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
