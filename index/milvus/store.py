"""The store on Milvus, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic

from index.archives import Snapshot
from index.manifest import Manifest
from index.milvus.connection import Connection, MilvusSettings
from index.milvus.generations import Generations, check_kind
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.matching import Matching
from index.milvus.publishing import Publisher
from index.milvus.record import MilvusRecord
from index.milvus.served import MilvusServed
from index.snapshots import NoGenerationError
from index.stores import EngineCannotError, Finding, Model, Pictures, Progress


class MilvusSnapshots:
    """Refuses: a copy of everything is Milvus's own business."""

    def create(self, name: str | None = None) -> Snapshot:
        raise _refused()

    def names(self) -> list[str]:
        return []

    def read(self, name: str) -> Snapshot:
        raise _refused()

    def restore(self, name: str) -> tuple[Snapshot, int, int]:
        raise _refused()

    def remove(self, name: str) -> None:
        raise _refused()

    def content_hashes(self) -> set[str]:
        return set()


class MilvusStore(Generic[Model]):
    """See `index.stores.Store`; any number of processes, on any machines, may have it open."""

    parallel = True

    def __init__(
        self,
        settings: MilvusSettings,
        model_of: Callable[[str], Model | None],
        pictures: Pictures,
        lease_seconds: float = 30.0,
    ) -> None:
        """Connect.

        Args:
            settings: where Milvus is.
            model_of: gives the models that may serve.
            pictures: where the bytes of added pictures are, for all processes.
            lease_seconds: after so long a silence another process that writes is taken for dead.

        Raises:
            IndexInputError: `pymilvus` is not installed.
            MilvusUnavailableError: Milvus does not answer.
        """
        self.settings = settings
        self.pictures = pictures
        self._connection = Connection(settings)
        self._ledger = Ledger(self._connection)
        self._generations = Generations(self._connection, self._ledger)
        self._writing = Lease(self._connection, "writer", lease_seconds)
        self._building = Lease(self._connection, "builder", lease_seconds)
        self.catalogue = MilvusRecord(
            self._connection, self._ledger, self._generations, self._writing
        )
        # Others write too, and say nothing of it here: what is read is not kept.
        self.entries = self.selections = self.catalogue
        self.served: MilvusServed[Model] = MilvusServed(
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
    def record(self) -> str:
        return self.name

    @contextmanager
    def lock(self, job: str = "") -> Iterator[None]:
        with self._building.held(job, wait=0):
            yield

    def check_free(self) -> None:
        self._building.check_free()

    def check_kind(self, kind: str) -> None:
        check_kind(kind)

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Manifest | None:
        generation = self._publisher.publish(model_digest, dimension, kind, progress, cancelled)
        if generation is None:
            return None
        return self.served.load(model_digest)[0]

    def verify(self) -> list[Finding]:
        """Read every row, and that its fields are whole."""
        generation = self._generations.current()
        if generation is None:
            raise NoGenerationError(f"{self.name} has no index yet; run `lookalike index build`")
        findings = [Finding(f"Milvus {self._connection.version()}")]
        problem = None
        number = 0
        try:
            for entries in Matching(self._connection, generation.name, None).entries():
                number += len(entries)
        except Exception as error:  # noqa: BLE001 - whatever it is, is what was to be found
            problem = str(error)
        if problem is None and number != (stored := self._connection.count(generation.name)):
            problem = f"{number} rows can be read, and Milvus counts {stored}; try again"
        findings.append(Finding(f"generation {generation.number}", problem))
        return findings

    def status(self) -> Mapping[str, Any]:
        generation = self._generations.current()
        if generation is None:
            raise NoGenerationError(f"{self.name} has no index yet; run `lookalike index build`")
        return {
            "store": self.name,
            "corpus": self.catalogue.get_meta("corpus"),
            "pictures": self.catalogue.count(),
            "indexed": self._connection.count(generation.name, "embedded == true"),
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
        "a store in Milvus has no snapshots of its own; use milvus-backup, or the service that"
        " runs your Milvus, and keep the folder of the pictures with it"
    )
