"""The store on this machine: the catalogue in SQLite, the index in FAISS, the pictures in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed.encoder import PictureEncoder
from index import archives, kinds, snapshots
from index.archives import Snapshot, UnknownSnapshotError
from index.blobs import Blobs
from index.building import workspace
from index.catalogue import Catalogue
from index.entries import EntryCache
from index.manifest import Manifest, SnapshotError
from index.selections import Selections
from index.served import ServedIndex
from index.stores import Finding, Pictures, Progress
from search_api.store import check_free, store_lock

ModelOf = Callable[[str], PictureEncoder | None]
"""Gives the model with a digest; None where this process cannot have it."""


@dataclass(frozen=True)
class Cached:
    """How much of the catalogue stays in memory.

    Attributes:
        entries: pictures whose labels and payloads are kept.
        selections: filters, and groupings, of which is kept what they pick.
    """

    entries: int = 20_000
    selections: int = 16


def catalogue_path(var: Path) -> Path:
    """Where the store in ``var`` keeps its catalogue."""
    return var / "catalogue.sqlite"


class LocalSnapshots:
    """The snapshots in one store's folder."""

    def __init__(self, var: Path, catalogue: Catalogue) -> None:
        self._var = var
        self._catalogue = catalogue

    def create(self, name: str | None = None) -> Snapshot:
        return archives.create(self._var, self._catalogue, name)

    def names(self) -> list[str]:
        return archives.names(self._var)

    def read(self, name: str) -> Snapshot:
        return archives.read(self._var, name)

    def restore(self, name: str) -> tuple[Snapshot, int, int]:
        return archives.restore(self._var, self._catalogue, name)

    def remove(self, name: str) -> None:
        archives.remove(self._var, name)

    def content_hashes(self) -> set[str]:
        return archives.content_hashes(self._var)


class LocalStore:
    """Keeps the `index.stores.Store` contract in the folder ``var``, which is made if needed."""

    parallel = False

    def __init__(
        self,
        var: Path,
        model_of: ModelOf,
        pictures: Pictures | None = None,
        cached: Cached = Cached(),
    ) -> None:
        """Open the store.

        Args:
            var: the folder.
            model_of: gives the models that may serve.
            pictures: where the bytes of added pictures are; None for a folder in ``var``.
            cached: how much of the catalogue is kept in memory.

        Raises:
            CatalogueError: the catalogue is damaged or of a newer format.
        """
        var.mkdir(parents=True, exist_ok=True)
        self.var = var
        self.catalogue = Catalogue(catalogue_path(var))
        self.pictures: Pictures = pictures or Blobs(var / "pictures")
        self.entries = EntryCache(self.catalogue, cached.entries)
        self.selections = Selections(self.catalogue, cached.selections)
        self.served: ServedIndex[PictureEncoder] = ServedIndex(
            var, self.catalogue, model_of, self.entries
        )
        self.snapshots = LocalSnapshots(var, self.catalogue)

    @property
    def name(self) -> str:
        return f"the store in {self.var}"

    @property
    def record(self) -> str:
        return str(catalogue_path(self.var))

    def lock(self, job: str = "") -> AbstractContextManager[None]:
        return store_lock(self.var, job)

    def check_free(self) -> None:
        check_free(self.var)

    def check_kind(self, kind: str) -> None:
        kinds.check(kind, self.served.dimension or 64)

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Manifest | None:
        # The catalogue is read once, in pieces, and not held while the index is trained.
        with workspace(self.var) as folder:
            with self.catalogue.reading_embeddings(model_digest) as stored:
                progress("indexing", 0, stored.count)
                collected = kinds.collect(stored.pieces, stored.count, dimension, kind, folder)
            index = kinds.build_collected(collected)
            if cancelled():
                return None
            manifest = snapshots.publish(self.var, index, model_digest, stored.sequence)
        self.served.take_up(index, manifest)
        progress("indexing", stored.count, stored.count)
        return manifest

    def verify(self) -> list[Finding]:
        findings = [
            Finding(f"generation {found.generation}", found.problem)
            for found in snapshots.verify(self.var)
        ]
        try:
            snapshots.check_current(self.var)
        except SnapshotError as error:
            findings.append(Finding("CURRENT", str(error)))
        for name in archives.names(self.var):
            try:
                archives.verify(self.var, name)
                findings.append(Finding(f"snapshot {name}"))
            except UnknownSnapshotError:
                pass  # deleted meanwhile
            except SnapshotError as error:
                findings.append(Finding(f"snapshot {name}", str(error)))
        findings.append(Finding("catalogue", self.catalogue.check()))
        return findings

    def status(self) -> Mapping[str, Any]:
        manifest = snapshots.read_manifest(self.var)
        return {
            "store": str(self.var),
            "corpus": self.catalogue.get_meta("corpus"),
            "pictures": self.catalogue.count(),
            "indexed": manifest.count,
            "generation": manifest.generation,
            "built": manifest.created,
            "kind": manifest.kind,
            "dimension": manifest.dimension,
            "model": manifest.model_digest,
            "labels": self.catalogue.label_counts(),
            "splits": self.catalogue.split_counts(),
        }

    def close(self) -> None:
        self.catalogue.close()
