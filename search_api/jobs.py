"""Long work in the background, one job at a time."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from search_api.ingest import CancelledError
from search_api.job import Job, Skipped
from search_api.job_store import JobStore, printable
from search_api.logs import event

__all__ = ["Job", "JobFinishedError", "JobRunner", "JobRunningError", "Report"]

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_LOOK_SECONDS = 0.5


class JobRunningError(RuntimeError):
    """A job runs already; ``job`` is it."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"job {job.id} ({job.kind}) is still {job.state}; wait until it is done:"
            f" GET /v1/jobs/{job.id}"
        )
        self.job = job


class JobFinishedError(RuntimeError):
    """The job is over and cannot be cancelled."""


class Report:
    """What a job is told to say how far it is: call it with (stage, done, total)."""

    def __init__(self, change: Callable[..., Job], skip: Callable[[Mapping[str, str]], None]):
        self._change = change
        self._stage = ""
        self._since = (0.0, 0)
        self.skip = skip
        """Told of each picture that is left out: source and reason."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done in ``stage``."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since = stage, (now, done)
        began, before = self._since
        eta = None
        if done > before:
            eta = round((now - began) * max(total - done, 0) / (done - before), 1)
        self._change(stage=stage, done=done, total=total, eta_seconds=eta)


Work = Callable[[Report, Callable[[], bool]], dict[str, int]]
"""Does the job: told how to report and whether to stop; returns its result."""


class JobRunner:
    """Runs one job at a time in a thread and remembers the last ``KEPT`` of the store."""

    KEPT = 100

    def __init__(
        self, observe: Callable[[Job], None] = lambda job: None, store: JobStore | None = None
    ) -> None:
        """No jobs of this process yet.

        Args:
            observe: told of each job when it starts and when it has ended.
            store: what is known of earlier jobs and of those of other processes; None for a
                memory of its own.
        """
        self._observe = observe
        self._store = store or JobStore()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._cancelled: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self, kind: str, work: Work, job_id: str | None = None) -> Job:
        """Start a job, called ``job_id`` if given, and return at once.

        Raises:
            JobRunningError: one is running.
        """
        with self._lock:
            for job in self._jobs.values():
                if job.finished is None:
                    raise JobRunningError(job)
            job = Job(job_id or uuid.uuid4().hex, kind, started=time.time())
            self._jobs[job.id] = job
            while len(self._jobs) > self.KEPT:
                del self._jobs[next(iter(self._jobs))]
            self._store.begin(job, self.KEPT)
            self._thread = threading.Thread(target=self._run, args=(job.id, work), name=kind)
            self._thread.start()
        return job

    def own(self, job_id: str) -> Job | None:
        """The job as it is now if this process runs or ran it; never waits for a disk."""
        return self._jobs.get(job_id)

    def get(self, job_id: str) -> Job | None:
        """The job as it is now, of any process on the store, or None if there is none."""
        return self._jobs.get(job_id) or self._store.get(job_id)

    def newest(self, limit: int) -> list[Job]:
        """The last jobs of all processes on the store, the newest first."""
        return [self._jobs.get(job.id, job) for job in self._store.newest(limit)]

    def skipped(self, job_id: str, after: int, limit: int) -> list[Skipped]:
        """A page of a job's log: the pictures it left out, numbered above ``after``."""
        return self._store.skipped(job_id, after, limit)

    def cancel(self, job_id: str) -> Job | None:
        """Ask the job to stop at its next opportunity; None if there is none of that id.

        Raises:
            JobFinishedError: it is over.
        """
        job = self.get(job_id)
        if job is not None:
            if job.finished is not None:
                raise JobFinishedError(f"job {job.id} ({job.kind}) is over already: {job.state}")
            self._cancelled.add(job_id)
            self._store.cancel(job_id)
        return job

    @property
    def running(self) -> Job | None:
        """The job that this process runs now, or None."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.finished is None), None)

    def stop(self) -> None:
        """Ask the running job to stop, and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop, and close the record."""
        self.stop()
        self._store.close()

    def _run(self, job_id: str, work: Work) -> None:
        looked = saved = time.monotonic()

        def change(**values: object) -> Job:
            nonlocal saved
            before = self._jobs[job_id].stage
            job = self._change(job_id, **values)
            now = time.monotonic()
            if job.stage != before or now - saved >= _SAVE_SECONDS:
                saved = now
                self._store.save(job)
            return job

        def skip(reasons: Mapping[str, str]) -> None:
            if reasons:
                first = self._jobs[job_id].skipped
                self._store.skip(job_id, first, reasons)
                self._change(job_id, skipped=first + len(reasons))

        def stopped() -> bool:
            nonlocal looked
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                if self._store.cancelled(job_id):  # through another server on the store
                    self._cancelled.add(job_id)
            return self._stopping.is_set() or job_id in self._cancelled

        job = self._change(job_id, state="running")
        self._observe(job)
        event(log, "job started", job=job_id, kind=job.kind)
        try:
            result = work(Report(change, skip), stopped)
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
        event(log, "job ended", job=job_id, kind=job.kind, state=job.state, seconds=seconds)

    def _finish(self, job_id: str, **values: object) -> Job:
        over = replace(self._jobs[job_id], eta_seconds=None, finished=time.time(), **values)  # type: ignore[arg-type]
        # Recorded and counted first: who sees that it is over may ask for both.
        self._store.save(over)
        self._observe(over)
        with self._lock:
            self._jobs[job_id] = over
        return over

    def _change(self, job_id: str, **values: object) -> Job:
        with self._lock:
            job = replace(self._jobs[job_id], **values)  # type: ignore[arg-type]
            self._jobs[job_id] = job
        return job
