"""What jobs do to a store, and doing it in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from search_api import changeover
from search_api.engine import SearchEngine
from search_api.jobs import Report

_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Task:
    """One job's work.

    Attributes:
        kind: ``rebuild`` brings the index up to date with the corpus, ``compact`` folds changes
            in, ``embed`` embeds with another model beside the one that serves, ``switch`` goes
            over to it.
        job: the job's id, for those who want to build meanwhile.
        model: digest of the model to do it with; empty for the one that the record holds.
        reembed: of ``rebuild``: embed also what is known.
    """

    kind: Literal["rebuild", "compact", "embed", "switch"]
    job: str
    model: str = ""
    reembed: bool = False


Stop = Callable[[], bool]
Perform = Callable[[Task, Report, Stop], dict[str, int]]
"""Does a task: told how to report and whether to stop; returns what the job says of itself.

Raises StoreBusyError, CancelledError, and whatever else goes wrong.
"""


def perform(engine: SearchEngine, task: Task, report: Report, stop: Stop) -> dict[str, int]:
    """Do a task in this process, giving way to searches more often than Python's threads do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return _perform(engine, task, report, stop)
    finally:
        sys.setswitchinterval(usual)


def _perform(engine: SearchEngine, task: Task, report: Report, stop: Stop) -> dict[str, int]:
    if task.model:
        encoder = changeover.encoder_of(engine, task.model)
    else:
        encoder = changeover.encoder_in_use(engine)
    builder = engine.builder
    if task.kind == "compact":
        manifest = builder.compact(encoder, report, task.job, stop)
        return {"generation": manifest.generation, "total": manifest.count}
    if task.kind == "embed":
        counts = builder.stage(encoder, report, stop, task.job, report.skip)
        return {"embedded": counts.embedded, "skipped": len(counts.skipped)}
    if task.kind == "switch":
        manifest, counts = builder.switch(encoder, report, stop, task.job, report.skip)
        return {
            "generation": manifest.generation,
            "embedded": counts.embedded,
            "skipped": len(counts.skipped),
        }
    manifest, counts = builder.rebuild(
        encoder,
        engine.corpus,
        report,
        reembed=task.reembed,
        cancelled=stop,
        job=task.job,
        skip=report.skip,
    )
    return {
        "generation": manifest.generation,
        "total": counts.total,
        "embedded": counts.embedded,
        "removed": counts.removed,
        "skipped": len(counts.skipped),
    }
