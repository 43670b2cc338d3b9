"""What is said of one job. Light to import: the client's schemas need it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True)
class Job:
    """A snapshot of one job.

    Attributes:
        id: names the job.
        kind: what it does, for example ``rebuild``.
        state: ``queued``, ``running``, ``succeeded``, ``failed``, ``cancelled`` by somebody, or
            ``interrupted`` because the server ended.
        stage: what it is doing, in a word.
        done: units of the stage done.
        total: units of the stage in all.
        started: seconds since 1970, UTC.
        finished: likewise, or None while it runs.
        error: why it failed or where it stopped, and what to do, or None.
        result: what it says about itself once it has succeeded, or None.
        eta_seconds: time left of the present stage at its pace so far; None where unknown.
        skipped: pictures that could not be used so far; the job's log gives the reasons.
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
    """A picture that a job could not use: ``number`` counts them from 0."""

    number: int
    source: str
    reason: str
