"""Long work in the background, one job at a time."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from search_api.ingest import CancelledError
from search_api.logs import event

log = logging.getLogger(__name__)

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """A snapshot of one job.

    Attributes:
        id: names the job.
        kind: what it does, for example ``rebuild``.
        state: ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        stage: what it is doing, in a word.
        done: units of the stage done.
        total: units of the stage in all.
        started: seconds since 1970, UTC.
        finished: likewise, or None while it runs.
        error: why it failed or where it stopped, in a sentence, or None.
        result: what it says about itself once it has succeeded, or None.
    """

    id: str
    kind: str
    state: State = "queued"
    stage: str = ""
    done: int = 0
    total: int = 0
    started: float = 0.0
    finished: float | None = None
    error: str | None = None
    result: dict[str, int] | None = None


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


Report = Callable[[str, int, int], None]
Work = Callable[[Report, Callable[[], bool]], dict[str, int]]
"""Does the job: told how to report (stage, done, total) and whether to stop; returns its result."""


class JobRunner:
    """Runs one job at a time in a thread and remembers the last ``KEPT``."""

    KEPT = 100

    def __init__(self, observe: Callable[[Job], None] = lambda job: None) -> None:
        """No jobs yet; ``observe`` is told of each job when it starts and when it has ended."""
        self._observe = observe
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
            self._thread = threading.Thread(target=self._run, args=(job.id, work), name=kind)
            self._thread.start()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job as it is now, or None if there is none of that id."""
        return self._jobs.get(job_id)

    def cancel(self, job_id: str) -> Job | None:
        """Ask the job to stop at its next opportunity; None if there is none of that id.

        Raises:
            JobFinishedError: it is over.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None and job.finished is not None:
                raise JobFinishedError(f"job {job.id} ({job.kind}) has {job.state} already")
            if job is not None:
                self._cancelled.add(job_id)
        return job

    @property
    def running(self) -> Job | None:
        """The job that runs now, or None."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.finished is None), None)

    def stop(self) -> None:
        """Ask the running job to stop, and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, job_id: str, work: Work) -> None:
        def report(stage: str, done: int, total: int) -> None:
            self._change(job_id, stage=stage, done=done, total=total)

        def stopped() -> bool:
            return self._stopping.is_set() or job_id in self._cancelled

        job = self._change(job_id, state="running")
        self._observe(job)
        event(log, "job started", job=job_id, kind=job.kind)
        try:
            result = work(report, stopped)
        except CancelledError as error:
            job = self._change(job_id, state="cancelled", error=str(error), finished=time.time())
        except Exception as error:
            log.exception("job %s failed", job_id)
            job = self._change(job_id, state="failed", error=str(error), finished=time.time())
        else:
            job = self._change(job_id, state="succeeded", result=result, finished=time.time())
        self._observe(job)
        seconds = round((job.finished or job.started) - job.started, 3)
        event(log, "job ended", job=job_id, kind=job.kind, state=job.state, seconds=seconds)

    def _change(self, job_id: str, **values: object) -> Job:
        with self._lock:
            job = replace(self._jobs[job_id], **values)  # type: ignore[arg-type]
            self._jobs[job_id] = job
        return job
