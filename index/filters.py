"""Filters over labels, splits, sources, ids and payloads, in Qdrant's filter language.

``{"must": [...], "should": [...], "must_not": [...]}``: all of ``must``, at least one of
``should`` if there are any, none of ``must_not``; an empty filter matches everything. A condition
is one of::

    {"key": "label", "match": {"value": "cat"}}
    {"key": "tags", "match": {"any": ["red", "blue"]}}
    {"key": "tags", "match": {"except": ["red", "blue"]}}
    {"key": "title", "match": {"text": "good cheap"}}
    {"key": "meta.year", "range": {"gte": 1990, "lt": 2000}}
    {"key": "exif.taken", "range": {"gte": "2024-05-01T00:00:00+02:00", "lt": "2024-06-01"}}
    {"key": "tags", "values_count": {"gte": 2}}
    {"is_empty": {"key": "label"}}
    {"is_null": {"key": "label"}}
    {"nested": {"key": "boxes", "filter": a filter of one object in the list}}
    {"has_id": [1, 2, 3]}
    a nested filter

``label``, ``split`` and ``source`` are columns of the catalogue; any other key is a payload field,
with dots between the names of nested objects. ``boxes[].kind`` is the kind of every object in the
list ``boxes``. A name with a dot or brackets in it stands in double quotes: ``meta."a.b"``. If the
field is a list, one matching element is enough. Comparison is typed: ``true`` is not 1, ``"1"`` is
not 1, but 1 equals 1.0. Texts that look alike, with composed or decomposed characters, are equal.

``any`` and ``except`` compare with every value listed; ``except`` needs a value, neither missing
nor null. ``text`` matches if one text has all of its words, in any order (`index.words`). A range
has either numbers as its bounds, and compares numbers, or dates, and compares texts that are dates,
as instants (`index.dates`). ``is_empty`` is missing, null or ``[]``; ``is_null`` is present and
null: a picture without a label has a null label.

Source of the semantics: https://qdrant.tech/documentation/concepts/filtering/
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from index.conditions import (
    Condition,
    DateRange,
    Except,
    FieldCondition,
    Filter,
    HasId,
    IsEmpty,
    IsNull,
    Match,
    Nested,
    Range,
    ValuesCount,
    Words,
    steps_of,
)
from index.contract import FilterError, IndexInputError
from index.dates import instant
from index.payload import check_number, check_text, spellings
from index.records import Scalar
from index.sorting import OrderBy
from index.words import words_of

MAX_KEY_PARTS = 8
_MAX_MARKS = 64
_CLAUSES = ("must", "should", "must_not")
_BOUNDS = ("gt", "gte", "lt", "lte")
_TESTS = ("match", "range", "values_count", "is_empty", "is_null")
_ALONE = ("has_id", "is_empty", "is_null", "nested")
_CONDITIONS = ("key", *_TESTS, "has_id", "nested")
_MATCHES = ("value", "any", "except", "text")


@dataclass(frozen=True)
class FilterBounds:
    """How large a filter may be.

    Attributes:
        depth: levels of nested filters, including the outermost.
        conditions: in total; SQLite's limit is some 900.
        values: of ``any``, ``except`` and ``has_id``, in total.
        chars: of one ``text``.
        words: of all ``text``, in total.
    """

    depth: int = 5
    conditions: int = 256
    values: int = 16_384
    chars: int = 1_000
    words: int = 256


def parse_filter(obj: object, bounds: FilterBounds = FilterBounds()) -> Filter:
    """Build a Filter from decoded JSON. A clause or bound of None counts as absent.

    Raises FilterError for unknown words, wrong types and a filter that exceeds ``bounds``.
    """
    return _Parser(bounds).filter(obj, "filter", "", 1)


class _Parser:
    def __init__(self, bounds: FilterBounds) -> None:
        self._bounds = bounds
        self._conditions = 0
        self._values = 0
        self._words = 0
        self._in_nested = False

    def filter(self, obj: object, here: str, prefix: str, depth: int) -> Filter:
        if depth > (most := self._bounds.depth):
            raise FilterError(f"{here} is nested too deep; expected at most {most}")
        fields = _object(obj, here, _CLAUSES)
        clauses: dict[str, tuple[Condition, ...]] = {}
        for clause in _CLAUSES:
            conditions = fields.get(clause)
            if conditions is None:
                continue
            if not isinstance(conditions, list):
                raise FilterError(f"{prefix}{clause} is {conditions!r}; expected a list")
            clauses[clause] = tuple(
                self._condition(condition, f"{prefix}{clause}[{i}]", depth)
                for i, condition in enumerate(conditions)
            )
        return Filter(**clauses)

    def _condition(self, obj: object, here: str, depth: int) -> Condition:
        self._conditions += 1
        if self._conditions > (most := self._bounds.conditions):
            raise FilterError(f"{here} is one too many; expected at most {most}")
        if isinstance(obj, Mapping) and any(clause in obj for clause in _CLAUSES):
            return self.filter(obj, here, f"{here}.", depth + 1)
        fields = _object(obj, here, _CONDITIONS, _CLAUSES)
        if "key" in fields:
            return self._of_field(fields, here)
        (word, *others) = fields or ("",)
        if others or word not in _ALONE:
            raise FilterError(
                f"{here} has {sorted(fields)}; expected key with one of {', '.join(_TESTS)}, or one"
                f" of {', '.join(_ALONE)}, or a nested filter of {', '.join(_CLAUSES)}"
            )
        if word == "has_id":
            if self._in_nested:
                raise FilterError(f"{here} is in a nested condition; the objects there have no id")
            return HasId(self._ids(fields[word], f"{here}.{word}"))
        if word == "nested":
            return self._nested(fields[word], f"{here}.{word}", depth)
        inner = _object(fields[word], f"{here}.{word}", ("key",))
        key = check_key(inner.get("key"), f"{here}.{word}.key")
        return IsEmpty(key) if word == "is_empty" else IsNull(key)

    def _of_field(self, fields: Mapping[str, Any], here: str) -> Condition:
        tests = [test for test in _TESTS if test in fields]
        if len(tests) != 1 or len(fields) > 2:
            raise FilterError(
                f"{here} has {sorted(fields)}; expected key with one of {', '.join(_TESTS)}"
            )
        (test,) = tests
        key = check_key(fields["key"], f"{here}.key")
        obj, where = fields[test], f"{here}.{test}"
        if test == "match":
            return self._match(key, obj, where)
        if test == "range":
            return _range(key, obj, where)
        if test == "values_count":
            return ValuesCount(key, **_numbers(_bounds(obj, where), where))
        if not isinstance(obj, bool):
            raise FilterError(f'{where} is {obj!r}; expected true, false, or {{"key": ...}} alone')
        condition = IsEmpty(key) if test == "is_empty" else IsNull(key)
        return condition if obj else Filter(must_not=(condition,))

    def _nested(self, obj: object, here: str, depth: int) -> Nested:
        fields = _object(obj, here, ("key", "filter"))
        if len(fields) != 2:
            raise FilterError(f"{here} has {sorted(fields)}; expected key and filter")
        key = check_key(fields["key"], f"{here}.key")
        outside, self._in_nested = self._in_nested, True
        where = self.filter(fields["filter"], f"{here}.filter", f"{here}.filter.", depth + 1)
        self._in_nested = outside
        return Nested(key.removesuffix("[]"), where)

    def _match(self, key: str, obj: object, here: str) -> FieldCondition:
        fields = _object(obj, here, _MATCHES)
        if len(fields) != 1:
            raise FilterError(f"{here} has {sorted(fields)}; expected one of {', '.join(_MATCHES)}")
        ((word, found),) = fields.items()
        here = f"{here}.{word}"
        if word == "value":
            return Match(key, _spelled((_scalar(found, here),)))
        if word == "text":
            return Words(key, self._text(found, here))
        values = tuple(_scalar(v, f"{here}[{i}]") for i, v in enumerate(self._list(found, here)))
        return (Match if word == "any" else Except)(key, _spelled(values))

    def _text(self, obj: object, here: str) -> tuple[str, ...]:
        if not isinstance(obj, str):
            raise FilterError(f"{here} is {obj!r}; expected text")
        if len(obj) > (most := self._bounds.chars):
            raise FilterError(f"{here} has {len(obj):,} characters; expected at most {most:,}")
        _checked(obj, here)
        words = sorted(words_of(obj))
        if not words:
            raise FilterError(f"{here} is {obj!r}; expected at least one word")
        self._words += len(words)
        if self._words > (most := self._bounds.words):
            raise FilterError(f"{here} has too many words; expected at most {most} in all")
        return tuple(words)

    def _ids(self, obj: object, here: str) -> tuple[int, ...]:
        values = self._list(obj, here)
        for i, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int):
                raise FilterError(f"{here}[{i}] is {value!r}; expected an integer id")
            _checked(value, f"{here}[{i}]")
        return tuple(values)

    def _list(self, obj: object, here: str) -> list[Any]:
        if not isinstance(obj, list) or not obj:
            raise FilterError(f"{here} is {obj!r}; expected a list with at least one value")
        self._values += len(obj)
        if self._values > (most := self._bounds.values):
            raise FilterError(f"{here} has too many values; expected at most {most} in all")
        return obj


def _object(
    obj: object, here: str, words: tuple[str, ...], others: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    """``obj`` as an object with some of ``words``; the error for another may suggest ``others``."""
    if not isinstance(obj, Mapping):
        raise FilterError(f"{here} is {obj!r}; expected an object with {', '.join(words)}")
    for word in obj:
        if word not in words:
            near = get_close_matches(str(word)[:100], (*words, *others), 1)
            expected = f"{near[0]!r} perhaps, or one of " if near else ""
            raise FilterError(
                f"{here} has the unknown word {word!r}; expected {expected}{', '.join(words)}"
            )
    return obj


def check_key(obj: object, here: str) -> str:
    """Return ``obj`` if it names a field: names with dots between them.

    Raises FilterError, whose message names ``here`` as the location.
    """
    if not isinstance(obj, str):
        raise FilterError(f"{here} is {obj!r}; expected names with dots between them")
    try:
        steps = steps_of(obj) if obj.count(".") + obj.count("[]") < _MAX_MARKS else None
    except ValueError as error:
        raise FilterError(f"{here} is {obj!r}; {error}") from None
    if (
        steps is None
        or len(steps) - steps.count(None) > MAX_KEY_PARTS
        or len(steps) > 2 * MAX_KEY_PARTS
    ):
        raise FilterError(f"{here} is {obj!r}; expected at most {MAX_KEY_PARTS} names")
    _checked(obj, here)
    return obj


def check_order(order: OrderBy, limit: int) -> None:
    """Raise FilterError if the key names no field, and IndexInputError for an unusable limit."""
    check_key(order.key, "order_by")
    if limit < 1:
        raise IndexInputError(f"limit is {limit}; expected 1 or more")
    check_number(limit, "limit")


def _spelled(values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """These values, and each text in the other forms in which it may be stored."""
    forms = (spellings(value) if isinstance(value, str) else (value,) for value in values)
    return tuple(itertools.chain.from_iterable(forms))


def _scalar(obj: object, here: str) -> Scalar:
    if not isinstance(obj, bool | int | float | str):
        hint = "; is_null finds null" if obj is None else ""
        raise FilterError(f"{here} is {obj!r}; expected text, a number, true or false{hint}")
    _checked(obj, here)
    return obj


def _range(key: str, obj: object, here: str) -> Range | DateRange:
    bounds = _bounds(obj, here)
    texts = [name for name, bound in bounds.items() if isinstance(bound, str)]
    if not texts:
        return Range(key, **_numbers(bounds, here))
    if len(texts) < len(bounds):
        raise FilterError(f"{here} is {obj!r}; expected either numbers or dates, not both")
    instants: dict[str, str] = {}
    for name, bound in bounds.items():
        found = instant(bound)
        if found is None:
            raise FilterError(
                f"{here}.{name} is {bound!r}; expected a number, or a date as in RFC 3339:"
                " 2024-05-31, 2024-05-31T18:30:00Z or 2024-05-31T20:30:00.5+02:00"
            )
        instants[name] = found
    return DateRange(key, **instants)


def _bounds(obj: object, here: str) -> dict[str, Any]:
    bounds = {n: bound for n, bound in _object(obj, here, _BOUNDS).items() if bound is not None}
    if not bounds:
        raise FilterError(f"{here} has no bound; expected at least one of {', '.join(_BOUNDS)}")
    return bounds


def _numbers(bounds: Mapping[str, Any], here: str) -> dict[str, int | float]:
    for name, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise FilterError(f"{here}.{name} is {bound!r}; expected a number")
        _checked(bound, f"{here}.{name}")
    return dict(bounds)


def _checked(value: Scalar, here: str) -> None:
    try:
        if isinstance(value, str):
            check_text(value, here)
        elif not isinstance(value, bool):
            check_number(value, here)
    except IndexInputError as error:
        raise FilterError(str(error)) from error
