"""Jobs: how far they are, what they left out, and stopping them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from search_api import schemas
from search_api.context import Context, Ctx, problems
from search_api.errors import Problem
from search_api.jobs import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(max_length=200, description="The job's id.")]

_LOOK_SECONDS = 0.2
_HEARTBEAT_SECONDS = 10.0


class EventStream(StreamingResponse):
    """Server-sent events (WHATWG HTML, section 9.2)."""

    media_type = "text/event-stream"


@router.get("", operation_id="list_jobs", summary="The last jobs")
def list_jobs(
    context: Ctx,
    limit: Annotated[int, Query(ge=1, le=100, description="Most jobs to return.")] = 20,
) -> schemas.Jobs:
    """Of every server on the store, the newest first; they outlast a restart.

    Example: `curl http://127.0.0.1:8000/v1/jobs`
    """
    return schemas.Jobs(jobs=[schemas.Job.of(job) for job in context.jobs.newest(limit)])


@router.get(
    "/{job_id}", operation_id="get_job", summary="How far a job is", responses=problems(404)
)
def get_job(context: Ctx, job_id: JobId) -> schemas.Job:
    """State, progress, time left, and the error where it failed.

    Example: `curl http://127.0.0.1:8000/v1/jobs/5f0c` with the `id` that the rebuild answered.
    """
    return schemas.Job.of(_known(context.jobs.get(job_id), job_id))


@router.delete(
    "/{job_id}",
    operation_id="cancel_job",
    status_code=202,
    summary="Cancel a job",
    responses=problems(404, 409),
)
def cancel_job(context: Ctx, job_id: JobId) -> schemas.Job:
    """Asks the job to stop; its state becomes `cancelled` once it has, and what it did stays.

    Example: `curl -X DELETE http://127.0.0.1:8000/v1/jobs/5f0c`
    """
    return schemas.Job.of(_known(context.jobs.cancel(job_id), job_id))


@router.get(
    "/{job_id}/log",
    operation_id="job_log",
    summary="What a job left out, and why",
    responses=problems(404),
)
def job_log(
    context: Ctx,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most entries to return.")] = 100,
    after: Annotated[
        int, Query(ge=-1, le=2**63 - 1, description="Only entries numbered above; for paging.")
    ] = -1,
) -> schemas.JobLog:
    """The pictures that could not be used, in the order met, each with its reason.

    The reasons of the first 100,000 are kept.

    Example: `curl http://127.0.0.1:8000/v1/jobs/5f0c/log`
    """
    job = _known(context.jobs.get(job_id), job_id)
    found = context.jobs.skipped(job_id, after, limit + 1)
    entries = [
        schemas.JobLogEntry(number=entry.number, source=entry.source, reason=entry.reason)
        for entry in found[:limit]
    ]
    more = len(found) > limit
    return schemas.JobLog(
        entries=entries, total=job.skipped, next_after=entries[-1].number if more else None
    )


@router.get(
    "/{job_id}/events",
    operation_id="job_events",
    summary="Follow a job",
    response_class=EventStream,
    responses=problems(404, 503),
)
async def job_events(context: Ctx, job_id: JobId) -> EventStream:
    """Server-sent events: the job, as `GET /v1/jobs/{job_id}` gives it, whenever it changes.

    The stream ends when the job does, or when the server is about to end; then the last event's
    job is not finished, and polling goes on from there. A comment every ten seconds shows that
    the server lives.

    Example: `curl -N http://127.0.0.1:8000/v1/jobs/5f0c/events`
    """
    job = _known(await _look(context, job_id), job_id)
    if context.draining.is_set() or len(context.streams) >= context.limits.max_streams:
        raise Problem(
            503,
            "no-stream",
            "no more clients can follow jobs now; ask GET /v1/jobs/{id} from time to time",
            headers={"Retry-After": "5"},
        )
    return EventStream(_events(context, job), headers={"Cache-Control": "no-store"})


async def _events(context: Context, job: Job | None) -> AsyncIterator[str]:
    """One event a change, until the job is over, the server ends, or the client has gone.

    When the client goes, Starlette cancels this where it waits.
    """
    own = object()
    context.streams.add(own)
    try:
        said: Job | None = None
        spoke = time.monotonic()
        while job is not None:
            if job != said:
                said, spoke = job, time.monotonic()
                yield f"data: {schemas.Job.of(job).model_dump_json()}\n\n"
            if job.finished is not None or context.draining.is_set():
                return
            await asyncio.sleep(_LOOK_SECONDS)
            if time.monotonic() - spoke >= _HEARTBEAT_SECONDS:
                spoke = time.monotonic()
                yield ": alive\n\n"
            job = await _look(context, job.id)
    finally:
        context.streams.discard(own)


async def _look(context: Context, job_id: str) -> Job | None:
    own = context.jobs.own(job_id)
    return own if own is not None else await run_in_threadpool(context.jobs.get, job_id)


def _known(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise Problem(
            404, "unknown-job", f"there is no job {job_id[:64]!r}; GET /v1/jobs lists the last ones"
        )
    return job
