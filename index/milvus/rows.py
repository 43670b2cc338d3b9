"""Converting pictures to rows of a Milvus collection, and back.

The fields of an entry are stored as one JSON text. Filters use further columns instead, because
Milvus's own comparison of JSON depends on its version for types and missing fields:

``facts``  one token of 24 letters for each value of each field, a hash of name, type and value;
           `index.conditions.Match` becomes "the array contains the token". Further tokens mark the
           fields that are null, that hold anything, numbers or dates. Those of nulls, of anything
           and of dates are missing where the row has no ``MARKED``: earlier versions wrote none.
``low``, ``high``  the smallest and largest number, and date, in each field that holds any, by the
           token of its mark; ranges are tested on them first, and then on the entry itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from index.conditions import COLUMNS
from index.contract import CatalogueError, IndexInputError, Vectors
from index.dates import instant, seconds
from index.filters import MAX_KEY_PARTS
from index.payload import check_record
from index.records import Entry, Record, Scalar

Kind: TypeAlias = Literal["null", "filled", "numbers", "dates"]
ID_LIMIT = 1 << 52
"""Ids are below this, so that every JSON parser reads them exactly."""
MAX_FACTS = 2_000
MAX_NUMBERS = 1_000
MAX_FIELDS_BYTES = 60_000
PROBES = 4

_TOKEN = 24
_CAPACITY = 4096
FIELDS: tuple[Mapping[str, Any], ...] = (
    {"field_name": "id", "datatype": "INT64", "is_primary": True},
    {"field_name": "sequence", "datatype": "INT64"},
    {"field_name": "embedded_at", "datatype": "INT64"},
    {"field_name": "embedded", "datatype": "BOOL"},
    {
        "field_name": "facts",
        "datatype": "ARRAY",
        "element_type": "VARCHAR",
        "max_length": _TOKEN,
        "max_capacity": _CAPACITY,
    },
    {"field_name": "low", "datatype": "JSON"},
    {"field_name": "high", "datatype": "JSON"},
    {"field_name": "fields", "datatype": "VARCHAR", "max_length": 65_535},
)
EMBEDDED = "embedded == true"
"""The expression for rows that the generation's model could embed."""
STORED = tuple(str(field["field_name"]) for field in FIELDS)
ALL = (*STORED, "vector")


def fields_of(dimension: int) -> list[Mapping[str, Any]]:
    """The fields of a collection of vectors of this dimension."""
    # Milvus does not support vectors of one dimension.
    return [*FIELDS, {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": max(dimension, 2)}]


def candidate_ids(source: str) -> list[int]:
    """The ids that a source may have: usually the first, the others on a collision."""
    return [
        int.from_bytes(hashlib.blake2b(f"{probe}:{source}".encode(), digest_size=8).digest(), "big")
        % (ID_LIMIT - 1)
        + 1
        for probe in range(PROBES)
    ]


def row(
    entry: Entry, vector: Vectors, sequence: int, embedded_at: int, *, embedded: bool = True
) -> dict[str, Any]:
    """The row of an entry with its vector float32 (d,).

    Raises IndexInputError if it cannot be stored.
    """
    check_record(entry, "record")
    text = json.dumps(
        {
            "source": entry.source,
            "split": entry.split,
            "label": entry.label,
            "payload": entry.payload,
            "content_hash": entry.content_hash,
            "origin": entry.origin,
            "edited": entry.edited,
        },
        ensure_ascii=False,
    )
    size = len(text.encode())
    if size > MAX_FIELDS_BYTES:
        raise IndexInputError(
            f"the fields of {entry.source[:100]!r} have {size:,} bytes as JSON; Milvus stores at"
            f" most {MAX_FIELDS_BYTES:,}: send a smaller payload"
        )
    return {
        "id": entry.id,
        "sequence": sequence,
        "embedded_at": embedded_at,
        "embedded": embedded,
        **facts_of(entry),
        "fields": text,
        "vector": padded(vector),
    }


def entry_of(found: Mapping[str, Any]) -> Entry:
    """The entry of a row. Raises CatalogueError if the row is malformed."""
    try:
        fields = json.loads(found["fields"])
        return Entry(
            fields["source"],
            fields["split"],
            fields["label"],
            fields["payload"],
            fields["content_hash"],
            fields["origin"],
            fields["edited"],
            id=int(found["id"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogueError(
            f"the row of id {found.get('id')} in Milvus cannot be read ({error}); add its picture"
            " again, or rebuild with `lookalike index build --reembed`"
        ) from error


def with_id(record: Record, id_: int) -> Entry:
    """The record as an entry with the id ``id_``."""
    return Entry(
        record.source,
        record.split,
        record.label,
        record.payload,
        record.content_hash,
        record.origin,
        id=id_,
    )


def as_mapping(entry: Entry) -> dict[str, Any]:
    """The entry as the mapping that `index.conditions` matches."""
    return {
        "id": entry.id,
        "label": entry.label,
        "split": entry.split,
        "source": entry.source,
        "payload": entry.payload,
    }


def vectors_of(rows: Sequence[Mapping[str, Any]], dimension: int) -> Vectors:
    """The rows' vectors, float32 (n, dimension)."""
    if not rows:
        return np.empty((0, dimension), np.float32)
    found = np.array([row["vector"] for row in rows], np.float32)
    return np.ascontiguousarray(found[:, :dimension])


def padded(vector: Vectors) -> Vectors:
    """The vector as Milvus requires it: float32, at least two numbers."""
    flat = np.asarray(vector, np.float32)
    return flat if len(flat) > 1 else np.append(flat, np.float32(0))


def token(name: str, value: Scalar) -> str:
    """The token for a field with this value.

    Values that are equal in filters share a token: 1 and 1.0, but not 1 and true.
    """
    if isinstance(value, bool):
        word = f"boolean {value}"
    elif isinstance(value, str):
        word = f"text {value}"
    else:
        whole = isinstance(value, int) or value.is_integer()
        word = f"number {int(value) if whole else repr(value)}"
    return _hash(name, word)


def mark(name: str, kind: Kind) -> str:
    """The token for a field that is null, or holds anything at all, or numbers, or dates."""
    return _hash(name, kind)


def _hash(name: str, word: str) -> str:
    data = f"{len(name)}:{name}{word}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_TOKEN // 2).hexdigest()


MARKED = _hash("", "marked")
"""The token of rows that have all marks."""


def below(number: float) -> float:
    """The largest float that is not above the number."""
    near = float(number)
    return near if near <= number else math.nextafter(near, -math.inf)


def above(number: float) -> float:
    """The smallest float that is not below the number."""
    return -below(-number)


def facts_of(entry: Entry) -> dict[str, Any]:
    """The columns of a row that filters use.

    Raises IndexInputError if the payload has too many values.
    """
    tokens: set[str] = set()
    marks: set[str] = {MARKED}
    numbers, dates = _Extremes(), _Extremes()
    for name, value in _fields(entry):
        if value is None:
            marks.add(mark(name, "null"))
        elif value != []:
            marks.add(mark(name, "filled"))
        for element in value if isinstance(value, list) else [value]:
            if not isinstance(element, bool | int | float | str):
                continue
            tokens.add(token(name, element))
            if isinstance(element, bool):
                continue
            if not isinstance(element, str):
                numbers.add(mark(name, "numbers"), below(element), above(element))
            elif (date := instant(element)) is not None:
                near = seconds(date)
                low, high = (math.nextafter(near, end) for end in (-math.inf, math.inf))
                dates.add(mark(name, "dates"), low, high)
    tokens |= numbers.low.keys()
    if len(tokens) > MAX_FACTS or len(numbers.low) > MAX_NUMBERS:
        raise IndexInputError(
            f"the payload of {entry.source[:100]!r} has {len(tokens):,} values and"
            f" {len(numbers.low):,} fields with numbers; filters in Milvus support at most"
            f" {MAX_FACTS:,} and {MAX_NUMBERS:,}: send a smaller payload"
        )
    marks |= dates.low.keys()
    if len(tokens) + len(marks) > _CAPACITY:
        # Like a row of an earlier version, which is looked at itself.
        return {"facts": sorted(tokens), "low": numbers.low, "high": numbers.high}
    return {
        "facts": sorted(tokens | marks),
        "low": numbers.low | dates.low,
        "high": numbers.high | dates.high,
    }


class _Extremes:
    """The smallest and largest number of each field, rounded outwards."""

    def __init__(self) -> None:
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}

    def add(self, key: str, low: float, high: float) -> None:
        self.low[key] = min(self.low.get(key, math.inf), low)
        self.high[key] = max(self.high.get(key, -math.inf), high)


def _fields(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Every field that `index.conditions.plain_name` names, with its value."""
    for name in COLUMNS:
        yield name, getattr(entry, name)
    yield from _below("", entry.payload, 0)


def _below(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if name and name not in COLUMNS:
        yield name, value
    if isinstance(value, Mapping) and depth < MAX_KEY_PARTS:
        for key, inner in value.items():
            # No plain name has a dot in it, or is empty.
            if key and "." not in key:
                yield from _below(f"{name}.{key}" if name else key, inner, depth + 1)
