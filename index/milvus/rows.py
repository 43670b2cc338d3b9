"""Converting pictures to rows of a Milvus collection, and back.

The fields of an entry are stored as one JSON text. Filters use further columns instead, because
Milvus's own comparison of JSON depends on its version for types and missing fields:

``facts``  one token of 24 letters for each value of each field, a hash of name, type and value;
           `index.conditions.Match` becomes "the array contains the token".
``low``, ``high``  the smallest and largest number in each field that holds numbers, by the token
           of its name; ranges are tested on them first, and then on the entry itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index.conditions import COLUMNS
from index.contract import CatalogueError, IndexInputError, Vectors
from index.filters import MAX_KEY_PARTS
from index.payload import check_record
from index.records import Entry, Record, Scalar

ID_LIMIT = 1 << 52
"""Ids are below this, so that every JSON parser reads them exactly."""
MAX_FACTS = 2_000
MAX_NUMBERS = 1_000
MAX_FIELDS_BYTES = 60_000
PROBES = 4

_TOKEN = 24
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
        "max_capacity": 4096,
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
    tokens, low, high = _facts(entry)
    if len(tokens) > MAX_FACTS or len(low) > MAX_NUMBERS:
        raise IndexInputError(
            f"the payload of {entry.source[:100]!r} has {len(tokens):,} values and {len(low):,}"
            f" fields with numbers; filters in Milvus support at most {MAX_FACTS:,} and"
            f" {MAX_NUMBERS:,}: send a smaller payload"
        )
    return {
        "id": entry.id,
        "sequence": sequence,
        "embedded_at": embedded_at,
        "embedded": embedded,
        "facts": sorted(tokens),
        "low": low,
        "high": high,
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


def token(name: str, value: Scalar | None) -> str:
    """The token for a field with this value or, for None, for a field that holds numbers.

    Values that are equal in filters share a token: 1 and 1.0, but not 1 and true.
    """
    if value is None:
        word = "numbers"
    elif isinstance(value, bool):
        word = f"boolean {value}"
    elif isinstance(value, str):
        word = f"text {value}"
    else:
        whole = isinstance(value, int) or value.is_integer()
        word = f"number {int(value) if whole else repr(value)}"
    data = f"{len(name)}:{name}{word}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_TOKEN // 2).hexdigest()


def below(number: float) -> float:
    """The largest float that is not above the number."""
    near = float(number)
    return near if near <= number else math.nextafter(near, -math.inf)


def above(number: float) -> float:
    """The smallest float that is not below the number."""
    return -below(-number)


def _facts(entry: Entry) -> tuple[set[str], dict[str, float], dict[str, float]]:
    tokens: set[str] = set()
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for name, value in _values(entry):
        tokens.add(token(name, value))
        if isinstance(value, bool | str):
            continue
        key = token(name, None)
        tokens.add(key)
        low[key] = min(low.get(key, math.inf), below(value))
        high[key] = max(high.get(key, -math.inf), above(value))
    return tokens, low, high


def _values(entry: Entry) -> Iterator[tuple[str, Scalar]]:
    """Every value that a condition may compare, with its key in filters."""
    for name in COLUMNS:
        value = getattr(entry, name)
        if value is not None:
            yield name, value
    yield from _below("", entry.payload, 0)


def _below(name: str, value: Any, depth: int) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, Mapping):
        if depth < MAX_KEY_PARTS:
            for key, inner in value.items():
                # No filter can name a key with a dot in it, or an empty one.
                if key and "." not in key:
                    yield from _below(f"{name}.{key}" if name else key, inner, depth + 1)
    elif name not in COLUMNS:
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, bool | int | float | str):
                yield name, element
