"""The store on Milvus: assembles the parts of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic

from index.contract import (
    Blobs,
    EngineCannotError,
    Finding,
    JobControl,
    Manifest,
    Model,
    Purged,
    Snapshot,
)
from index.milvus.catalogue import MilvusCatalogue
from index.milvus.connection import Connection
from index.milvus.generations import Generations, check_kind
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.matching import Matching
from index.milvus.publishing import Publisher
from index.milvus.rows import EMBEDDED
from index.milvus.serving import MilvusServedIndex
from index.milvus.settings import MilvusSettings


class MilvusSnapshots:
    """Unsupported: Milvus has its own tools for backups."""

    def create(self, name: str | None = None, *, allow_missing: bool = False) -> Snapshot:
        raise _refused()

    def names(self) -> list[str]:
        return []

    def read(self, name: str) -> Snapshot:
        raise _refused()

    def restore(self, name: str, *, allow_missing: bool = False) -> tuple[Snapshot, int, int]:
        raise _refused()

    def remove(self, name: str) -> None:
        raise _refused()

    def referring(self, content_hashes: set[str]) -> dict[str, list[str]]:
        return {}

    def content_hashes(self, seen: set[str] | None = None) -> set[str]:
        return set()

    def next_size(self) -> int:
        return 0

    def holding(self, purged: Purged) -> dict[str, int]:
        return {}


class MilvusStore(Generic[Model]):
    """Implements `index.contract.Store`; any number of processes on any machines may open it."""

    parallel = True
    read_only = False

    def __init__(
        self,
        settings: MilvusSettings,
        model_of: Callable[[str], Model | None],
        blobs: Blobs,
        lease_seconds: float = 30.0,
    ) -> None:
        """Connect.

        Args:
            settings: where Milvus is.
            model_of: returns the model with a digest; None if this process does not have it.
            blobs: where the bytes of added pictures are, for all processes.
            lease_seconds: a process that has not renewed its lease for this long counts as dead.

        Raises:
            IndexInputError: `pymilvus` is not installed.
            MilvusUnavailableError: Milvus does not respond.
        """
        self.settings = settings
        self.blobs = blobs
        self._connection = Connection(settings)
        self._ledger = Ledger(self._connection)
        self._generations = Generations(self._connection, self._ledger)
        self._writing = Lease(self._connection, "writer", lease_seconds)
        self._building = Lease(self._connection, "builder", lease_seconds)
        self.catalogue = MilvusCatalogue(
            self._connection, self._ledger, self._generations, self._writing
        )
        # Nothing is cached, because other processes write without telling this one.
        self.entries = self.selections = self.catalogue
        self.served: MilvusServedIndex[Model] = MilvusServedIndex(
            self._connection, self._generations, self.catalogue, model_of
        )
        self.snapshots = MilvusSnapshots()
        self._publisher = Publisher(
            self._connection, self._ledger, self._generations, self.catalogue, self._writing
        )

    @property
    def name(self) -> str:
        return f"the store {self.settings.prefix!r} in Milvus"

    @property
    def catalogue_name(self) -> str:
        return self.name

    @contextmanager
    def lock(self, job: str = "") -> Iterator[None]:
        with self._building.hold(job, wait=0):
            yield

    def check_free(self) -> None:
        self._building.check_free()

    def check_kind(self, kind: str, dimension: int, count: int | None = None) -> None:
        check_kind(kind)

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        control: JobControl = JobControl(),
    ) -> Manifest | None:
        generation = self._publisher.publish(model_digest, dimension, kind, control)
        if generation is None:
            return None
        return self.served.load(model_digest)[0]

    def holds_purged(self) -> bool:
        return False

    def verify(self) -> list[Finding]:
        """Read and parse every row."""
        generation = self._generations.require()
        findings = [Finding(f"Milvus {self._connection.version()}")]
        problem = None
        number = 0
        try:
            for entries in Matching(self._connection, generation.name, None).entries():
                number += len(entries)
        except Exception as error:  # noqa: BLE001 - any error is a finding
            problem = str(error)
        if problem is None and number != (stored := self._connection.count(generation.name)):
            problem = f"{number} rows can be read, but Milvus counts {stored}; try again"
        findings.append(Finding(f"generation {generation.number}", problem))
        return findings

    def remove_orphans(self) -> int:
        """Collections of killed builders are dropped by the next one, which holds the lease."""
        return self.blobs.remove_orphans()

    def status(self) -> Mapping[str, Any]:
        generation = self._generations.require()
        return {
            "store": self.name,
            "corpus": self.catalogue.get_meta("corpus"),
            "pictures": self.catalogue.count(),
            "indexed": self._connection.count(generation.name, EMBEDDED),
            "generation": generation.number,
            "built": generation.created,
            "kind": generation.kind,
            "dimension": generation.dimension,
            "model": generation.model,
            "labels": self.catalogue.label_counts(),
            "splits": self.catalogue.split_counts(),
        }

    def close(self) -> None:
        self._connection.close()


def _refused() -> EngineCannotError:
    return EngineCannotError(
        "a store in Milvus has no snapshots; back it up with milvus-backup or your Milvus provider,"
        " together with the added pictures"
    )
