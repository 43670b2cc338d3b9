"""The trash of a store: how long deleted pictures can come back, and deleting them for good."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from index.contract import BlobsBusyError, Catalogue, SnapshotError, Store, Trashed, Undeleted
from search_api.service.storage.quotas import StorageQuotas
from search_api.settings import Quotas

log = logging.getLogger(__name__)

_DAY = 86_400
_PAGE = 10_000
_UNSWEPT = "unswept"


@dataclass(frozen=True)
class PurgeReport:
    """What was deleted for good: ``purged`` pictures, and the ``files`` of added ones.

    ``kept_by``: snapshot to how many of these pictures it still holds, with their files.
    ``pending``: whether something still waits to be removed, which is tried again every minute, or
    after a day where an object store spares what is younger.
    ``indexed``: whether files of the index may hold their embeddings until the next compaction.
    """

    purged: int
    files: int
    kept_by: Mapping[str, int]
    pending: bool
    indexed: bool


@dataclass(frozen=True)
class TrashService:
    """Restores and purges the deleted pictures of one store, within its quotas.

    Attributes:
        store: the store.
        storage: the store's quotas.
    """

    store: Store[Any]
    storage: StorageQuotas

    @property
    def quotas(self) -> Quotas:
        """How long, and how much, the trash keeps."""
        return self.storage.quotas

    @property
    def catalogue(self) -> Catalogue:
        """The store's catalogue."""
        return self.store.catalogue

    def expiry(self, deleted: float) -> float | None:
        """Until when something deleted at that time can be restored, in seconds since 1970.

        None if a delete is final: without a trash, or with ``trash_days`` of 0.
        """
        if not self.catalogue.trash.available or not self.quotas.trash_days:
            return None
        return deleted + self.quotas.trash_days * _DAY

    def all(self) -> list[Trashed]:
        """Everything in the trash, by ascending id."""
        found: list[Trashed] = []
        while True:
            page = self.catalogue.trash.page(found[-1].entry.id if found else -1, _PAGE)
            found += page
            if len(page) < _PAGE:
                return found

    def restore(self, ids: Sequence[int] | None) -> Undeleted:
        """Restore these pictures, or with None those of the last delete.

        Raises:
            UnknownIdError: an id is not in the trash; nothing is restored.
            RestoreConflictError: none can come back; see `index.contract.Trash.restore`.
            QuotaError: they would exceed the quota of added pictures.
            NoSpaceError: the disk has too little free space.
            EngineCannotError: the store has no trash.
        """
        self.storage.check_room()
        trash = self.catalogue.trash
        return trash.restore(trash.last() if ids is None else ids, self.storage.added)

    def purge(self, ids: Sequence[int] | None) -> PurgeReport:
        """Delete these pictures, or with None all in the trash, for good, with their files.

        Ids that are not in the trash are ignored. The record and the embedding leave the catalogue,
        and the bytes the store, unless something else needs them.

        Raises:
            EngineCannotError: the store has no trash.
        """
        if self.catalogue.trash.available:
            # Before anything is removed, so that an interrupted purge is completed later.
            mark_unswept(self.catalogue)
        purged = self.catalogue.trash.purge(ids)
        files = sweep(self.store)
        if not purged.complete:
            mark_unswept(self.catalogue)
        pending = self.catalogue.get_meta(_UNSWEPT) == "now"
        if purged.content_hashes and self.store.blobs.folder is None:
            pending = True
        kept_by = self.store.snapshots.holding(purged) if purged.ids else {}
        indexed = bool(purged.ids) and self.store.holds_purged()
        return PurgeReport(len(purged.ids), files, kept_by, pending, indexed)

    def settle(self) -> None:
        """After a delete: purge what exceeds the trash's quotas."""
        quotas = self.quotas
        if not quotas.trash_days or quotas.max_trash_pictures or quotas.max_trash_bytes:
            self.expire()

    def expire(self) -> int:
        """Purge what is older than ``trash_days`` or exceeds the quotas; return how many.

        Also completes purges that were interrupted, and removes what only a deleted snapshot kept.
        """
        trash, quotas = self.catalogue.trash, self.quotas
        if not trash.available:
            return 0
        before = time.time() - quotas.trash_days * _DAY
        old = trash.surplus(before, quotas.max_trash_pictures, quotas.max_trash_bytes)
        if old:
            log.info("deleting %d pictures from the trash for good", len(old))
            return self.purge(old).purged
        if unswept(self.catalogue):
            self.purge([])
        return 0


def mark_unswept(catalogue: Catalogue) -> None:
    """Record that bytes may have lost what refers to them, until `sweep` has been done."""
    catalogue.set_meta(_UNSWEPT, "now")


def unswept(catalogue: Catalogue) -> bool:
    """Whether a `sweep` is still to be done.

    Each is repeated after a day, because an object store spares what is younger.
    """
    state = catalogue.get_meta(_UNSWEPT) or "no"
    return state == "now" or (state.isdecimal() and time.time() - int(state) > _DAY)


def sweep(store: Store[Any]) -> int:
    """Remove the bytes that neither the catalogue, its trash nor a snapshot needs; return how many.

    If something prevents it, this is logged, and the bytes stay until the next time.
    """

    seen: set[str] = set()
    kept: set[str] = set()

    def needed() -> set[str]:
        # Each snapshot is read once, so that the second call is quick.
        kept.update(store.snapshots.content_hashes(seen))
        return kept | store.catalogue.content_hashes("added")

    state = store.catalogue.get_meta(_UNSWEPT)
    due = unswept(store.catalogue)
    try:
        removed = store.blobs.sweep(needed)
    except (BlobsBusyError, SnapshotError, OSError) as error:
        log.warning("unused bytes of added pictures are kept: %s", error)
        return 0
    store.catalogue.measure(store.blobs.size)
    if due:
        store.catalogue.set_meta(_UNSWEPT, str(int(time.time())) if state == "now" else "no")
    if removed:
        log.info("removed the bytes of %d deleted pictures", removed)
    return removed


def remove_snapshot(store: Store[Any], name: str) -> None:
    """Delete a snapshot; what only it kept is removed by the next `TrashService.expire`."""
    store.snapshots.remove(name)
    mark_unswept(store.catalogue)
