"""Jobs: their progress, the pictures they skipped, and cancelling them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from search_api import schemas
from search_api.api import responses
from search_api.api.context import Context, Ctx
from search_api.api.errors import Problem
from search_api.api.intake.strict import StrictRoute
from search_api.api.openapi import problems
from search_api.jobs.model import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

JobId = Annotated[str, Path(max_length=200, description="The job's id.")]

_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 10.0


class EventStream(StreamingResponse):
    """Server-sent events (WHATWG HTML, section 9.2); takes one of the app's slots for streams."""

    media_type = "text/event-stream"

    def __init__(
        self, content: AsyncIterator[str], status_code: int = 200, *, context: Context
    ) -> None:
        super().__init__(content, status_code, {"Cache-Control": "no-store"})
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, or refuse if all slots are taken."""
        # Here and not in the route: nothing may come between the check and the taking of the slot.
        streams, own = self._context.streams, object()
        if self._context.draining.is_set() or len(streams) >= self._context.limits.max_streams:
            raise Problem(
                503,
                "no-stream",
                "no more clients can follow jobs now; poll GET /v1/jobs/{id} instead",
                headers={"Retry-After": "5"},
            )
        streams.add(own)
        try:
            await super().__call__(scope, receive, send)
        finally:
            streams.discard(own)


@router.get("", operation_id="list_jobs", summary="List recent jobs")
def list_jobs(
    context: Ctx,
    limit: Annotated[
        int, Query(ge=1, le=100, description="Maximum number of jobs to return.")
    ] = 20,
) -> schemas.Jobs:
    """Lists the jobs of all servers on the store, newest first; they survive restarts.

    Example: `curl http://127.0.0.1:8000/v1/jobs`
    """
    return schemas.Jobs(jobs=[responses.job(context, job) for job in context.jobs.newest(limit)])


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="State and progress of a job",
    responses=problems(404),
)
def get_job(context: Ctx, job_id: JobId) -> schemas.Job:
    """Returns the job's state, progress, remaining time, and the error if it failed.

    Example: `curl http://127.0.0.1:8000/v1/jobs/5f0c` with the `id` that starting the job returned.
    """
    return responses.job(context, _known(context.jobs.get(job_id), job_id))


@router.delete(
    "/{job_id}",
    operation_id="cancel_job",
    status_code=202,
    summary="Cancel a job",
    responses=problems(404, 409),
)
def cancel_job(context: Ctx, job_id: JobId) -> schemas.Job:
    """Requests cancellation; the state becomes `cancelled` once the job stops. Its work is kept.

    Example: `curl -X DELETE http://127.0.0.1:8000/v1/jobs/5f0c`
    """
    return responses.job(context, _known(context.jobs.cancel(job_id), job_id))


@router.get(
    "/{job_id}/log",
    operation_id="job_log",
    summary="Pictures that a job skipped",
    responses=problems(404),
)
def job_log(
    context: Ctx,
    job_id: JobId,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="Maximum number of entries to return.")
    ] = 100,
    after: Annotated[
        int, Query(ge=-1, le=2**63 - 1, description="Return entries numbered above this.")
    ] = -1,
) -> schemas.JobLog:
    """Lists the pictures that could not be used, in order, each with the reason.

    Reasons are kept for the first 100,000 pictures.

    Example: `curl http://127.0.0.1:8000/v1/jobs/5f0c/log`
    """
    job = _known(context.jobs.get(job_id), job_id)
    found = context.jobs.skipped(job_id, after, limit + 1)
    entries = [
        schemas.JobLogEntry(
            number=entry.number, source=entry.source, reason=context.public(entry.reason)
        )
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
    """Sends the job as a server-sent event, as `GET /v1/jobs/{job_id}` returns it, at every change.

    The stream ends when the job ends or the server shuts down; in the latter case the job in the
    last event is unfinished, and clients continue by polling. A comment every ten seconds shows
    that the server is alive.

    Example: `curl -N http://127.0.0.1:8000/v1/jobs/5f0c/events`
    """
    job = _known(await _current(context, job_id), job_id)
    return EventStream(_events(context, job), context=context)


async def _events(context: Context, job: Job | None) -> AsyncIterator[str]:
    """An event per change, until the job ends, the server shuts down or the client disconnects.

    When the client disconnects, Starlette cancels this generator.
    """
    last: Job | None = None
    sent = time.monotonic()
    while job is not None:
        if job != last:
            last, sent = job, time.monotonic()
            yield f"data: {responses.job(context, job).model_dump_json()}\n\n"
        if job.finished is not None or context.draining.is_set():
            return
        await asyncio.sleep(_POLL_SECONDS)
        if time.monotonic() - sent >= _HEARTBEAT_SECONDS:
            sent = time.monotonic()
            yield ": alive\n\n"
        job = await _current(context, job.id)


async def _current(context: Context, job_id: str) -> Job | None:
    own = context.jobs.own(job_id)
    return own if own is not None else await run_in_threadpool(context.jobs.get, job_id)


def _known(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise Problem(
            404, "unknown-job", f"there is no job {job_id[:64]!r}; GET /v1/jobs lists recent jobs"
        )
    return job
