"""The contract of a store, whichever engine implements it: data types, protocols and errors.

`index.local.store` implements it with SQLite and FAISS on one machine, `index.milvus.store` with
Milvus on many. Callers depend on this file alone; it imports no engine.

Notation: ``d`` is the dimension, ``n`` the number of stored vectors, ``nq`` the number of queries
and ``k`` the number of neighbours requested. All vectors are float32 and L2-normalised, so the
inner product is the cosine similarity.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.conditions import Filter
from index.records import Entry, Origin, Payload, PayloadBounds, Record, Scalar, Stamp
from index.scans import FilterScans
from index.sorting import OrderBy, Sorted, SortPosition

Model = TypeVar("Model")

Ids: TypeAlias = NDArray[np.int64]
Vectors: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float32]
IdsLike: TypeAlias = NDArray[np.integer] | Sequence[int]

# FAISS aborts the whole process when asked for a very large k, so no engine accepts one.
MAX_K = 16384
MAX_DIMENSION = 65536
NO_ID = -1
MANIFEST_VERSION = 2
EARLIER_CORPUS_NAMES = "corpus_earlier_names"
"""Name in a catalogue's meta of a JSON list: what the corpus was called before it was moved."""
_SHOWN = 10


# Errors: wrong input


class IndexInputError(ValueError):
    """A caller passed a value that the index cannot use."""


class FilterError(IndexInputError):
    """A filter is malformed; the message names the faulty part and what was expected."""


class UnknownKindError(ValueError):
    """A kind of index that this version of Lookalike does not know."""


class UnknownIdError(KeyError):
    """Ids that are not stored. ``ids`` holds all of them; the message names the first ten."""

    def __init__(self, ids: Sequence[int], where: str) -> None:
        self.ids = tuple(int(i) for i in ids)
        shown = ", ".join(str(i) for i in self.ids[:_SHOWN])
        more = f" and {len(self.ids) - _SHOWN} more" if len(self.ids) > _SHOWN else ""
        self.message = f"{where} has no such id: {shown}{more}"
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return self.message


class EngineCannotError(Exception):
    """The engine that keeps the store does not support the operation."""


# Errors: not possible now


class StoreBusyError(RuntimeError):
    """Another process, or another thread of this one, is building in the store.

    ``job`` is the id of the job that is building, where a server runs it.
    """

    def __init__(self, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job


class ModelChangedError(Exception):
    """The store has switched to a model other than the one that the caller embedded with."""


class StateGoneError(Exception):
    """The state that was searched has since been replaced; use the current one."""


class CancelledError(RuntimeError):
    """The caller cancelled the work."""


class RestoreConflictError(Exception):
    """Deleted pictures cannot come back: their sources are stored again. ``ids`` are theirs."""

    def __init__(self, conflicts: "Mapping[int, int]") -> None:
        self.ids = tuple(conflicts)
        shown = ", ".join(f"{i} (now {other})" for i, other in list(conflicts.items())[:_SHOWN])
        super().__init__(
            "cannot restore what has been added again under the same key or source meanwhile: "
            f"{shown}; delete the newer picture first, or leave this one in the trash"
        )


# Errors: there is no room


class QuotaError(Exception):
    """Something would exceed a quota, and nothing of it was stored; the message says which."""


# Errors: something is missing or damaged


class CatalogueError(Exception):
    """The catalogue cannot be used; the message names it and says what to do."""


class NoSpaceError(CatalogueError):
    """There is no room to write; nothing was stored, and what is stored stays usable."""


class ReadOnlyError(CatalogueError):
    """The store can only be read where it is; nothing was stored."""


class BlobError(Exception):
    """The bytes of a picture are missing or damaged; the message names the file."""


class BlobsBusyError(Exception):
    """Bytes cannot be removed now, because somebody holds them; try again later."""


class IndexFileError(Exception):
    """A file does not hold a readable index."""


class GenerationError(Exception):
    """A generation cannot be used; the message names the file and the remedy."""


class GenerationCorruptError(GenerationError):
    """A file of a generation is missing or damaged."""


class GenerationAheadError(GenerationError):
    """A generation holds writes that the catalogue lacks, or is of another history."""


class GenerationFormatError(GenerationError):
    """A generation is intact, but in a format that this version of Lookalike cannot read."""


class NoGenerationError(GenerationError):
    """No index has been built yet."""


class ModelMismatchError(GenerationError):
    """The generation was made by a model other than the requested one."""


class SnapshotError(Exception):
    """A snapshot cannot be used; the message names it and the remedy."""


class SnapshotCorruptError(SnapshotError):
    """A file of a snapshot is missing or damaged."""


class SnapshotFormatError(SnapshotError):
    """A snapshot is intact, but in a format that this version of Lookalike cannot read."""


class UnknownSnapshotError(SnapshotError):
    """There is no snapshot with that name."""


class SnapshotExistsError(SnapshotError):
    """There is already a snapshot with that name."""


class SnapshotBusyError(SnapshotError):
    """The snapshot is being read, so it cannot be deleted now."""


class SnapshotIncompleteError(SnapshotError):
    """The bytes of added pictures that the snapshot refers to are missing."""


class SnapshotModelError(SnapshotError):
    """The snapshot belongs to a model or corpus other than the store's."""


# How long-running work reports and stops

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""
Skip: TypeAlias = Callable[[Mapping[str, str]], None]
"""Called with the pictures that are skipped: source to reason."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Discard the report."""


def no_skip(reasons: Mapping[str, str]) -> None:
    """Discard the report."""


def never() -> bool:
    """Never cancel."""
    return False


@dataclass(frozen=True)
class JobControl:
    """The caller's side of long-running work.

    Attributes:
        progress: called after each step.
        cancelled: polled between steps; the work raises CancelledError once it returns True.
        skip: called with pictures that are skipped, as they are encountered.
        job: id of the job, shown to others who try to build meanwhile; empty if there is none.
    """

    progress: Progress = no_progress
    cancelled: Callable[[], bool] = never
    skip: Skip = no_skip
    job: str = ""


# Searching


class Neighbours(NamedTuple):
    """The neighbours of ``nq`` queries.

    ``scores``: float32 (nq, k), cosine similarity, descending in each row, ``-inf`` where there
    is none. ``ids``: int64 (nq, k), ``-1`` where there is none. At equal scores the smaller id
    comes first.
    """

    scores: Scores
    ids: Ids


class Members(NamedTuple):
    """Which pictures are in which group.

    ``values``: the groups' values in a fixed order. ``ids`` int64 (m,) and ``codes`` int64 (m,):
    one pair for each membership, a code being a position in ``values``; sorted by code, then id.
    """

    values: tuple[Scalar, ...]
    ids: Ids
    codes: NDArray[np.int64]

    def of(self, code: int) -> Ids:
        """The ids in one group, ascending."""
        start, end = np.searchsorted(self.codes, (code, code + 1))
        return self.ids[start:end]


class Searchable(Protocol):
    """A set of vectors with ids that finds nearest neighbours.

    Searches may run in several threads at once; each sees one consistent state.
    """

    @property
    def dimension(self) -> int:
        """The length d of every vector."""
        ...

    @property
    def kind(self) -> str:
        """How it searches, for example ``"exact"``."""
        ...

    def count(self) -> int:
        """The number of stored vectors."""
        ...

    def ids(self) -> Ids:
        """All stored ids, int64 (n,), ascending."""
        ...

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool (n,); the cost does not grow with ``count()``."""
        ...

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        """Find the ``k`` nearest to each row of ``xq`` float32 (nq, d).

        With ``allowed``, only these ids are searched, by brute force; ids that are not stored are
        ignored, and an empty ``allowed`` finds nothing. ``k`` may exceed ``count()``.

        Raises IndexInputError for a wrong ``xq`` and for ``k`` outside 1..MAX_K.
        """
        ...

    def vectors(self, ids: IdsLike) -> Vectors:
        """Return a copy of the vectors float32 (n, d), in the order given.

        Raises UnknownIdError naming the ids that are not stored.
        """
        ...


class StoreIndex(Searchable, Protocol):
    """The `Searchable` of a store: one generation and the changes since."""

    @property
    def added(self) -> int:
        """How many vectors were added since the generation was built."""
        ...

    @property
    def masked(self) -> int:
        """How many vectors of the generation are no longer valid."""
        ...

    def all_ids(self) -> IdsLike:
        """Every id, as an ``allowed`` that makes a search as exact as the engine allows."""
        ...


# What is stored


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""For `Catalogue.update`: leave this field as it is (None would clear it)."""
Change: TypeAlias = str | Literal[Keep.KEEP] | None


class Staging(Protocol):
    """Embeddings of models that do not serve yet, kept until `promote` puts them in use."""

    def add(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None] | None = None,
    ) -> int:
        """Stage ``embeddings`` float32 (n, d) of pictures; return how many were staged.

        Left out are ids that are no longer stored and, given the ``content_hashes`` of the pictures
        that were embedded, ids whose picture has been replaced since.
        """
        ...

    def missing(self, model_digest: str) -> Ids:
        """Ids that this model has neither embedded nor staged, int64 (n,), ascending."""
        ...

    def counts(self) -> dict[str, int]:
        """Model digest to the number of staged embeddings."""
        ...

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        """What this model has staged: ids int64 (n,) ascending, and float32 (n, d)."""
        ...

    def promote(self, model_digest: str) -> int:
        """Make the staged embeddings the ones in use, atomically; return how many there were.

        Raises IndexInputError if nothing of this model is staged though pictures are stored.
        """
        ...


@dataclass(frozen=True)
class Usage:
    """What a catalogue refers to: how many pictures, and the size of their files in bytes.

    A file that two pictures have counts twice. ``trash`` counts corpus pictures too, without size.
    """

    added_pictures: int
    added_bytes: int
    trash_pictures: int
    trash_bytes: int


@dataclass(frozen=True)
class Quota:
    """Bounds on added pictures and the size of their files in bytes; 0 for none."""

    pictures: int = 0
    size: int = 0


@dataclass(frozen=True)
class Trashed:
    """A deleted picture that can still be restored; ``deleted`` is in seconds since 1970."""

    entry: Entry
    deleted: int


@dataclass(frozen=True)
class Undeleted:
    """What `Trash.restore` brought back.

    ``ids`` in ascending order; ``conflicts``: ids that stay in the trash, each with the id that is
    stored under its source now; ``unembedded``: how many have an embedding of another model, which
    no search finds until the next compaction has embedded them.
    """

    ids: list[int]
    conflicts: Mapping[int, int]
    unembedded: int


@dataclass(frozen=True)
class Purged:
    """What `Trash.purge` removed: ids, and the content hashes of the added ones among them.

    Not ``complete`` if readers kept the log from being emptied; purging again, of nothing, does it.
    """

    ids: list[int]
    content_hashes: set[str]
    complete: bool = True


class Trash(Protocol):
    """Deleted pictures with everything that was stored, until they are purged.

    Methods raise EngineCannotError where the engine has no trash: a delete is final there.
    """

    @property
    def available(self) -> bool:
        """Whether the engine has a trash."""
        ...

    def page(self, after_id: int, limit: int) -> list[Trashed]:
        """At most ``limit`` deleted pictures with an id above ``after_id``, by ascending id."""
        ...

    def count(self) -> int:
        """How many pictures it holds."""
        ...

    def last(self) -> list[int]:
        """The ids of the newest delete that it still holds something of, ascending."""
        ...

    def restore(self, ids: IdsLike, quota: Quota = Quota()) -> Undeleted:
        """Store these pictures again with their ids, fields and embeddings, in one write.

        Raises UnknownIdError for ids that are not in the trash, RestoreConflictError if none can
        come back because all their sources are stored again, QuotaError beyond the ``quota``.
        """
        ...

    def surplus(self, before: float, pictures: int, size: int) -> list[int]:
        """Ids deleted before that time, and the oldest beyond so many ``pictures`` and bytes.

        0 means no bound.
        """
        ...

    def purge(self, ids: IdsLike | None) -> Purged:
        """Remove these from the trash for good, or with None everything; unknown ids are ignored.

        Neither free pages nor the log keep them. A tombstone stays.
        """
        ...


class Catalogue(Protocol):
    """What is indexed: the durable record, and the only part of a store that callers write to.

    Whatever a method has stored when it returns survives a crash. Every method may raise
    CatalogueError. What is stored with a picture must be within ``bounds``. Methods that take a
    filter, and `members`, keep to ``scans``: they may raise FilterTimeoutError and ScansBusyError.
    """

    bounds: PayloadBounds
    scans: FilterScans

    @property
    def staging(self) -> Staging: ...

    @property
    def trash(self) -> Trash: ...

    def upsert(
        self,
        records: Sequence[Record],
        embeddings: Vectors,
        model_digest: str,
        quota: Quota = Quota(),
        *,
        only_new: bool = False,
        expected: Sequence[Entry | None] | None = None,
    ) -> list[int]:
        """Store the records with ``embeddings`` float32 (n, d); return their ids in order.

        A source that is already stored keeps its id and gets the new fields. With ``only_new``, it
        is left out, and so is one with a tombstone, and NO_ID returned: for those who looked before
        they embedded what others may have changed meanwhile. Given what is ``expected`` to be
        stored under each source, None for nothing, those that are stored otherwise by now are left
        out in the same way. If the records exceed the ``quota``, however many processes write, none
        is stored and QuotaError is raised.

        Raises IndexInputError for a wrong shape or value, a source given twice, a source stored
        with another origin, or a dimension other than the one stored for this model;
        ModelChangedError if the catalogue holds embeddings of another model.
        """
        ...

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
        *,
        only_same: bool = False,
    ) -> int:
        """Give stored ids new embeddings float32 (n, d) of the same model; their fields stay.

        Ids that are no longer stored are ignored and, with ``only_same``, those that have another
        content by now. Returns how many were stored. Raises as `upsert`.
        """
        ...

    def update(
        self,
        ids: IdsLike,
        *,
        label: Change = KEEP,
        split: Change = KEEP,
        payload: Payload | None = None,
        payloads: Mapping[int, Payload] | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
        expected: Sequence[Entry] | None = None,
    ) -> int:
        """Change fields of these ids, all or none; return how many entries there were.

        Given the entries as they are ``expected`` to be, for example as they were read, those that
        have been changed or deleted since are left out instead.

        ``payload`` is merged into the stored one by its top-level keys, or replaces it with
        ``replace_payload``; ``payloads`` gives each id its own. ``by_hand`` marks entries whose
        label or split changes as edited.

        Raises UnknownIdError naming the ids that are not stored.
        """
        ...

    def rename(self, sources: Mapping[int, str]) -> list[int]:
        """Give corpus pictures, by id, other sources, in one write; return the ids renamed.

        Ids, fields and embeddings stay. Pictures may exchange their sources. Left out are ids that
        are not stored or not of the corpus, and those whose new source has a tombstone, or belongs
        to a picture that keeps it.

        Raises IndexInputError for a source that is given twice or cannot be stored.
        """
        ...

    def stamps(self) -> dict[int, Stamp]:
        """Id to the stamp of its file when it was last looked at, where one was recorded.

        `NO_STAMP` for a picture that has got another content since, for example by a restore.
        """
        ...

    def set_stamps(
        self,
        found: Mapping[int, Stamp],
        content_hashes: Mapping[int, str | None] | None = None,
    ) -> None:
        """Record the stamps of files by id; for readers, this is not a change of the pictures.

        Left out are ids that are not stored and, given the ``content_hashes`` of the files, those
        of pictures that have another content.
        """
        ...

    def delete(self, ids: IdsLike, *, tombstone: bool = False) -> int:
        """Delete these ids and return how many there were. Unknown ids are ignored.

        With ``tombstone``, a picture of the corpus stays deleted when the corpus is read again, and
        all of them go to the `trash`, if there is one.
        """
        ...

    def delete_where(self, where: Filter) -> list[int]:
        """Delete what matches, with tombstones, to the trash; return the ids, ascending."""
        ...

    def get(self, ids: IdsLike) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError naming the missing ids."""
        ...

    def find(self, ids: IdsLike) -> list[Entry]:
        """Those of these ids that are stored, by ascending id."""
        ...

    def of_sources(self, sources: Sequence[str]) -> dict[str, Entry]:
        """What is stored under these sources; those that are not stored are left out."""
        ...

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]:
        """At most ``limit`` entries with an id above ``after_id``, by ascending id."""
        ...

    def sorted_page(
        self,
        order: OrderBy,
        limit: int,
        where: Filter | None = None,
        after: SortPosition | None = None,
    ) -> list[Sorted]:
        """At most ``limit`` entries that match, sorted, those after a position; see `OrderBy`.

        Reads the field of all that match, within the bounds on filters. What is not changed
        between two pages is on exactly one of them. Raises FilterError for an unusable key.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """The number of entries that match."""
        ...

    def ids(self, where: Filter | None = None) -> Ids:
        """The ids that match, int64 (n,), ascending."""
        ...

    def matching(self, where: Filter) -> IdsLike:
        """The ids that match, to pass to `Searchable.search`; may be read lazily."""
        ...

    def members(self, key: str, where: Filter | None = None) -> Members:
        """What matches, grouped by the field ``key``. Raises FilterError for an unusable key."""
        ...

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        """All that this model embedded: ids int64 (n,) ascending, and float32 (n, d)."""
        ...

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]:
        """For which of these ids this content and embedding are already stored, bool (n,).

        Embeddings float32 (n, d) count as equal from a cosine of `index.vectors.SAME` upwards.
        """
        ...

    def check_quota(self, records: Sequence[Record], quota: Quota) -> None:
        """Raise QuotaError if `upsert` of these records would exceed the quota now.

        Raises EngineCannotError if the engine does not count and ``quota`` is not empty.
        """
        ...

    def usage(self) -> Usage | None:
        """How much is stored, from counters; None if the engine does not count."""
        ...

    def measure(self, size_of: Callable[[str], int | None]) -> int:
        """Count again; ``size_of`` is called for content hashes of unknown size. Return how many.

        Only needed for what an earlier version has added, and after bytes were removed.
        """
        ...

    def model(self) -> str | None:
        """The digest of the model whose embeddings are in use; None before the first."""
        ...

    def tombstones(self) -> set[str]:
        """Sources of the corpus that were deleted by hand and must stay deleted."""
        ...

    def forget_tombstones(self) -> None:
        """Let all sources of the corpus be added again: another corpus takes its place."""
        ...

    def known_sources(self, model_digest: str) -> dict[str, int]:
        """Source to id of everything that this model has embedded."""
        ...

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]:
        """Source to id of everything, or of everything with this origin."""
        ...

    def content_hashes(self, origin: Origin) -> set[str]:
        """The content hashes of everything with this origin, in the trash as well."""
        ...

    def model_digests(self) -> dict[str, int]:
        """Model digest to the number of embeddings it made."""
        ...

    def label_counts(self) -> dict[str, int]:
        """Label to the number of entries with it; entries without a label are left out."""
        ...

    def split_counts(self) -> dict[str, int]:
        """Split to the number of entries in it; entries without a split are left out."""
        ...

    def get_meta(self, key: str) -> str | None:
        """The value under ``key``, or None."""
        ...

    def set_meta(self, key: str, value: str) -> None:
        """Store a value, for example the corpus name, replacing an earlier one."""
        ...

    def check(self) -> str | None:
        """What is damaged, or None if nothing is; reads everything."""
        ...

    def close(self) -> None: ...


class Entries(Protocol):
    """Entries, from memory where the store caches them."""

    def cached(self, id_: int) -> Entry | None:
        """The current entry if it is in memory, else None; never blocks."""
        ...

    def get(self, ids: Sequence[int]) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError naming the missing ids."""
        ...


class Selections(Protocol):
    """What filters and groupings select, from memory where the store caches it."""

    def matching(self, where: Filter) -> IdsLike:
        """See `Catalogue.matching`."""
        ...

    def members(self, key: str, where: Filter | None = None) -> Members:
        """See `Catalogue.members`."""
        ...


class Blobs(Protocol):
    """The bytes of added pictures, named by their content.

    Entries, snapshots and whatever else refers to bytes does so by name, and bytes without a
    reference are removed. Hence one protocol for all:

    - Who makes a reference *holds* the bytes from before they are stored, or before the reference
      that they have is read, until the new reference can be seen by ``needed``: from `put` to the
      entry's commit; from copying the catalogue to the snapshot's own name; from checking a
      snapshot to the commit of its restore. Holders never exclude each other.
    - Who removes bytes calls `sweep`, whose ``needed`` names every reference: the catalogue's
      entries and all snapshots. Removing a reference needs no holding.
    - The order is: build lock, bytes, snapshot, catalogue. ``needed`` must not hold bytes, and
      nobody starts to hold bytes inside a transaction of the catalogue.

    Where many machines share an object store there is no lock, and no snapshots; there `sweep`
    spares objects that were put during its grace period.
    """

    @property
    def folder(self) -> Path | None:
        """The folder on this machine that holds the bytes; None if they are elsewhere."""
        ...

    def holding(self) -> AbstractContextManager[None]:
        """Hold off `sweep`; waits only while one is removing."""
        ...

    def put(self, data: bytes) -> str:
        """Store ``data`` durably; return its name, ``sha256:`` and 64 hexadecimal digits.

        What is stored under that name already is compared with ``data``, and mended if it differs.
        """
        ...

    def get(self, name: str) -> bytes:
        """The bytes under ``name``. Raises BlobError if they are missing or damaged."""
        ...

    def size(self, name: str) -> int | None:
        """The number of bytes under ``name``; None if there are none. Reads none."""
        ...

    def names(self) -> list[str]:
        """The names of everything stored, sorted."""
        ...

    def missing(self, names: set[str]) -> set[str]:
        """Those of ``names`` under which nothing is stored; reads no bytes."""
        ...

    def sweep(self, needed: Callable[[], set[str]]) -> int:
        """Remove what ``needed`` does not name; return how many were removed.

        ``needed`` is called once to find candidates, and once more while nobody holds bytes.

        Raises BlobsBusyError if they are held for too long; nothing is removed then.
        """
        ...

    def remove_orphans(self) -> int:
        """Remove what killed processes left unfinished; return how many files."""
        ...


# What is served


@dataclass(frozen=True)
class Manifest:
    """A generation: ``count`` vectors of ``dimension``, made by the model ``model_digest``.

    It holds every write of the catalogue up to ``sequence`` in the history ``epoch``, a random
    word that is new whenever a catalogue may have been put back; empty where the engine has none,
    or the generation is older than this member. ``parameters`` are those of its
    ``kind``, ``recall`` what was measured when it was built: the mean share ``value`` of the
    ``k`` nearest that a search finds, over so many held-out ``queries``; None for an exact one.
    ``created`` is ISO 8601 in UTC; ``files`` gives each file's SHA-256 in hexadecimal digits.
    """

    format_version: int
    generation: int
    count: int
    dimension: int
    metric: str
    kind: str
    model_digest: str
    sequence: int
    parameters: Mapping[str, Any]
    recall: Mapping[str, float] | None
    created: str
    files: Mapping[str, str]
    epoch: str = ""


@dataclass(frozen=True)
class SearchState(Generic[Model]):
    """One consistent state to search; replaced as a whole, never changed.

    ``model`` embeds the queries, ``manifest`` is the generation's, ``sequence`` the number of the
    last write that ``index`` holds, in the history ``epoch``.
    """

    model: Model
    index: StoreIndex
    manifest: Manifest
    sequence: int
    epoch: str = ""


class ServedIndex(Protocol[Model]):
    """The index that a process serves."""

    @property
    def last(self) -> SearchState[Model] | None:
        """The state returned last; None before `load`."""
        ...

    @property
    def dimension(self) -> int | None:
        """The length of every vector; None before `load`."""
        ...

    def load(self, model_digest: str) -> tuple[Manifest, str | None]:
        """Load the newest good generation that this model made.

        Returns its manifest, and what is wrong with newer ones, or None if nothing is.

        Raises NoGenerationError before the first build, ModelMismatchError if another model made
        the current generation, GenerationError if no generation can be used.
        """
        ...

    def current(self, wait: bool = True) -> SearchState[Model]:
        """The state with every write acknowledged before this call.

        ``wait`` for a new generation to load; otherwise the previous one may serve meanwhile.
        """
        ...

    def peek(self) -> SearchState[Model] | None:
        """What `current` would return if that needs no reading, else None."""
        ...

    def available(self) -> bool:
        """Whether searches are possible now."""
        ...

    def entries(self, state: SearchState[Model], ids: IdsLike) -> list[Entry]:
        """The entries that a search of ``state`` found, in the order given.

        Raises UnknownIdError for those deleted since.
        """
        ...


@dataclass(frozen=True)
class Snapshot:
    """``count`` entries with embeddings of ``model_digest``, as of the write ``sequence``.

    ``epoch`` is that of the catalogue, empty where it had none. ``created`` is ISO 8601 in UTC,
    ``size`` in bytes, ``files`` each file's SHA-256.
    """

    name: str
    format_version: int
    count: int
    model_digest: str | None
    sequence: int
    corpus: str | None
    created: str
    size: int
    files: Mapping[str, str]
    epoch: str = ""


class Snapshots(Protocol):
    """Named copies of everything that is indexed, to restore. Methods raise SnapshotError."""

    def create(self, name: str | None = None, *, allow_missing: bool = False) -> Snapshot:
        """Take a snapshot while others read and write; without a name, it is named by the time.

        When this returns, the snapshot is durable and has been checked as `restore` checks it.

        Raises SnapshotExistsError for a name that is taken, also by another call at the same time;
        SnapshotIncompleteError if bytes of added pictures are missing, unless ``allow_missing``.
        """
        ...

    def names(self) -> list[str]:
        """The names of all snapshots, sorted."""
        ...

    def read(self, name: str) -> Snapshot:
        """The description of a snapshot; reads no large file."""
        ...

    def restore(self, name: str, *, allow_missing: bool = False) -> tuple[Snapshot, int, int]:
        """Restore, in one write; return the snapshot, and how many were changed and deleted.

        Raises SnapshotIncompleteError as `create`.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a snapshot. Raises SnapshotBusyError while it is being restored."""
        ...

    def referring(self, content_hashes: set[str]) -> dict[str, list[str]]:
        """Content hash to those who refer to it, for people: snapshot, id and source."""
        ...

    def content_hashes(self, seen: set[str] | None = None) -> set[str]:
        """The content hashes of added pictures that snapshots refer to.

        Snapshots in ``seen`` are left out, and those that were read are added to it.
        """
        ...

    def next_size(self) -> int:
        """About how many bytes another snapshot takes."""
        ...

    def holding(self, purged: Purged) -> dict[str, int]:
        """Snapshot to how many of these pictures it holds; those that hold none are left out."""
        ...


@dataclass(frozen=True)
class Finding:
    """The result of `Store.verify` for one part; ``problem`` is None if it is sound."""

    part: str
    problem: str | None = None


class Store(Protocol[Model]):
    """One store, opened by one process."""

    @property
    def name(self) -> str:
        """What the store is and where, for messages."""
        ...

    @property
    def catalogue_name(self) -> str:
        """Where the catalogue is, for messages."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether concurrent searches are faster than consecutive ones."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether it can be searched, but not written; every write raises ReadOnlyError."""
        ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def entries(self) -> Entries: ...

    @property
    def selections(self) -> Selections: ...

    @property
    def blobs(self) -> Blobs: ...

    @property
    def served(self) -> ServedIndex[Model]: ...

    @property
    def snapshots(self) -> Snapshots: ...

    def lock(self, job: str = "") -> AbstractContextManager[None]:
        """Hold the exclusive right to build; raises StoreBusyError if another holds it."""
        ...

    def check_free(self) -> None:
        """Raise StoreBusyError if a build is running now."""
        ...

    def check_kind(self, kind: str, dimension: int, count: int | None = None) -> None:
        """Raise IndexInputError unless the engine can build this kind of index.

        ``count`` is the number of vectors of ``dimension``; None if it is not known yet.
        """
        ...

    def publish(
        self, model_digest: str, dimension: int, kind: str, control: JobControl = JobControl()
    ) -> Manifest | None:
        """Build a generation from the catalogue and serve it; return None if cancelled first."""
        ...

    def holds_purged(self) -> bool:
        """Whether files of an index may hold embeddings that were purged; a build ends that."""
        ...

    def verify(self) -> list[Finding]:
        """Check everything that is stored."""
        ...

    def remove_orphans(self) -> int:
        """Remove what killed processes left unfinished, never what a living one is making.

        Returns how many files and folders.
        """
        ...

    def status(self) -> Mapping[str, Any]:
        """A summary of what is stored; needs no model."""
        ...

    def close(self) -> None: ...
