"""Follows the corpus while the server runs: what changes in its folder is indexed within seconds.

A look at the folder follows each event, and an occasional one what no event told of. Whatever
differs from the last look is brought into the catalogue by a `sync` job, by the same rules as a
build.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embed.corpus import CorpusError, Item, file_stamp
from index.contract import CatalogueError, NoSpaceError, StoreBusyError
from search_api.jobs.model import Job
from search_api.jobs.runner import JobRunningError
from search_api.jobs.tasks import Task, TaskRunner
from search_api.service.following.place import Identity, identity_of, is_remote, place_of

log = logging.getLogger(__name__)

Events = Callable[[Path, bool, threading.Event], Iterator[bool]]
"""``events(folder, polling, stop)``: True after changes, False now and then without any.

Raises OSError or RuntimeError if the folder cannot be watched.
"""
Mode = Literal["auto", "poll"]
State = Literal["starting", "watching", "polling", "away"]

_STILL_SECONDS = 0.5
_WAIT_SECONDS = 1.0
_AWAY_SECONDS = 2.0
_LOOK_SECONDS = 600.0
_RETRY_SECONDS = 30.0
_LONGEST_RETRY_SECONDS = 3600.0
_POLL_MS = 3_000
_RECENT_NS = 60 * 10**9
_FEW = 100
"""So many changes are embedded here, within a second; more are left to the worker process."""


@dataclass(frozen=True)
class Synced:
    """What the last `sync` job did, ``counts`` as in its result, and when it ended."""

    job: str
    ended: float
    counts: dict[str, int]


@dataclass
class Watching:
    """Keeps the index of one server up to date with its corpus, in a thread of its own.

    Attributes:
        tasks: starts the jobs.
        stop: ends the thread.
        mode: ``poll`` looks at every file now and then, where the system tells of no changes;
            ``auto`` does so on network drives and where the system's limit on watches is reached.
        synced: called after each job.
        state: ``away`` while the folder is not there; what is indexed stays.
        last: what was done last; None before the first time.
        problem: why the index is not up to date, or None.
    """

    tasks: TaskRunner
    stop: threading.Event
    mode: Mode = "auto"
    synced: Callable[[Synced], None] = lambda synced: None
    events: Events = field(default_factory=lambda: watched)
    state: State = "starting"
    last: Synced | None = None
    problem: str | None = None
    _seen: NDArray[np.int64] | None = None
    _again: bool = False
    _retry: float = _RETRY_SECONDS
    _next: float = 0.0

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self.run, name="watch", daemon=True).start()

    def run(self) -> None:
        """Follow the corpus until ``stop`` is set."""
        place = place_of(self.tasks.engine.corpus)
        if place is None:
            log.warning("%s is no folder, so it is not watched", self.tasks.engine.corpus.name)
            return
        polling = self.mode == "poll"
        while not self.stop.is_set():
            try:
                identity = identity_of(place)
                if not self._is_built() or identity is None:
                    self._lack(place, identity)
                    continue
                polling = polling or is_remote(place)
                self._follow(place, identity, polling)
            except CatalogueError as error:
                self._report(str(error))
                self.stop.wait(_RETRY_SECONDS)
            except (OSError, RuntimeError) as error:
                if polling:
                    self._report(f"{place} cannot be watched: {error}")
                    self.stop.wait(_RETRY_SECONDS)
                else:
                    polling = True
                    log.warning(
                        "the system cannot tell of changes in %s (%s); looking at all files every"
                        " few seconds instead. If the limit on watches is reached, raise"
                        " fs.inotify.max_user_watches",
                        place,
                        error,
                    )

    def _is_built(self) -> bool:
        engine = self.tasks.engine
        return engine.ready and not engine.builder.unfinished()

    def _lack(self, place: Path, identity: Identity | None) -> None:
        """Wait a moment for the first build, or for the folder."""
        if identity is None and self.state != "away":
            self.state = "away"
            log.warning("%s is not there; its pictures stay in the index until it is back", place)
        self.stop.wait(_AWAY_SECONDS if identity is None else _WAIT_SECONDS)

    def _follow(self, place: Path, identity: Identity, polling: bool) -> None:
        """Follow one folder until it goes away or another one is in its place."""
        if self.state == "away":
            log.info("%s is back", place)
        self._next = 0.0  # nobody has watched until now
        for changed in self.events(place, polling, self.stop):
            self.state = "polling" if polling else "watching"
            if self.stop.is_set() or identity_of(place) != identity:
                return
            if changed or time.monotonic() >= self._next:
                self._look()

    def _look(self) -> None:
        """Sync what differs from the last look."""
        began = time.monotonic()
        try:
            seen, growing = self._files()
        except (CorpusError, OSError) as error:
            self._report(str(error))
            self._later()
            return
        # Without the wait for other jobs, which may be long.
        took = time.monotonic() - began
        few = self._seen is not None and len(np.setxor1d(seen, self._seen)) <= _FEW
        self._next = time.monotonic() + _LOOK_SECONDS
        if growing:
            self._next = time.monotonic() + _STILL_SECONDS
        elif not self._again and self._seen is not None and np.array_equal(seen, self._seen):
            return
        self._again = False
        job = self._sync(Task("sync", leave=tuple(sorted(growing))), few)
        if job is None:
            return
        self._seen = seen
        counts = job.result or {}
        if job.state == "succeeded":
            self.last = Synced(job.id, job.finished or time.time(), counts)
            self.synced(self.last)
            self.problem = None
        else:
            self._report(job.error or f"job {job.id} was {job.state}")
        if job.state != "succeeded" or counts.get("unreachable"):
            self._later()
        else:
            self._retry = _RETRY_SECONDS
        # A large corpus takes long to look at, and searches come first.
        self.stop.wait(min(took, _RETRY_SECONDS))

    def _files(self) -> tuple[NDArray[np.int64], set[str]]:
        """What may change of each picture, as codes, ascending; and which are still being written.

        Those are left for the next look.
        """
        items = self.tasks.engine.corpus.scan().items
        codes = np.array([_code(item) for item in items], np.int64)
        if self._seen is None:
            recent = time.time_ns() - _RECENT_NS
            new = [i.stamp is not None and i.stamp.modified_ns > recent for i in items]
        else:
            new = (~np.isin(codes, self._seen)).tolist()
        sources = [item.source for item, one in zip(items, new, strict=True) if one]
        growing = self._growing(sources)
        kept = [item.source not in growing for item in items] if growing else slice(None)
        return np.unique(codes[kept]), growing

    def _growing(self, sources: list[str]) -> set[str]:
        """Those whose file changes within a moment."""
        place = place_of(self.tasks.engine.corpus)
        if place is None or not sources:
            return set()
        before = {source: file_stamp(place / source) for source in sources}
        self.stop.wait(_STILL_SECONDS)
        return {source for source, stamp in before.items() if file_stamp(place / source) != stamp}

    def _sync(self, task: Task, few: bool) -> Job | None:
        """The job that does the task, once it has ended; None if the server stops before."""
        job = None
        while not self.stop.is_set():
            try:
                job = job or self.tasks.start(task, here=few)
                now = self.tasks.jobs.own(job.id) or job
                if now.finished is not None:
                    return now
            except (JobRunningError, StoreBusyError):
                pass  # it is waited for
            except (NoSpaceError, CatalogueError) as error:
                self._report(str(error))
                self._later()
                return None
            self.stop.wait(0.1 if job else _WAIT_SECONDS)
        return None

    def _later(self) -> None:
        """Sync again after a while, even without changes, and then less and less often."""
        self._again = True
        self._next = time.monotonic() + self._retry
        self._retry = min(2 * self._retry, _LONGEST_RETRY_SECONDS)

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("the index does not follow the corpus now: %s", problem)
        self.problem = problem

    def summary(self) -> dict[str, Any]:
        """The state as JSON values, for ``GET /v1/index``."""
        last = self.last
        return {
            "state": self.state,
            "last_sync": None if last is None else last.ended,
            "counts": {} if last is None else last.counts,
            "problem": self.problem,
        }


def _code(item: Item) -> int:
    """Of the file, and of what a table says of it."""
    payload = repr(item.payload) if item.payload else ""
    return hash((item.source, item.stamp, item.label, item.split, item.tags, payload))


def watched(folder: Path, polling: bool, stop: threading.Event) -> Iterator[bool]:
    """The `Events` of the operating system, in batches: after a moment without further ones."""
    # Slow to import, and only a server that watches needs it.
    from watchfiles import watch

    found = watch(
        folder,
        watch_filter=None,
        stop_event=stop,
        rust_timeout=1_000,
        yield_on_timeout=True,
        force_polling=polling,
        poll_delay_ms=_POLL_MS,
        ignore_permission_denied=True,
    )
    for changes in found:
        yield bool(changes)
