"""What a store offers to whoever serves it, whichever engine keeps it.

`search_api.local_store` puts one together from SQLite and FAISS, `index.milvus.store` from Milvus.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.archives import Snapshot
from index.catalogue import KEEP, Keep
from index.filters import Filter
from index.grouping import Members
from index.manifest import Manifest
from index.neighbours import Ids, IdsLike, Searchable, Vectors
from index.payload import Payload
from index.records import Entry, Origin, Record

Model = TypeVar("Model")
Progress = Callable[[str, int, int], None]
"""Told of (stage, done, total)."""


class StoreBusyError(RuntimeError):
    """Another process, or another thread of this one, is building in the store.

    ``job`` is the id of the job that does, where a server runs it.
    """

    def __init__(self, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job


class EngineCannotError(Exception):
    """The engine that keeps the store does not have what was asked for."""


class StateGoneError(Exception):
    """What was searched has been replaced as a whole meanwhile; ask for the present state."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one part of a store; ``problem`` is None where it is good."""

    part: str
    problem: str | None = None


class Staged(Protocol):
    """Embeddings of models that do not serve yet; see `index.staging.Staging`."""

    def add(self, ids: IdsLike, embeddings: Vectors, model_digest: str) -> int: ...

    def missing(self, model_digest: str) -> Ids: ...

    def counts(self) -> dict[str, int]: ...

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]: ...

    def promote(self, model_digest: str) -> int: ...


class RecordOfAll(Protocol):
    """What is indexed, and the one place that is written to; see `index.catalogue.Catalogue`."""

    @property
    def staging(self) -> Staged: ...

    def upsert(
        self, records: Sequence[Record], embeddings: Vectors, model_digest: str
    ) -> list[int]: ...

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> int: ...

    def update(
        self,
        ids: IdsLike,
        *,
        label: str | Literal[Keep.KEEP] | None = KEEP,
        split: str | Literal[Keep.KEEP] | None = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
    ) -> int: ...

    def delete(self, ids: IdsLike, *, remember: bool = False) -> int: ...

    def delete_where(self, where: Filter) -> list[int]: ...

    def get(self, ids: IdsLike) -> list[Entry]: ...

    def find(self, ids: IdsLike) -> list[Entry]: ...

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]: ...

    def count(self, where: Filter | None = None) -> int: ...

    def ids(self, where: Filter | None = None) -> Ids: ...

    def matching(self, where: Filter) -> IdsLike:
        """The ids that match, for `Searchable.search`; read only where they are needed."""
        ...

    def members(self, key: str, where: Filter | None = None) -> Members: ...

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]: ...

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]: ...

    def model(self) -> str | None: ...

    def forgotten_sources(self) -> set[str]: ...

    def known_sources(self, model_digest: str) -> dict[str, int]: ...

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]: ...

    def content_hashes(self, origin: Origin) -> set[str]: ...

    def model_digests(self) -> dict[str, int]: ...

    def label_counts(self) -> dict[str, int]: ...

    def split_counts(self) -> dict[str, int]: ...

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...

    def check(self) -> str | None: ...

    def close(self) -> None: ...


class Entries(Protocol):
    """Entries, from memory where the store keeps them there; see `index.entries.EntryCache`."""

    def known(self, id_: int) -> Entry | None:
        """The entry as it is now, where that is known at once; else None."""
        ...

    def get(self, ids: Sequence[int]) -> list[Entry]: ...


class Selected(Protocol):
    """What filters and groupings pick; see `index.selections.Selections`."""

    def matching(self, where: Filter) -> IdsLike: ...

    def members(self, key: str, where: Filter | None = None) -> Members: ...


class Pictures(Protocol):
    """The bytes of added pictures; see `index.blobs.Blobs`."""

    def adding(self) -> AbstractContextManager[None]: ...

    def put(self, data: bytes) -> str: ...

    def get(self, name: str) -> bytes: ...

    def names(self) -> list[str]: ...

    def sweep(self, needed: Callable[[], set[str]]) -> int: ...


class ServedSearchable(Searchable, Protocol):
    """A `Searchable` that answers for a store."""

    @property
    def added(self) -> int:
        """How many vectors were added since it was built and are searched beside it."""
        ...

    @property
    def masked(self) -> int:
        """How many of its vectors are no longer valid."""
        ...

    def everything(self) -> IdsLike:
        """Allowed ids that leave nothing out, and with which a search is as exact as it can be."""
        ...


@dataclass(frozen=True)
class Serving(Generic[Model]):
    """One state to answer from; replaced as a whole, never changed.

    ``model`` makes the queries' embeddings, ``manifest`` is the generation's, ``sequence`` the
    number of the last write that ``index`` holds.
    """

    model: Model
    index: ServedSearchable
    manifest: Manifest
    sequence: int


class Served(Protocol[Model]):
    """What a process answers from; see `index.served.ServedIndex`."""

    @property
    def last(self) -> Serving[Model] | None: ...

    @property
    def dimension(self) -> int | None: ...

    def load(self, model_digest: str) -> tuple[Manifest, str | None]: ...

    def current(self, wait: bool = True) -> Serving[Model]:
        """The state with every write acknowledged before this call.

        ``wait``: for a new generation to be loaded; else the one before may answer meanwhile.
        """
        ...

    def at_hand(self) -> Serving[Model] | None:
        """What `current` would give, where that is known at once; None where it takes a while."""
        ...

    def available(self) -> bool:
        """Whether a search could be answered now."""
        ...

    def entries(self, serving: Serving[Model], ids: IdsLike) -> list[Entry]:
        """The entries that a search of ``serving`` found, in the order given.

        Raises UnknownIdError for those that were deleted meanwhile.
        """
        ...


class Snapshots(Protocol):
    """Snapshots of everything that is indexed; see `index.archives`."""

    def create(self, name: str | None = None) -> Snapshot: ...

    def names(self) -> list[str]: ...

    def read(self, name: str) -> Snapshot: ...

    def restore(self, name: str) -> tuple[Snapshot, int, int]: ...

    def remove(self, name: str) -> None: ...

    def content_hashes(self) -> set[str]: ...


class Store(Protocol[Model]):
    """One store, opened by one process.

    ``parallel``: whether several searches at once are faster than one after the other.
    """

    @property
    def name(self) -> str:
        """What it is and where, for messages."""
        ...

    @property
    def record(self) -> str:
        """Where the catalogue is, for messages."""
        ...

    @property
    def parallel(self) -> bool: ...

    @property
    def catalogue(self) -> RecordOfAll: ...

    @property
    def entries(self) -> Entries: ...

    @property
    def selections(self) -> Selected: ...

    @property
    def pictures(self) -> Pictures: ...

    @property
    def served(self) -> Served[Model]: ...

    @property
    def snapshots(self) -> Snapshots: ...

    def lock(self, job: str = "") -> AbstractContextManager[None]:
        """The right to build; raises StoreBusyError."""
        ...

    def check_free(self) -> None:
        """Raise StoreBusyError if somebody is building now."""
        ...

    def check_kind(self, kind: str) -> None:
        """Raise IndexInputError unless the engine has this kind of index."""
        ...

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Manifest | None:
        """Make a generation from the record and serve it; None if it was cancelled."""
        ...

    def verify(self) -> list[Finding]:
        """Check everything that is stored."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What is stored, without a model."""
        ...

    def close(self) -> None: ...
