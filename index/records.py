"""A picture as the catalogue takes it and gives it back."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from index.checksums import crc
from index.database import CatalogueError
from index.neighbours import IndexInputError
from index.payload import Payload, check_payload, check_text

Origin: TypeAlias = Literal["corpus", "added"]
"""``corpus``: the corpus holds the picture. ``added``: the store holds its bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """A picture to store. ``source`` is its unique name, for example a path inside the corpus.

    ``content_hash`` says what the embedding was made of, ``sha256:`` and the digest of an added
    picture's bytes or ``pixels:`` and that of a corpus picture as it was read; None if unknown.
    """

    source: str
    split: str | None = None
    label: str | None = None
    payload: Payload = field(default_factory=dict)
    content_hash: str | None = None
    origin: Origin = "corpus"


@dataclass(frozen=True, slots=True)
class Entry(Record):
    """A stored picture: a Record with its id.

    ``edited``: label or split were set by hand, and the corpus no longer decides them.
    """

    edited: bool = False
    id: int = field(kw_only=True)


Row: TypeAlias = tuple[str, str | None, str | None, str, str | None, str]


def row_from_record(record: Record, where: str) -> Row:
    """The record as source, split, label, payload in JSON, content hash and origin.

    Raises IndexInputError that names the place, beginning with ``where``.
    """
    if not check_text(record.source, f"{where}.source"):
        raise IndexInputError(f"{where}.source is empty; expected a unique name")
    check_payload(record.payload, f"{where}.payload")
    return (
        record.source,
        optional_text(record.split, f"{where}.split"),
        optional_text(record.label, f"{where}.label"),
        json.dumps(record.payload, ensure_ascii=False),
        optional_text(record.content_hash, f"{where}.content_hash"),
        record.origin,
    )


def entry_from_row(row: tuple[Any, ...]) -> Entry:
    """The entry of a row: the columns of `index.schema.FIELDS`, then their checksum.

    Raises CatalogueError if the checksum does not fit.
    """
    *values, expected = row
    if crc(*values) != expected:
        raise CatalogueError(
            f"the record of id {values[0]} is damaged: its checksum is {crc(*values)}, expected "
            f"{expected}; restore a snapshot or a backup, or delete this id and add its picture "
            "again"
        )
    entry_id, source, split, label, payload, content_hash, origin, edited, *_ = values
    return Entry(
        source, split, label, json.loads(payload), content_hash, origin, bool(edited), id=entry_id
    )


def optional_text(value: str | None, where: str) -> str | None:
    """Return ``value`` if it is None or storable text, else raise IndexInputError."""
    return None if value is None else check_text(value, where)
