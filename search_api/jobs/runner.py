"""Runs long work in the background, one job at a time."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from index.contract import CancelledError, JobControl
from search_api.jobs.model import Job, Skipped
from search_api.jobs.store import JobStore
from search_api.logs import event
from search_api.text import printable

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_LOG_SECONDS = 10.0
_POLL_SECONDS = 0.5


class JobRunningError(RuntimeError):
    """Another job, ``job``, is already running."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"job {job.id} ({job.kind}) is still {job.state}; wait until it has finished:"
            f" GET /v1/jobs/{job.id}"
        )
        self.job = job


class JobFinishedError(RuntimeError):
    """The job has finished and cannot be cancelled."""


class _Progress:
    """Records progress, with the remaining time estimated from the pace of the stage."""

    def __init__(self, change: Callable[..., Job]) -> None:
        self._change = change
        self._stage = ""
        self._since = (0.0, 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since = stage, (now, done)
        began, before = self._since
        eta = None
        if done > before:
            eta = round((now - began) * max(total - done, 0) / (done - before), 1)
        self._change(stage=stage, done=done, total=total, eta_seconds=eta)


Work = Callable[[JobControl], dict[str, int]]
"""Does the work of a job and returns its result."""


class JobRunner:
    """Runs one job at a time in a thread; keeps the last ``KEPT`` jobs of the store."""

    KEPT = 100

    def __init__(
        self, observe: Callable[[Job], None] = lambda job: None, store: JobStore | None = None
    ) -> None:
        """A runner without jobs of its own yet.

        Args:
            observe: called with each job when it starts and when it has finished.
            store: holds earlier jobs and those of other processes; None for a store in memory.
        """
        self._observe = observe
        self._store = store or JobStore()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._cancelled: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self, kind: str, work: Work) -> Job:
        """Start a job and return at once.

        Raises:
            JobRunningError: another job is running in this process.
        """
        with self._lock:
            for job in self._jobs.values():
                if job.finished is None:
                    raise JobRunningError(job)
            job = Job(uuid.uuid4().hex, kind, started=time.time())
            self._jobs[job.id] = job
            while len(self._jobs) > self.KEPT:
                del self._jobs[next(iter(self._jobs))]
            self._store.begin(job, self.KEPT)
            self._thread = threading.Thread(target=self._run, args=(job.id, work), name=kind)
            self._thread.start()
        return job

    def own(self, job_id: str) -> Job | None:
        """The current state of a job of this process, or None; never reads from disk."""
        return self._jobs.get(job_id)

    def get(self, job_id: str) -> Job | None:
        """The current state of a job of any process on the store, or None if it is unknown."""
        return self._jobs.get(job_id) or self._store.get(job_id)

    def newest(self, limit: int) -> list[Job]:
        """The last jobs of all processes on the store, newest first."""
        return [self._jobs.get(job.id, job) for job in self._store.newest(limit)]

    def skipped(self, job_id: str, after: int, limit: int) -> list[Skipped]:
        """A page of a job's log: at most ``limit`` skipped pictures numbered above ``after``."""
        return self._store.skipped(job_id, after, limit)

    def cancel(self, job_id: str) -> Job | None:
        """Request that a job stop; return it, or None if it is unknown.

        Raises:
            JobFinishedError: it has already finished.
        """
        job = self.get(job_id)
        if job is not None:
            if job.finished is not None:
                raise JobFinishedError(
                    f"job {job.id} ({job.kind}) has already finished: {job.state}"
                )
            self._cancelled.add(job_id)
            self._store.cancel(job_id)
        return job

    @property
    def running(self) -> Job | None:
        """The job that this process is running, or None."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.finished is None), None)

    def stop(self) -> None:
        """Tell the running job to stop, and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop, and close the store."""
        self.stop()
        self._store.close()

    def _run(self, job_id: str, work: Work) -> None:
        polled = saved = logged = time.monotonic()

        def change(**values: object) -> Job:
            nonlocal saved, logged
            before = self._jobs[job_id].stage
            job = self._change(job_id, **values)
            now = time.monotonic()
            if job.stage != before or now - saved >= _SAVE_SECONDS:
                saved = now
                self._store.save(job)
            if now - logged >= _LOG_SECONDS:
                logged = now
                _log_progress(job)
            return job

        def skip(reasons: Mapping[str, str]) -> None:
            if reasons:
                first = self._jobs[job_id].skipped
                self._store.skip(job_id, first, reasons)
                self._change(job_id, skipped=first + len(reasons))

        def cancelled() -> bool:
            nonlocal polled
            if time.monotonic() - polled >= _POLL_SECONDS:
                polled = time.monotonic()
                if self._store.cancelled(job_id):  # through another server on the store
                    self._cancelled.add(job_id)
            return self._stopping.is_set() or job_id in self._cancelled

        job = self._change(job_id, state="running")
        self._observe(job)
        event(log, "job started", job=job_id, kind=job.kind)
        try:
            result = work(JobControl(_Progress(change), cancelled, skip, job_id))
        except CancelledError as error:
            job = self._finish(
                job_id,
                state="cancelled" if job_id in self._cancelled else "interrupted",
                error=printable(str(error)),
            )
        except Exception as error:
            log.exception("job %s failed", job_id)
            job = self._finish(job_id, state="failed", error=printable(str(error)))
        else:
            job = self._finish(job_id, state="succeeded", result=result)
        self._cancelled.discard(job_id)
        seconds = round((job.finished or job.started) - job.started, 3)
        facts: dict[str, Any] = {"state": job.state, "seconds": seconds, **(job.result or {})}
        if job.error is not None:
            facts["error"] = job.error
        event(log, "job ended", job=job_id, kind=job.kind, **facts)

    def _finish(self, job_id: str, **values: object) -> Job:
        job = replace(self._jobs[job_id], eta_seconds=None, finished=time.time(), **values)  # type: ignore[arg-type]
        # Stored and counted first: whoever sees that the job has finished may read both.
        self._store.save(job)
        self._observe(job)
        with self._lock:
            self._jobs[job_id] = job
        return job

    def _change(self, job_id: str, **values: object) -> Job:
        with self._lock:
            job = replace(self._jobs[job_id], **values)  # type: ignore[arg-type]
            self._jobs[job_id] = job
        return job


def _log_progress(job: Job) -> None:
    """For who watches the log or the terminal."""
    left = {} if job.eta_seconds is None else {"seconds_left": round(job.eta_seconds)}
    facts: dict[str, Any] = {"stage": job.stage, "done": job.done, "total": job.total, **left}
    event(log, "job progress", job=job.id, kind=job.kind, **facts)
