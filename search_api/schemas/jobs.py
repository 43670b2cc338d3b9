"""Jobs and their logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from search_api.schemas.base import Schema

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]


class Progress(Schema):
    """How far a job has got."""

    stage: str = Field(examples=["embedding"])
    done: int
    total: int


class Job(Schema):
    """Long-running work in the background."""

    id: str
    kind: str = Field(examples=["rebuild"])
    state: State = Field(
        description="`interrupted`: the server stopped while it ran; `error` says what to do."
    )
    progress: Progress
    eta_seconds: float | None = Field(
        default=None, description="Time left in the current stage; null if unknown."
    )
    skipped: int = Field(
        default=0, description="Pictures skipped so far; `/v1/jobs/{id}/log` gives the reasons."
    )
    started: float = Field(description="Seconds since 1970, UTC.")
    finished: float | None
    error: str | None
    result: dict[str, int] | None


class Jobs(Schema):
    """The latest jobs, newest first."""

    jobs: list[Job]


class JobLogEntry(Schema):
    """A picture that a job skipped."""

    number: int = Field(description="Counts the skipped pictures from 0.")
    source: str = Field(description="The picture's name in the corpus.")
    reason: str


class JobLog(Schema):
    """A page of a job's log."""

    entries: list[JobLogEntry]
    total: int = Field(description="Number of entries so far.")
    next_after: int | None = Field(description="`after` for the next page; null on the last.")
