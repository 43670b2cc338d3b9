"""Checks of what is stored: payloads that SQLite and Python read alike, records, and changes."""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from index.contract import KEEP, Change, IndexInputError
from index.records import Entry, Json, Payload, PayloadBounds, Record

MAX_DEPTH = 16
_INT64 = 1 << 63


def check_text(text: str, where: str) -> str:
    """Return ``text``, or raise IndexInputError for what SQLite cannot store faithfully."""
    if not isinstance(text, str):
        raise IndexInputError(f"{where} is {text!r}; expected text")
    if "\x00" in text:
        raise IndexInputError(f"{where} is {text!r}; expected text without NUL characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise IndexInputError(f"{where} is {text!r}; expected text without lone surrogates")
    return text


def check_optional_text(value: str | None, where: str) -> str | None:
    """Return ``value`` if it is None or storable text, else raise IndexInputError."""
    return None if value is None else check_text(value, where)


def check_number(number: int | float, where: str) -> int | float:
    """Return ``number``, or raise IndexInputError if it is not finite or exceeds 64 bits."""
    if isinstance(number, float) and not math.isfinite(number):
        raise IndexInputError(f"{where} is {number!r}; expected a finite number")
    if isinstance(number, int) and not -_INT64 <= number < _INT64:
        raise IndexInputError(f"{where} is {number!r}; expected an integer of at most 64 bits")
    return number


def check_payload(payload: Mapping[str, Json], where: str = "payload") -> None:
    """Raise IndexInputError, naming the location, if ``payload`` is not storable JSON.

    Allowed are None, bool, int (64 bits), finite float, text, lists and dicts with text keys,
    nested at most MAX_DEPTH deep.
    """
    if not isinstance(payload, Mapping):
        raise IndexInputError(f"{where} is a {type(payload).__name__}; expected a dict")
    _check(dict(payload), where, 1)


def _check(value: Json, where: str, depth: int) -> None:
    if isinstance(value, list | dict) and depth > MAX_DEPTH:
        raise IndexInputError(f"{where} is nested too deep; expected at most {MAX_DEPTH} levels")
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, int | float):
        check_number(value, where)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            _check(element, f"{where}[{i}]", depth + 1)
    elif isinstance(value, dict):
        for key, element in value.items():
            check_text(key, f"a key of {where}")
            _check(element, f"{where}.{key}", depth + 1)
    elif value is not None:
        raise IndexInputError(
            f"{where} is a {type(value).__name__}; expected None, bool, int, float, text, "
            "list or dict"
        )


def check_record(record: Record, where: str) -> None:
    """Raise IndexInputError, naming the location, if a field of ``record`` cannot be stored."""
    if not check_text(record.source, f"{where}.source"):
        raise IndexInputError(f"{where}.source is empty; expected a unique name")
    check_payload(record.payload, f"{where}.payload")
    for name in ("split", "label", "content_hash"):
        check_optional_text(getattr(record, name), f"{where}.{name}")


def check_bounds(record: Record, bounds: PayloadBounds, before: Payload | None = None) -> None:
    """Raise IndexInputError, naming the picture, unless what is stored with it is within bounds.

    What exceeded a bound ``before``, the payload that is changed, may stay so, but not grow.
    """
    name = f"the picture {record.source[:200]!r}"
    for field in ("label", "split"):
        length = len(getattr(record, field) or "")
        if length > bounds.chars:
            raise IndexInputError(
                f"the {field} of {name} has {length:,} characters; expected at most "
                f"{bounds.chars:,}"
            )
    if not record.payload:
        return
    had = (0, 0, 0, 0) if before is None else _measures(before)
    for what, has, most, earlier in zip(
        ("bytes as JSON", "keys", "tags", "characters in a key or tag"),
        _measures(record.payload),
        (bounds.size, bounds.keys, bounds.tags, bounds.chars),
        had,
        strict=True,
    ):
        if has > max(most, earlier):
            raise IndexInputError(
                f"the payload of {name} has {has:,} {what}; expected at most {most:,}: send less, "
                "or remove what is stored"
            )


def _measures(payload: Payload) -> tuple[int, int, int, int]:
    """Bytes as JSON, keys, tags, and characters of the longest key or tag."""
    size = len(json.dumps(payload, ensure_ascii=False).encode())
    keys: list[str] = []
    remaining: list[Json] = [payload]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            keys += value
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value
    tags = payload.get("tags")
    words = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    count = len(tags) if isinstance(tags, list) else 0
    return size, len(keys), count, max(map(len, [*keys, *words]), default=0)


def storable(records: Sequence[Record], embeddings: int, bounds: PayloadBounds) -> list[Record]:
    """These records as they are stored: labels, splits and tags in Unicode NFC.

    Raises IndexInputError unless they can be stored, have distinct sources, and fit in number.
    """
    if len(records) != embeddings:
        raise IndexInputError(f"got {len(records)} records for {embeddings} embeddings")
    for i, record in enumerate(records):
        check_record(record, f"records[{i}]")
        check_bounds(record, bounds)
    check_sources([record.source for record in records])
    return [_composed(record) for record in records]


def check_sources(sources: Sequence[str]) -> None:
    """Raise IndexInputError unless these are storable and distinct."""
    for i, source in enumerate(sources):
        check_record(Record(source), f"sources[{i}]")
    if len(set(sources)) != len(sources):
        raise IndexInputError("a source is given more than once; expected each source once")


def nfc(text: str) -> str:
    """The text with composed characters, so that what looks alike is alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(text: str) -> tuple[str, ...]:
    """The text as it is given, composed and decomposed: what looks alike and may be stored."""
    forms = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    return (text,) if text.isascii() else (*dict.fromkeys((text, *forms)),)


def _composed(record: Record) -> Record:
    label, split = (value and nfc(value) for value in (record.label, record.split))
    payload = _composed_tags(record.payload)
    if (label, split, payload) == (record.label, record.split, record.payload):
        return record
    return replace(record, label=label, split=split, payload=payload)


def _composed_tags(payload: Payload) -> Payload:
    """The payload with its tags in NFC, each once; other text stays as it was given."""
    tags = payload.get("tags")
    if not isinstance(tags, list):
        return payload
    words = [tag for tag in tags if isinstance(tag, str)]
    composed = [nfc(word) for word in words]
    if composed == words or len(words) < len(tags):
        return payload
    return {**payload, "tags": [*dict.fromkeys(composed)]}


def other_origin(record: Record) -> IndexInputError:
    """The error for a source that is already stored with another origin."""
    return IndexInputError(
        f"the source {record.source!r} is stored with another origin than {record.origin!r}; "
        "use another name"
    )


class FieldChanges:
    """The arguments of `index.contract.Catalogue.update`, checked; raises IndexInputError."""

    def __init__(
        self,
        label: Change,
        split: Change,
        payload: Payload | None,
        replace_payload: bool,
        by_hand: bool,
        bounds: PayloadBounds,
        payloads: Mapping[int, Payload] | None = None,
    ) -> None:
        self._fields: dict[str, Any] = {
            name: None if value is None else nfc(check_text(value, name))
            for name, value in (("label", label), ("split", split))
            if value is not KEEP
        }
        if self._fields and by_hand:
            self._fields["edited"] = True
        if payload is not None:
            check_payload(payload)
        for one in (payloads or {}).values():
            check_payload(one)
        self._payload = payload and _composed_tags(payload)
        self._payloads = {id_: _composed_tags(one) for id_, one in (payloads or {}).items()}
        self._replace = replace_payload
        self._bounds = bounds

    def of(self, entry: Entry) -> dict[str, Any]:
        """The fields of ``entry`` to set, by name.

        Raises IndexInputError if the result exceeds the bounds; see `check_bounds`.
        """
        values = dict(self._fields)
        payload = self._payloads.get(entry.id, self._payload)
        if payload is not None:
            values["payload"] = {**({} if self._replace else entry.payload), **payload}
        changed = {name: values[name] for name in ("label", "split", "payload") if name in values}
        check_bounds(
            replace(Entry(entry.source, id=entry.id), **changed), self._bounds, entry.payload
        )
        return values
