"""The first build of a store, which a server starts, or continues, while it serves already."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field

from index.contract import CatalogueError, NoSpaceError, StoreBusyError
from search_api.jobs.runner import JobRunningError
from search_api.jobs.tasks import Task, TaskRunner

log = logging.getLogger(__name__)

_CHECK_SECONDS = 0.5
_REST_SECONDS = 60.0


@dataclass(frozen=True)
class FirstBuild:
    """Starts the `rebuild` job of a store that nothing or only a part is built of.

    Another process may build it instead: servers that start together are not in each other's way.
    """

    tasks: TaskRunner
    draining: threading.Event
    task: Task = field(default_factory=lambda: Task("rebuild"))

    def due(self) -> bool:
        """Whether there is something to build; loads what there is to search by now."""
        engine = self.tasks.engine
        engine.follow()
        return not engine.ready or engine.builder.unfinished()

    async def run(self) -> None:
        """Return once the build is complete, or was cancelled.

        A failed one is tried again now and then, because its cause may go away: a full disk, or a
        drive that is not there yet.
        """
        resume, started = 0.0, ""
        while not self.draining.is_set():
            try:
                if not await asyncio.to_thread(self.due):
                    return
                job = self.tasks.jobs.own(started)
                if job is not None and job.state == "cancelled":
                    return
                if job is not None and job.state == "failed":
                    resume, started = time.monotonic() + self._rest(), ""
                if not started and time.monotonic() >= resume:
                    started = (await asyncio.to_thread(self.tasks.start, self.task)).id
            except (JobRunningError, StoreBusyError):
                pass  # it builds the same
            except (NoSpaceError, CatalogueError) as error:
                log.warning("the first build cannot begin: %s", error)
                resume = time.monotonic() + _REST_SECONDS
            await asyncio.sleep(_CHECK_SECONDS)

    def _rest(self) -> float:
        """Seconds to wait after a failed build: none if another process was faster."""
        try:
            self.tasks.engine.store.check_free()
        except StoreBusyError:
            return 0.0
        return _REST_SECONDS
