"""Leases: the right to write, or to build, held by one process at a time on any machine.

Milvus has one operation that fails if another process was first: creating an alias. The holder of a
lease has created the alias and points it to a small collection of its own, whose name identifies
the holder. It renews the lease by changing that name. If the name has not changed for `SECONDS`,
the holder counts as dead and a waiting process takes over. No clocks are compared.
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

from index.contract import CatalogueError, StateGoneError, StoreBusyError
from index.milvus.connection import Connection, MilvusUnavailableError

log = logging.getLogger(__name__)

SECONDS = 30.0
"""How long a holder may go without renewing its lease."""

_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 0.3
_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"field_name": "id", "datatype": "INT64", "is_primary": True},
    {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2},
)


class LeaseLostError(CatalogueError):
    """Another process has taken over the lease, because this one did not renew it in time."""


class Lease:
    """One lease, ``writer`` or ``builder``; the threads of a process exclude each other too."""

    def __init__(self, connection: Connection, role: str, seconds: float = SECONDS) -> None:
        self._connection = connection
        self._role = role
        self._seconds = seconds
        self._prefix = connection.settings.prefix
        self._alias = f"{self._prefix}_{role}"
        self._thread_lock = threading.Lock()
        self._name = ""
        self._name_lock = threading.Lock()
        self._discarded: set[str] = set()
        self._last_change: tuple[str, float] = ("", 0.0)

    @contextmanager
    def hold(self, job: str = "", wait: float | None = None) -> Iterator[None]:
        """Hold the lease.

        Args:
            job: id of the job that holds it, shown to others who are refused meanwhile.
            wait: seconds to wait for it; None to wait long enough to detect a dead holder.

        Raises:
            StoreBusyError: another holds it.
        """
        patience = self._seconds * 4 if wait is None else wait
        if not self._thread_lock.acquire(timeout=max(patience, 0.001)):
            raise self._busy(self._name)
        try:
            self._acquire(job, patience)
            ended = threading.Event()
            renewal = threading.Thread(target=self._renew, args=(job, ended), daemon=True)
            renewal.start()
            try:
                yield
            finally:
                ended.set()
                renewal.join()
                self._release()
        finally:
            self._thread_lock.release()

    def check(self) -> None:
        """Raise LeaseLostError unless this process still holds the lease."""
        with self._name_lock:
            found = self._connection.alias_target(self._alias)
            if found != self._name:
                raise LeaseLostError(
                    f"another process took over as {self._role} ({found}); try again"
                )

    def check_free(self) -> None:
        """Raise StoreBusyError if a live process holds the lease."""
        holder = self._connection.alias_target(self._alias)
        if holder is not None and not self._expired(holder):
            raise self._busy(holder)

    def _acquire(self, job: str, patience: float) -> None:
        self._name = self._create(job)
        deadline = time.monotonic() + patience
        try:
            while not self._connection.create_alias(self._alias, self._name):
                holder = self._connection.alias_target(self._alias)
                if holder is not None and self._expired(holder):
                    log.warning("taking over as %s from unresponsive %s", self._role, holder)
                    self._connection.set_alias(self._alias, self._name)
                    # Of several that do so at once, the last one wins.
                    time.sleep(_SETTLE_SECONDS)
                    if self._connection.alias_target(self._alias) == self._name:
                        self._connection.drop(holder)
                        return
                    continue
                if time.monotonic() >= deadline:
                    raise self._busy(holder or "")
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self._discard(self._name)
            raise

    def _expired(self, holder: str) -> bool:
        if holder in self._discarded:
            return True
        now = time.monotonic()
        if self._last_change[0] != holder:
            self._last_change = (holder, now)
        return now - self._last_change[1] >= self._seconds

    def _renew(self, job: str, ended: threading.Event) -> None:
        """Renew the lease periodically."""
        while not ended.wait(self._seconds / 4):
            try:
                new = self._create(job)
                with self._name_lock:
                    if self._connection.alias_target(self._alias) != self._name:
                        self._discard(new)
                        return
                    self._connection.set_alias(self._alias, new)
                    old, self._name = self._name, new
                self._discard(old)
            except (CatalogueError, StateGoneError) as error:
                log.warning("cannot renew the %s lease: %s", self._role, error)

    def _release(self) -> None:
        try:
            if self._connection.alias_target(self._alias) == self._name:
                self._connection.drop_alias(self._alias)
        except (MilvusUnavailableError, StateGoneError) as error:
            # It expires; this process treats it as expired at once.
            log.warning("cannot release the %s lease: %s", self._role, error)
        self._discard(self._name)

    def _create(self, job: str) -> str:
        who = re.sub(r"[^A-Za-z0-9]", "", f"{os.uname().nodename[:32]}")
        name = f"{self._prefix}_lease_{who}_{os.getpid()}_{_safe(job)}_{uuid.uuid4().hex[:12]}"
        self._connection.create(name, _FIELDS)
        return name

    def _discard(self, name: str) -> None:
        self._discarded.add(name)
        with suppress(MilvusUnavailableError, StateGoneError):
            self._connection.drop(name)

    def _busy(self, holder: str) -> StoreBusyError:
        words = holder.removeprefix(f"{self._prefix}_lease_").split("_")
        host, process, job = words[:3] if len(words) == 4 else ("", "", "")
        who = f"another process ({process} on {host})" if process else "another process"
        doing = f", job {job}" if job else ""
        done = "building the index" if self._role == "builder" else "writing"
        return StoreBusyError(
            f"{who} is {done} in {self._prefix!r} of Milvus{doing}; wait until it is done."
            f" If it has died, its lease expires {self._seconds:.0f} seconds after the first try",
            job or None,
        )


def _safe(job: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", job)[:64]
