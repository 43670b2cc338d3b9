"""The collections that hold the pictures; an alias, switched atomically, names the current one.

A collection belongs to one model for good: a rebuild or a change of model fills a new one. The
ledger describes each collection under its name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from index.contract import MANIFEST_VERSION, IndexInputError, Manifest, NoGenerationError
from index.milvus.connection import Connection
from index.milvus.ledger import Ledger
from index.milvus.rows import fields_of

KINDS = ("auto", "exact", "hnsw")
"""milvus-lite accepts any word as a kind, so it must be checked here."""

_EXACT_BELOW = 200_000
_TYPES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "exact": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
}
_KIND = "generation"


@dataclass(frozen=True)
class Generation:
    """One collection.

    ``number`` counts from 1; ``model`` is a digest. ``ready``: it may be searched; ``count`` is how
    many pictures it held when it became ready, ``unembedded`` how many of them its model could not
    embed. ``recall`` is as in `index.contract.Manifest`.
    """

    name: str
    number: int
    model: str
    dimension: int
    kind: str
    created: str
    ready: bool = False
    count: int = 0
    unembedded: int = 0
    recall: Mapping[str, float] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def manifest(self) -> Manifest:
        """The manifest, without the files of a local generation."""
        return Manifest(
            format_version=MANIFEST_VERSION,
            generation=self.number,
            count=self.count,
            dimension=self.dimension,
            metric="cosine",
            kind=self.kind,
            model_digest=self.model,
            sequence=0,
            parameters={**self.parameters, "collection": self.name},
            recall=self.recall,
            created=self.created,
            files={},
        )


class Generations:
    """The store's collections of pictures."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._prefix = connection.settings.prefix
        self._alias = f"{self._prefix}_current"
        self._ready: dict[str, Generation] = {}

    def current(self) -> Generation | None:
        """The one that is written to and, once ready, searched; takes some milliseconds."""
        name = self._connection.alias_target(self._alias)
        return None if name is None else self.get(name)

    def require(self) -> Generation:
        """The current one. Raises NoGenerationError before the first."""
        generation = self.current()
        if generation is None:
            raise self.no_index()
        return generation

    def no_index(self) -> NoGenerationError:
        """The error of a store in which no index has been built."""
        return NoGenerationError(
            f"the store {self._prefix!r} in Milvus has no index yet; run `lookalike index build`"
        )

    def get(self, name: str) -> Generation | None:
        """The description of a collection; None if there is none."""
        known = self._ready.get(name)
        if known is None:
            value = self._ledger.get(_KIND, name)
            if value is None:
                return None
            known = Generation(**value)
            if known.ready:  # then it never changes again
                self._ready = {name: known}
        return known

    def create(self, model: str, dimension: int, kind: str) -> Generation:
        """Create an empty, loaded collection that is not current yet."""
        number = 1 + max((int(value["number"]) for value in self._ledger.all(_KIND)), default=0)
        index_type, params = _TYPES[kind]
        generation = Generation(
            name=f"{self._prefix}_g{number:06d}_{uuid.uuid4().hex[:12]}",
            number=number,
            model=model,
            dimension=dimension,
            kind=kind,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters={"index_type": index_type, **params},
        )
        self._connection.create(generation.name, fields_of(dimension))
        self._connection.index(generation.name, index_type, params)
        self.save(generation)
        return generation

    def save(self, generation: Generation) -> None:
        """Store the description of a collection."""
        self._ledger.put(_KIND, {generation.name: asdict(generation)}, now())

    def mark_ready(self, generation: Generation, recall: Mapping[str, float] | None) -> Generation:
        """Mark a complete collection as ready to be searched."""
        ready = replace(
            generation,
            ready=True,
            count=self._connection.count(generation.name),
            unembedded=self._connection.count(generation.name, "embedded == false"),
            recall=recall,
        )
        self.save(ready)
        return ready

    def switch(self, generation: Generation) -> None:
        """Make it current, atomically for every process."""
        self._connection.set_alias(self._alias, generation.name)

    def drop_old(self, keep: set[str]) -> None:
        """Drop all collections except the current one, its predecessor and ``keep``.

        For the holder of the builder lease only. The predecessor is unloaded, but kept for readers
        that still use it and for inspection.
        """
        current = self._connection.alias_target(self._alias)
        values = sorted(self._ledger.all(_KIND), key=lambda value: int(value["number"]))
        older = [value["name"] for value in values if value["name"] not in {current, *keep}]
        before = next(
            (v["name"] for v in reversed(values) if v["name"] in older and v["ready"]), ""
        )
        prefix = f"{self._prefix}_g"
        for name in self._connection.collections():
            if not name.startswith(prefix) or name in {current, *keep}:
                continue
            if name == before:
                self._connection.release(name)
            else:
                self._connection.drop(name)
        self._ledger.remove(_KIND, [name for name in older if name != before])


def resolve_kind(kind: str, count: int) -> str:
    """The kind to build: what ``auto`` selects for ``count`` pictures, or ``kind`` itself."""
    if kind == "auto":
        return "exact" if count < _EXACT_BELOW else "hnsw"
    return kind


def check_kind(kind: str) -> None:
    """Raise IndexInputError for a kind that a store in Milvus does not support."""
    if kind not in KINDS:
        raise IndexInputError(
            f"kind is {kind[:100]!r}; expected one of {', '.join(KINDS)} in Milvus"
        )


def now() -> int:
    """The sequence number of a write or read: microseconds since 1970."""
    return time.time_ns() // 1000
