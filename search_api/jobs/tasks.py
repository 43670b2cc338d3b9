"""Tasks: what jobs do to a store, and doing it in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from embed.folders.kinds import in_words
from index.contract import JobControl
from search_api.jobs.model import Job
from search_api.jobs.runner import JobRunner
from search_api.service.corpus_sync import Counts
from search_api.service.engine import SearchEngine
from search_api.service.labelling.classifier_fit import fit_now
from search_api.service.model_migration import encoder_in_use, encoder_of

log = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
_LEAST_ROOM = 2**20


@dataclass(frozen=True)
class Task:
    """The work of one job.

    Attributes:
        kind: ``rebuild`` brings the index up to date with the corpus, ``compact`` builds a new
            index from the catalogue alone, ``embed`` embeds with another model while the current
            one serves, ``switch`` switches to it, ``fit`` fits the classifier of the labels,
            ``sync`` follows the corpus without building an index.
        model: digest of the model to use; empty for the one whose embeddings are in use.
        reembed: for ``rebuild``: embed everything again, including unchanged pictures.
        allow_removal: for ``rebuild``: remove what is gone however much it is.
        first: for ``rebuild``: nothing can be searched yet; see `IndexBuilder.rebuild`. The store
            may not even have a model.
        index: for ``compact``: the kind of index from then on; empty for the one in use.
        leave: for ``sync``: sources to leave as they are, because their files are being written.
    """

    kind: Literal["rebuild", "compact", "embed", "switch", "fit", "sync"]
    model: str = ""
    reembed: bool = False
    allow_removal: bool = False
    first: bool = False
    index: str = ""
    leave: Sequence[str] = ()


Perform = Callable[[Task, JobControl], dict[str, int]]
"""Does a task and returns the result of its job.

Raises StoreBusyError, CancelledError, and any error of the work itself.
"""


@dataclass(frozen=True)
class TaskRunner:
    """Starts tasks as jobs; ``perform`` does the work, in this process or another one."""

    engine: SearchEngine
    jobs: JobRunner
    perform: Perform

    def start(self, task: Task, *, here: bool = False) -> Job:
        """Start a job that does the task; ``here`` in this process, as it takes no time.

        Raises:
            NoSpaceError: the disk has too little free space.
            JobRunningError: a job is already running in this process.
            StoreBusyError: another process is building.
        """
        # Also where no free space has to stay: a job that can only fail is not begun.
        self.engine.storage.check_room(_LEAST_ROOM)
        if task.kind == "rebuild" and not self.engine.ready:
            task = replace(task, first=True)
        if self.jobs.running is None:
            self.engine.store.check_free()
        work = partial(perform, self.engine) if here else self.perform
        return self.jobs.start(task.kind, partial(work, task))


def perform(engine: SearchEngine, task: Task, control: JobControl) -> dict[str, int]:
    """Do a task in this process, yielding to searches more often than Python does by default."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        return _perform(engine, task, control)
    finally:
        sys.setswitchinterval(usual)


def _perform(engine: SearchEngine, task: Task, control: JobControl) -> dict[str, int]:
    encoder = encoder_of(engine, task.model) if task.model else encoder_in_use(engine)
    builder = engine.builder
    if task.kind == "compact":
        manifest = builder.compact(encoder, control, kind=task.index or None)
        return {"generation": manifest.generation, "total": manifest.count}
    if task.kind == "embed":
        counts = builder.embed(encoder, control)
        return {"embedded": counts.embedded, "skipped": len(counts.skipped)}
    if task.kind == "fit":
        classifier = fit_now(engine.store, engine.fitter, encoder, control).classifier
        counts_of = {} if classifier is None else classifier.counts
        return {"classes": len(counts_of), "total": sum(counts_of.values())}
    if task.kind == "switch":
        manifest, counts = builder.switch(encoder, control)
        return {
            "generation": manifest.generation,
            "embedded": counts.embedded,
            "skipped": len(counts.skipped),
        }
    if task.kind == "sync":
        counts = builder.sync(encoder, engine.corpus, control, leave=frozenset(task.leave))
        return _result(counts)
    manifest, counts = builder.rebuild(
        encoder,
        engine.corpus,
        control,
        reembed=task.reembed,
        allow_removal=task.allow_removal,
        first=task.first,
    )
    if kinds := counts.kinds:
        listed, files = engine.var / "skipped.json", sum(kinds.values())
        log.info("skipped files (%s): %s; see %s", f"{files:,}", in_words(kinds), listed)
    return {"generation": manifest.generation, **_result(counts)}


def _result(counts: Counts) -> dict[str, int]:
    """The result of a job that followed the corpus."""
    return {
        "total": counts.total,
        "embedded": counts.embedded,
        "changed": counts.changed,
        "moved": counts.moved,
        "removed": counts.removed,
        "unreachable": counts.unreachable,
        "skipped": len(counts.skipped),
        **{f"skipped {kind}": number for kind, number in counts.kinds.items()},
    }
