"""The right to write, or to build, held by one process at a time, on whatever machine.

Milvus has one operation that fails if another was first: making an alias. Who holds the right has
made the alias, and lets it stand for a small collection of its own, whose name says who it is. The
name changes while the right is held; where it has not for `SECONDS`, the holder is dead, and
whoever waits takes the right. Clocks play no part.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from index.database import CatalogueError
from index.milvus.connection import Connection, MilvusUnavailableError
from index.stores import StateGoneError, StoreBusyError

log = logging.getLogger(__name__)

SECONDS = 30.0
"""How long a holder may be silent."""

_LOOK_SECONDS = 0.05
_SETTLE_SECONDS = 0.3
_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"field_name": "id", "datatype": "INT64", "is_primary": True},
    {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2},
)


class LeaseLostError(CatalogueError):
    """Another process has taken the right, as this one was silent for too long."""


class Lease:
    """One right, ``writer`` or ``builder``; threads of this process take turns too."""

    def __init__(self, connection: Connection, what: str, seconds: float = SECONDS) -> None:
        self._connection = connection
        self._what = what
        self._seconds = seconds
        self._prefix = connection.settings.prefix
        self._alias = f"{self._prefix}_{what}"
        self._own = threading.Lock()
        self._name = ""
        self._changing = threading.Lock()
        self._given_up: set[str] = set()
        self._seen: tuple[str, float] = ("", 0.0)

    @contextmanager
    def held(self, job: str = "", wait: float | None = None) -> Iterator[None]:
        """Hold the right.

        Args:
            job: who holds it, for those who are refused meanwhile.
            wait: seconds to wait for it; None for as long as it takes to tell a dead holder.

        Raises:
            StoreBusyError: another holds it.
        """
        longest = self._seconds * 4 if wait is None else wait
        if not self._own.acquire(timeout=max(longest, 0.001)):
            raise self._busy(self._name)
        try:
            self._take(job, longest)
            ended = threading.Event()
            keeper = threading.Thread(target=self._keep, args=(job, ended), daemon=True)
            keeper.start()
            try:
                yield
            finally:
                ended.set()
                keeper.join()
                self._give_back()
        finally:
            self._own.release()

    def check(self) -> None:
        """Raise LeaseLostError unless this process holds the right still."""
        with self._changing:
            found = self._connection.aliased(self._alias)
            if found != self._name:
                raise LeaseLostError(
                    f"another process took over as {self._what} ({found}); try again"
                )

    def check_free(self) -> None:
        """Raise StoreBusyError if somebody alive holds the right."""
        holder = self._connection.aliased(self._alias)
        if holder is not None and not self._dead(holder):
            raise self._busy(holder)

    def _take(self, job: str, longest: float) -> None:
        self._name = self._made(job)
        until = time.monotonic() + longest
        try:
            while not self._connection.claim(self._alias, self._name):
                holder = self._connection.aliased(self._alias)
                if holder is not None and self._dead(holder):
                    log.warning("taking over as %s from %s, which is silent", self._what, holder)
                    self._connection.point(self._alias, self._name)
                    # Of several that do so at once the last one has it.
                    time.sleep(_SETTLE_SECONDS)
                    if self._connection.aliased(self._alias) == self._name:
                        self._connection.drop(holder)
                        return
                    continue
                if time.monotonic() >= until:
                    raise self._busy(holder or "")
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            self._forget(self._name)
            raise

    def _dead(self, holder: str) -> bool:
        if holder in self._given_up:
            return True
        now = time.monotonic()
        if self._seen[0] != holder:
            self._seen = (holder, now)
        return now - self._seen[1] >= self._seconds

    def _keep(self, job: str, ended: threading.Event) -> None:
        """Change the name from time to time, so that others see that the holder lives."""
        while not ended.wait(self._seconds / 4):
            try:
                fresh = self._made(job)
                with self._changing:
                    if self._connection.aliased(self._alias) != self._name:
                        self._forget(fresh)
                        return
                    self._connection.point(self._alias, fresh)
                    old, self._name = self._name, fresh
                self._forget(old)
            except (CatalogueError, StateGoneError) as error:
                log.warning("the right to be %s cannot be renewed: %s", self._what, error)

    def _give_back(self) -> None:
        try:
            if self._connection.aliased(self._alias) == self._name:
                self._connection.unclaim(self._alias)
        except (MilvusUnavailableError, StateGoneError) as error:
            # Taken for dead at the next look, by this process at once.
            log.warning("the right to be %s cannot be given back: %s", self._what, error)
        self._forget(self._name)

    def _made(self, job: str) -> str:
        who = re.sub(r"[^A-Za-z0-9]", "", f"{os.uname().nodename[:32]}")
        name = f"{self._prefix}_lease_{who}_{os.getpid()}_{_safe(job)}_{uuid.uuid4().hex[:12]}"
        self._connection.create(name, _FIELDS)
        return name

    def _forget(self, name: str) -> None:
        self._given_up.add(name)
        with suppress(MilvusUnavailableError, StateGoneError):
            self._connection.drop(name)

    def _busy(self, holder: str) -> StoreBusyError:
        words = holder.removeprefix(f"{self._prefix}_lease_").split("_")
        host, process, job = words[:3] if len(words) == 4 else ("", "", "")
        who = f"another process ({process} on {host})" if process else "another process"
        doing = f", job {job}" if job else ""
        done = "building the index" if self._what == "builder" else "writing"
        return StoreBusyError(
            f"{who} is {done} in {self._prefix!r} of Milvus{doing}; wait until it is done."
            f" If it has died, its right ends {self._seconds:.0f} seconds after the first try",
            job or None,
        )


def _safe(job: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", job)[:64]
