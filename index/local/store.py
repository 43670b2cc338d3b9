"""The store on one machine: catalogue in SQLite, index in FAISS, added pictures in files."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from index.ann import kinds
from index.ann.vector_files import workspace
from index.blobs.folder import FolderBlobs
from index.contract import (
    Blobs,
    Finding,
    GenerationError,
    JobControl,
    Manifest,
    Model,
    Purged,
    Searchable,
    Snapshot,
    SnapshotError,
    UnknownSnapshotError,
)
from index.local import generations, snapshots
from index.local.caches import EntryCache, SelectionCache
from index.local.catalogue import SqliteCatalogue
from index.local.history import Moment
from index.local.lock import check_free, store_lock
from index.local.serving import LocalServedIndex
from index.temporaries import remove_orphans


@dataclass(frozen=True)
class CacheSizes:
    """How much of the catalogue stays in memory.

    Attributes:
        entries: the number of pictures whose labels and payloads are cached.
        selections: the number of filters, and of groupings, whose results are cached.
    """

    entries: int = 20_000
    selections: int = 16


def catalogue_path(root: Path) -> Path:
    """The path of the catalogue of the store in the folder ``root``."""
    return root / "catalogue.sqlite"


class LocalSnapshots:
    """Implements `index.contract.Snapshots` in a store's folder."""

    def __init__(self, root: Path, catalogue: SqliteCatalogue, blobs: Blobs) -> None:
        self._root = root
        self._catalogue = catalogue
        self._blobs = blobs

    def create(self, name: str | None = None, *, allow_missing: bool = False) -> Snapshot:
        self._catalogue.check_writable()
        return snapshots.create(
            self._root, self._catalogue, name, blobs=self._blobs, allow_missing=allow_missing
        )

    def names(self) -> list[str]:
        return snapshots.names(self._root)

    def read(self, name: str) -> Snapshot:
        return snapshots.read(self._root, name)

    def restore(self, name: str, *, allow_missing: bool = False) -> tuple[Snapshot, int, int]:
        self._catalogue.check_writable()
        return snapshots.restore(
            self._root, self._catalogue, name, blobs=self._blobs, allow_missing=allow_missing
        )

    def remove(self, name: str) -> None:
        self._catalogue.check_writable()
        snapshots.remove(self._root, name)

    def referring(self, content_hashes: set[str]) -> dict[str, list[str]]:
        return snapshots.referring(self._root, content_hashes)

    def content_hashes(self, seen: set[str] | None = None) -> set[str]:
        return snapshots.content_hashes(self._root, seen)

    def next_size(self) -> int:
        return catalogue_path(self._root).stat().st_size

    def holding(self, purged: Purged) -> dict[str, int]:
        return snapshots.holding(self._root, purged)


class LocalStore(Generic[Model]):
    """Implements `index.contract.Store` in a folder, which is created if needed."""

    parallel = False

    def __init__(
        self,
        root: Path,
        model_of: Callable[[str], Model | None],
        blobs: Blobs | None = None,
        cache_sizes: CacheSizes = CacheSizes(),
    ) -> None:
        """Open the store.

        Args:
            root: the folder.
            model_of: returns the model with a digest; None if this process does not have it.
            blobs: where the bytes of added pictures are; None for a folder in ``root``.
            cache_sizes: how much of the catalogue is cached.

        Raises:
            CatalogueError: the catalogue is damaged or has a newer format.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        future = _moments(root)  # before the catalogue is read, because others may write
        self.catalogue = SqliteCatalogue(catalogue_path(root))
        self.catalogue.note_future(future)
        self.blobs: Blobs = blobs or FolderBlobs(root / "pictures")
        self.entries = EntryCache(self.catalogue, cache_sizes.entries)
        self.selections = SelectionCache(self.catalogue, cache_sizes.selections)
        self.served: LocalServedIndex[Model] = LocalServedIndex(
            root, self.catalogue, model_of, self.entries
        )
        self.snapshots = LocalSnapshots(root, self.catalogue, self.blobs)

    @property
    def name(self) -> str:
        return f"the store in {self.root}"

    @property
    def read_only(self) -> bool:
        return self.catalogue.read_only

    @property
    def catalogue_name(self) -> str:
        return str(catalogue_path(self.root))

    def lock(self, job: str = "") -> AbstractContextManager[None]:
        self.catalogue.check_writable()
        return store_lock(self.root, job)

    def check_free(self) -> None:
        self.catalogue.check_writable()
        check_free(self.root)

    def check_kind(self, kind: str, dimension: int, count: int | None = None) -> None:
        kinds.check(kind, dimension, count)

    def publish(
        self, model_digest: str, dimension: int, kind: str, control: JobControl = JobControl()
    ) -> Manifest | None:
        # The catalogue is read once, in pieces, and its connection released before training.
        with workspace(self.root) as folder:
            with self.catalogue.reading_embeddings(model_digest) as stored:
                kinds.check(kind, dimension, stored.count)
                control.progress("indexing", 0, stored.count)
                collected = kinds.collect(stored.pieces, stored.count, dimension, kind, folder)
            index = kinds.build_collected(collected)
            if control.cancelled():
                return None
            manifest = generations.publish(
                self.root, index, model_digest, stored.moment, self.catalogue.trash.purged()
            )
        self.served.adopt(index, manifest)
        control.progress("indexing", stored.count, stored.count)
        return manifest

    def holds_purged(self) -> bool:
        purged = self.catalogue.trash.purged()
        return any(made.sequence < purged for made in generations.manifests(self.root))

    def verify(self) -> list[Finding]:
        findings = generations.verify(self.root, self.catalogue.history, self._agrees)
        try:
            generations.check_current(self.root)
        except GenerationError as error:
            findings.append(Finding("CURRENT", str(error)))
        for name in snapshots.names(self.root):
            try:
                snapshots.verify(self.root, name)
                findings.append(Finding(f"snapshot {name}"))
            except UnknownSnapshotError:
                pass  # just deleted
            except SnapshotError as error:
                findings.append(Finding(f"snapshot {name}", str(error)))
        findings.append(Finding("catalogue", self.catalogue.check()))
        return findings

    def _agrees(self, index: Searchable, manifest: Manifest) -> bool:
        """For `generations.verify`; of another model's generation, the catalogue knows nothing."""
        if manifest.model_digest != self.catalogue.model():
            return True
        return self.catalogue.agrees(index, manifest.sequence, manifest.model_digest)

    def remove_orphans(self) -> int:
        folders = (self.root, self.root / "generations", self.root / "snapshots")
        return sum(map(remove_orphans, folders)) + self.blobs.remove_orphans()

    def status(self) -> Mapping[str, Any]:
        manifest = generations.read_manifest(self.root)
        return {
            "store": str(self.root),
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


def _moments(root: Path) -> list[tuple[str, Moment]]:
    """The states of the catalogue that generations and snapshots hold, each with its place."""
    found = [
        (f"generation {manifest.generation}", Moment(manifest.epoch, manifest.sequence))
        for manifest in generations.manifests(root)
    ]
    for name in snapshots.names(root):
        with suppress(SnapshotError):
            snapshot = snapshots.read(root, name)
            found.append((f"the snapshot {name!r}", Moment(snapshot.epoch, snapshot.sequence)))
    return found
