"""Automatic compaction: builds a new index, or fits the classifier, once enough has changed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from index.contract import (
    CatalogueError,
    GenerationError,
    Manifest,
    NoSpaceError,
    StateGoneError,
    StoreBusyError,
)
from search_api.jobs.model import Job
from search_api.jobs.runner import JobRunningError
from search_api.jobs.tasks import Task, TaskRunner
from search_api.service.model_migration import encoder_in_use
from search_api.settings import Limits

log = logging.getLogger(__name__)

_CHECK_SECONDS = 10.0
_REST_SECONDS = 600.0
_EXPIRE_SECONDS = 60.0
_DAY = timedelta(days=1)


def _age(manifest: Manifest) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(manifest.created)


@dataclass(frozen=True)
class AutoCompaction:
    """Starts a `compact` or a `fit` job when one is due, until ``draining`` is set."""

    tasks: TaskRunner
    limits: Limits
    draining: threading.Event

    def check(self, *, restored: bool = False, unembedded: bool = False) -> Job | None:
        """Start a compaction if more has changed than the limits allow and no job is running.

        Otherwise, fit the classifier if that is due, which a compaction does by itself; see
        `ClassifierFitter.due`, which is asked only now and then unless a snapshot was ``restored``.

        Also start one if a switch of models was interrupted before its index was built, as nothing
        can be added until that index serves; and if ``unembedded`` pictures of an earlier model
        were restored, which it embeds; and, a day after the last build, if files of the index
        hold embeddings that were purged.
        """
        engine, limits = self.tasks.engine, self.limits
        if engine.store.read_only:
            return None
        model, encoder = engine.catalogue.model(), encoder_in_use(engine)
        if model not in (None, encoder.digest):
            return None  # the store switched to a model that this process cannot open
        manifest, pending = engine.manifest, engine.pending()
        due = max(limits.compact_min_changes, int(limits.compact_share * manifest.count))
        compact = pending >= due or unembedded or encoder.digest != manifest.model_digest
        compact = compact or (_age(manifest) > _DAY and engine.store.holds_purged())
        if not compact and not engine.fitter.due(now=restored):
            return None
        try:
            job = self.tasks.start(Task("compact" if compact else "fit"))
        except (JobRunningError, StoreBusyError, NoSpaceError):
            return None  # the running job includes the changes, or a later check compacts them
        if compact:
            what = f"{pending} changes since the index was built: compacting it"
        else:
            what = "the labels have changed: fitting the classifier"
        log.info("%s in job %s", what, job.id)
        return job

    def expire(self) -> None:
        """Purge what has expired in the trash."""
        if self.tasks.engine.store.read_only:
            return
        try:
            self.tasks.engine.trash.expire()
        except (CatalogueError, OSError) as error:
            log.warning("cannot purge the trash now: %s", error)

    async def run(self) -> None:
        """Check at the start and then every few seconds, indefinitely; the trash every minute.

        Writes from the command line, or by a server that has exited, cannot start a compaction
        themselves.
        """
        job: Job | None = None
        expired = -_EXPIRE_SECONDS
        while True:
            idle = self.tasks.engine.ready and not self.draining.is_set()
            if idle and time.monotonic() - expired >= _EXPIRE_SECONDS:
                expired = time.monotonic()
                await asyncio.to_thread(self.expire)
            now = None if job is None else self.tasks.jobs.own(job.id)
            if now is not None and now.state in ("failed", "cancelled"):
                job = None
                await asyncio.sleep(_REST_SECONDS)  # the cause of the failure usually persists
            elif now is not None and now.finished is None:
                pass  # if it failed during a check, that check would start another one at once
            elif self.tasks.engine.ready and not self.draining.is_set():
                try:
                    job = await asyncio.to_thread(self.check) or job
                except (CatalogueError, GenerationError, StateGoneError) as error:
                    log.warning("cannot tell whether the index needs compaction: %s", error)
            await asyncio.sleep(_CHECK_SECONDS)
