"""Filters over labels, splits, sources, ids and payloads, in Qdrant's filter language.

``{"must": [...], "should": [...], "must_not": [...]}``: all of ``must``, at least one of
``should`` if there are any, none of ``must_not``; an empty filter matches everything. A condition
is one of::

    {"key": "label", "match": {"value": "cat"}}
    {"key": "tags", "match": {"any": ["red", "blue"]}}
    {"key": "meta.year", "range": {"gte": 1990, "lt": 2000}}
    {"has_id": [1, 2, 3]}
    a nested filter

``label``, ``split`` and ``source`` are columns of the catalogue; any other key is a payload field,
with dots between the names of nested objects. If the field is a list, one matching element is
enough. Comparison is typed: ``true`` is not 1, ``"1"`` is not 1, but 1 equals 1.0.

Source of the semantics: https://qdrant.tech/documentation/concepts/filtering/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from index.conditions import Condition, Filter, HasId, Match, Range
from index.contract import FilterError, IndexInputError
from index.payload import check_number, check_text
from index.records import Scalar

MAX_KEY_PARTS = 8
_CLAUSES = ("must", "should", "must_not")
_BOUNDS = ("gt", "gte", "lt", "lte")


@dataclass(frozen=True)
class FilterBounds:
    """How large a filter may be.

    Attributes:
        depth: levels of nested filters, including the outermost.
        conditions: in total; SQLite's limit is some 900.
        values: of ``any`` and ``has_id``, in total.
    """

    depth: int = 5
    conditions: int = 256
    values: int = 16_384


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
        fields = _object(obj, here, ("key", "match", "range", "has_id"))
        if "has_id" in fields:
            if len(fields) > 1:
                raise FilterError(f"{here} has more than has_id; expected has_id alone")
            return HasId(self._ids(fields["has_id"], f"{here}.has_id"))
        if "key" not in fields or ("match" in fields) == ("range" in fields):
            raise FilterError(
                f"{here} has {sorted(fields)}; expected key with either match or range, or "
                f"has_id, or a nested filter of {', '.join(_CLAUSES)}"
            )
        key = check_key(fields["key"], f"{here}.key")
        if "match" in fields:
            return Match(key, self._match(fields["match"], f"{here}.match"))
        return Range(key, **_bounds(fields["range"], f"{here}.range"))

    def _match(self, obj: object, here: str) -> tuple[Scalar, ...]:
        fields = _object(obj, here, ("value", "any"))
        if len(fields) != 1:
            raise FilterError(f"{here} has {sorted(fields)}; expected either value or any")
        if "value" in fields:
            return (_scalar(fields["value"], f"{here}.value"),)
        values = self._list(fields["any"], f"{here}.any")
        return tuple(_scalar(value, f"{here}.any[{i}]") for i, value in enumerate(values))

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


def _object(obj: object, here: str, words: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(obj, Mapping):
        raise FilterError(f"{here} is {obj!r}; expected an object with {', '.join(words)}")
    unknown = [word for word in obj if word not in words]
    if unknown:
        raise FilterError(f"{here} has the unknown word {unknown[0]!r}; expected {words}")
    return obj


def check_key(obj: object, here: str) -> str:
    """Return ``obj`` if it names a field: names with dots between them.

    Raises FilterError, whose message names ``here`` as the location.
    """
    if not isinstance(obj, str) or not all(obj.split(".")):
        raise FilterError(f"{here} is {obj!r}; expected names with dots between them")
    if obj.count(".") >= MAX_KEY_PARTS:
        raise FilterError(f"{here} is {obj!r}; expected at most {MAX_KEY_PARTS} names")
    _checked(obj, here)
    return obj


def _scalar(obj: object, here: str) -> Scalar:
    if not isinstance(obj, bool | int | float | str):
        raise FilterError(f"{here} is {obj!r}; expected text, a number, true or false")
    _checked(obj, here)
    return obj


def _bounds(obj: object, here: str) -> dict[str, int | float]:
    bounds: dict[str, int | float] = {}
    for name, bound in _object(obj, here, _BOUNDS).items():
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise FilterError(f"{here}.{name} is {bound!r}; expected a number")
        _checked(bound, f"{here}.{name}")
        bounds[name] = bound
    if not bounds:
        raise FilterError(f"{here} has no bound; expected at least one of {', '.join(_BOUNDS)}")
    return bounds


def _checked(value: Scalar, here: str) -> None:
    try:
        if isinstance(value, str):
            check_text(value, here)
        elif not isinstance(value, bool):
            check_number(value, here)
    except IndexInputError as error:
        raise FilterError(str(error)) from error
