"""The state of a job. Quick to import, because the schemas of the client use it too."""

from __future__ import annotations

from dataclasses import dataclass

from search_api.schemas.jobs import State


@dataclass(frozen=True)
class Job:
    """The state of a job at one moment.

    Attributes:
        id: identifies the job.
        kind: what it does, for example ``rebuild``.
        state: ``queued``, ``running``, ``succeeded``, ``failed``, ``cancelled`` on request, or
            ``interrupted`` because the server stopped.
        stage: what it is doing, in one word.
        done: completed units of the stage.
        total: all units of the stage.
        started: seconds since 1970, UTC.
        finished: seconds since 1970, UTC, or None while it runs.
        error: why it failed or where it stopped, and what to do, or None.
        result: counts of what it did, or None unless it has succeeded.
        eta_seconds: estimated seconds until the current stage ends, or None if unknown.
        skipped: number of pictures skipped so far; the job's log gives the reasons.
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
    eta_seconds: float | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Skipped:
    """A picture that a job skipped; ``number`` counts them from 0."""

    number: int
    source: str
    reason: str
