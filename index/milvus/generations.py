"""The collections that hold the pictures: one is current, by an alias that is switched atomically.

A collection is made by one model and never goes over to another: a rebuild and a change of model
fill a new one beside it. What a collection is stands in the ledger, under its name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from index.manifest import FORMAT_VERSION, Manifest
from index.milvus.connection import Connection
from index.milvus.ledger import Ledger
from index.milvus.rows import fields_of
from index.neighbours import IndexInputError

KINDS = ("auto", "exact", "hnsw")
"""Those that both Milvus and this package can be sure of; milvus-lite accepts any word."""

_EXACT_BELOW = 200_000
_TYPES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "exact": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
}
_KIND = "generation"


@dataclass(frozen=True)
class Generation:
    """One collection.

    ``number`` counts from 1; ``model`` is a digest; ``ready`` says that it may answer, ``count``
    how many pictures it held when it became so, and ``unembedded`` how many of them its model could
    not embed; ``recall`` is as in `index.manifest.Manifest`.
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
        """What an answer says about the index."""
        return Manifest(
            format_version=FORMAT_VERSION,
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
        self._known: dict[str, Generation] = {}

    def current(self) -> Generation | None:
        """The one that is written to and, if it is ready, searched; some milliseconds."""
        name = self._connection.aliased(self._alias)
        return None if name is None else self.described(name)

    def described(self, name: str) -> Generation | None:
        """What the collection is."""
        known = self._known.get(name)
        if known is None:
            value = self._ledger.get(_KIND, name)
            if value is None:
                return None
            known = Generation(**value)
            if known.ready:  # from then on it never changes
                self._known = {name: known}
        return known

    def begin(self, model: str, dimension: int, kind: str) -> Generation:
        """Make an empty collection, loaded, that is not current yet."""
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
        self.note(generation)
        return generation

    def note(self, generation: Generation) -> None:
        """Write down what the collection is."""
        self._ledger.put(_KIND, {generation.name: asdict(generation)}, now())

    def finish(self, generation: Generation, recall: Mapping[str, float] | None) -> Generation:
        """Note that the collection may answer from now on; it must be whole."""
        ready = replace(
            generation,
            ready=True,
            count=self._connection.count(generation.name),
            unembedded=self._connection.count(generation.name, "embedded == false"),
            recall=recall,
        )
        self.note(ready)
        return ready

    def switch(self, generation: Generation) -> None:
        """Make it current, in one step for every process."""
        self._connection.point(self._alias, generation.name)

    def tidy(self, keep: set[str]) -> None:
        """Drop every other collection but the one before the current; for the builder alone.

        The one before is taken out of memory, and is there for whoever reads from it just now, or
        wants to look at it.
        """
        current = self._connection.aliased(self._alias)
        values = sorted(self._ledger.all(_KIND), key=lambda value: int(value["number"]))
        older = [value["name"] for value in values if value["name"] not in {current, *keep}]
        before = next(
            (v["name"] for v in reversed(values) if v["name"] in older and v["ready"]), ""
        )
        beginning = f"{self._prefix}_g"
        for name in self._connection.collections():
            if not name.startswith(beginning) or name in {current, *keep}:
                continue
            if name == before:
                self._connection.release(name)
            else:
                self._connection.drop(name)
        self._ledger.remove(_KIND, [name for name in older if name != before])


def chosen(kind: str, count: int) -> str:
    """The kind that is built: what ``auto`` means for so many pictures, or the kind itself."""
    if kind == "auto":
        return "exact" if count < _EXACT_BELOW else "hnsw"
    return kind


def check_kind(kind: str) -> None:
    """Raise IndexInputError for a kind that is not kept in Milvus."""
    if kind not in KINDS:
        raise IndexInputError(f"kind is {kind!r}; in Milvus there are {', '.join(KINDS)}")


def now() -> int:
    """The number of a write, or of a look: microseconds since 1970."""
    return time.time_ns() // 1000
