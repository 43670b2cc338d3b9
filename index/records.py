"""A picture as the catalogue takes it and gives it back."""

import json
from dataclasses import dataclass, field

from index.neighbours import IndexInputError
from index.payload import Payload, check_payload, check_text


@dataclass(frozen=True)
class Record:
    """A picture to store. ``source`` is its unique name, for example a path inside the corpus."""

    source: str
    split: str | None = None
    label: str | None = None
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True)
class Entry(Record):
    """A stored picture: a Record with its id."""

    id: int = field(kw_only=True)


def row_from_record(record: Record, where: str) -> tuple[str, str | None, str | None, str]:
    """The record as source, split, label and payload in JSON.

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
    )


def entry_from_row(row: tuple[int, str, str | None, str | None, str]) -> Entry:
    """The entry of a row: id, source, split, label and payload in JSON."""
    entry_id, source, split, label, payload = row
    return Entry(source, split, label, json.loads(payload), id=entry_id)


def optional_text(value: str | None, where: str) -> str | None:
    """Return ``value`` if it is None or storable text, else raise IndexInputError."""
    return None if value is None else check_text(value, where)
