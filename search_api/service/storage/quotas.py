"""The quotas of a store, and the free space that its disk keeps."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.contract import (
    NoSpaceError,
    Quota,
    QuotaError,
    ReadOnlyError,
    Snapshot,
    SnapshotError,
    Store,
)
from search_api.settings import Quotas


@dataclass(frozen=True)
class Amount:
    """How much of something is ``used``, and how much may be; ``limit`` is 0 for no limit."""

    used: int
    limit: int


class StorageQuotas:
    """Refuses what would exceed the quotas of one store; thread-safe.

    Deleting is always possible, and so is purging.
    """

    def __init__(self, store: Store[Any], var: Path, quotas: Quotas = Quotas()) -> None:
        """Watch the disk of ``var`` and, if it is on this machine, that of the pictures."""
        self._store = store
        self.quotas = quotas
        self._folders = [folder for folder in (var, store.blobs.folder) if folder is not None]
        self._lock = threading.Lock()
        self._taking = 0

    @property
    def added(self) -> Quota:
        """The quota of added pictures."""
        return Quota(self.quotas.max_added_pictures, self.quotas.max_added_bytes)

    def check_room(self, more: int = 0, *, upload: bool = False) -> None:
        """Raise NoSpaceError unless ``more`` bytes leave the least free space on every disk.

        With ``upload``, also on the one where bodies of requests are spooled. Takes microseconds.
        Raises ReadOnlyError where nothing can be written at all.
        """
        if self._store.read_only:
            raise ReadOnlyError(
                f"{self._store.name} is read-only here; searching it works. To change it, use it"
                " where its folder and files can be written, or a copy of it"
            )
        spool = [Path(tempfile.gettempdir())] if upload else []
        for folder in filter(Path.is_dir, [*self._folders, *spool]):
            free, least = self._free(folder)
            if free - more < least:
                raise NoSpaceError(
                    f"{free:,} bytes are free on the disk of {folder.name!r}, {least:,} must stay"
                    f" free, and {more:,} more are needed; nothing is written. Delete pictures for"
                    " good with `lookalike purge`, or snapshots, or lower min_free_bytes"
                )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Check that one more snapshot may be made, and count it while it is in the making.

        Raises:
            QuotaError: there are too many, or they are too large.
            NoSpaceError: the disk has no room for it.
        """
        quotas, size = self.quotas, self._store.snapshots.next_size()
        self.check_room(size)
        with self._lock:
            number, used = (amount.used for amount in self._snapshots())
            number, used = number + self._taking, used + self._taking * size
            if quotas.max_snapshots and number >= quotas.max_snapshots:
                raise QuotaError(
                    f"there are {number:,} snapshots, the quota is {quotas.max_snapshots:,}; delete"
                    " one, or raise max_snapshots"
                )
            if quotas.max_snapshot_bytes and used + size > quotas.max_snapshot_bytes:
                raise QuotaError(
                    f"the snapshots have {used:,} bytes, and {size:,} more exceed the quota of"
                    f" {quotas.max_snapshot_bytes:,}; delete one, or raise max_snapshot_bytes"
                )
            self._taking += 1
        try:
            yield
        finally:
            with self._lock:
                self._taking -= 1

    def create_snapshot(self, name: str | None, **options: Any) -> Snapshot:
        """`Snapshots.create` within the quotas; raises as `snapshot` does."""
        with self.snapshot():
            return self._store.snapshots.create(name, **options)

    def amounts(self) -> dict[str, Amount]:
        """What is used of each quota, from counters and the snapshots' descriptions.

        ``free_bytes`` has the least free space as its limit.
        """
        found: dict[str, Amount] = {}
        usage, quotas = self._store.catalogue.usage(), self.quotas
        if usage is not None:
            for name in ("added_pictures", "added_bytes", "trash_pictures", "trash_bytes"):
                found[name] = Amount(getattr(usage, name), getattr(quotas, f"max_{name}"))
            found["snapshots"], found["snapshot_bytes"] = self._snapshots()
        disks = [self._free(folder) for folder in self._folders if folder.is_dir()]
        if disks:
            found["free_bytes"] = Amount(*min(disks, key=lambda disk: disk[0] - disk[1]))
        return found

    def _snapshots(self) -> tuple[Amount, Amount]:
        snapshots = self._store.snapshots
        names = snapshots.names()
        size = 0
        for name in names:
            with suppress(SnapshotError):  # damaged, or just deleted
                size += snapshots.read(name).size
        quotas = self.quotas
        return Amount(len(names), quotas.max_snapshots), Amount(size, quotas.max_snapshot_bytes)

    def _free(self, folder: Path) -> tuple[int, int]:
        """The free bytes of the folder's disk, and how many must stay free."""
        usage = shutil.disk_usage(folder)
        share = int(self.quotas.min_free_share * usage.total)
        return usage.free, min(self.quotas.min_free_bytes, share)
