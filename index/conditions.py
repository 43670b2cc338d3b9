"""The conditions of a filter, and which entries match them.

`index.filters` documents the language and parses it into these; each engine translates them into
its own query language: `index.local.filter_sql`, `index.milvus.expressions`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from index.dates import instant
from index.records import Scalar
from index.words import has_words

COLUMNS = ("label", "split", "source")

_QUOTED = re.compile(r'"([^"]+)"((?:\[\])*)(?:\.|\Z)')
_POSITION = re.compile(r"\[\d+\]\Z")


@dataclass(frozen=True)
class Match:
    """The field equals one of ``values``."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, equals one of the values."""
        return any(_same(found, v) for found in scalars_of(entry, self.key) for v in self.values)


@dataclass(frozen=True)
class Except:
    """The field has a value, and it is none of ``values``."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, is another value, and not null."""
        return any(
            found is not None and not any(_same(found, value) for value in self.values)
            for found in _elements(values_of(entry, self.key))
        )


@dataclass(frozen=True)
class Range:
    """The field is a number within the given bounds."""

    key: str
    gt: int | float | None = None
    gte: int | float | None = None
    lt: int | float | None = None
    lte: int | float | None = None

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, is a number within the bounds."""
        return any(
            not isinstance(found, bool | str) and within(self, found)
            for found in scalars_of(entry, self.key)
        )


@dataclass(frozen=True)
class DateRange:
    """The field is a date within the given bounds, which are of `index.dates.instant`."""

    key: str
    gt: str | None = None
    gte: str | None = None
    lt: str | None = None
    lte: str | None = None

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, is a date within the bounds."""
        return any(
            isinstance(found, str) and self.holds(found) for found in scalars_of(entry, self.key)
        )

    def holds(self, text: str) -> bool:
        """Whether the text is a date within the bounds."""
        found = instant(text)
        return found is not None and within(self, found)


@dataclass(frozen=True)
class Words:
    """The field is text with all of ``words``, which are of `index.words.words_of`, sorted."""

    key: str
    words: tuple[str, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, is text with all of the words."""
        return any(
            isinstance(found, str) and has_words(found, self.words)
            for found in scalars_of(entry, self.key)
        )


@dataclass(frozen=True)
class IsEmpty:
    """The field is missing, null or an empty list."""

    key: str

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field holds nothing."""
        return all(found is None or found == [] for found in values_of(entry, self.key))


@dataclass(frozen=True)
class IsNull:
    """The field is present, and null."""

    key: str

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field is null."""
        return any(found is None for found in values_of(entry, self.key))


@dataclass(frozen=True)
class ValuesCount:
    """How many values the field has: the length of a list, 0 if null or missing, else 1."""

    key: str
    gt: int | float | None = None
    gte: int | float | None = None
    lt: int | float | None = None
    lte: int | float | None = None

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the number of the entry's values is within the bounds."""
        counts = [_count(found) for found in values_of(entry, self.key)]
        return any(within(self, count) for count in counts or [0])


@dataclass(frozen=True)
class HasId:
    """The entry's id is one of ``ids``."""

    ids: tuple[int, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's id is one of these."""
        return entry["id"] in self.ids


@dataclass(frozen=True)
class Nested:
    """The field is a list with an object that matches ``filter``, whose keys are the object's."""

    key: str
    filter: "Filter"

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether one object in the entry's list matches the filter by itself."""
        return any(
            isinstance(found, Mapping) and self.filter.matches({"payload": found})
            for found in values_of(entry, f"{self.key}[]")
        )


@dataclass(frozen=True)
class Filter:
    """All of ``must``, at least one of ``should`` if there are any, none of ``must_not``."""

    must: tuple["Condition", ...] = ()
    should: tuple["Condition", ...] = ()
    must_not: tuple["Condition", ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it has no condition, nor has any filter within it."""
        inner = (*self.must, *self.should, *self.must_not)
        return all(isinstance(one, Filter) and one.empty for one in inner)

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry, a mapping with id, label, split, source and payload, matches."""
        return (
            all(condition.matches(entry) for condition in self.must)
            and (not self.should or any(condition.matches(entry) for condition in self.should))
            and not any(condition.matches(entry) for condition in self.must_not)
        )


FieldCondition: TypeAlias = (
    Match | Except | Range | DateRange | Words | IsEmpty | IsNull | ValuesCount | Nested
)
Condition: TypeAlias = FieldCondition | HasId | Filter


def within(bounds: Range | DateRange | ValuesCount, value: Any) -> bool:
    """Whether a number, or an instant, is within the bounds."""
    return bool(
        (bounds.gt is None or value > bounds.gt)
        and (bounds.gte is None or value >= bounds.gte)
        and (bounds.lt is None or value < bounds.lt)
        and (bounds.lte is None or value <= bounds.lte)
    )


@lru_cache(1024)
def steps_of(key: str) -> tuple[str | None, ...]:
    """The names in a key; None stands for ``[]``, every element of a list.

    Raises ValueError if it is not names with dots between them.
    """
    steps: list[str | None] = []
    rest, more = key, True
    while more:
        if quoted := _QUOTED.match(rest):
            name, brackets = quoted.groups()
            more, rest = quoted[0].endswith("."), rest[quoted.end() :]
        else:
            part, dot, rest = rest.partition(".")
            name, more = part, bool(dot)
            while name.endswith("[]") and name != "[]":
                name = name[:-2]
            brackets = part[len(name) :]
            if not name:
                raise ValueError("expected names with dots between them")
            if _POSITION.search(name):
                raise ValueError(
                    "a position in a list is not supported; write"
                    f' {_POSITION.sub("[]", name)} for any element, or "{name}" with the quotes if'
                    " that is the name"
                )
        steps += [name, *[None] * (len(brackets) // 2)]
    return tuple(steps)


def plain_name(key: str) -> str | None:
    """A key whose field can be told by names with dots between them alone; None for others."""
    steps = steps_of(key)
    if any(step is None or "." in step for step in steps):
        return None
    name = ".".join(filter(None, steps))
    return name if name == key or name not in COLUMNS else None


def values_of(entry: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The values of a field as they are stored: one, or none, or one for each element at ``[]``.

    ``entry`` has the columns and the payload, or only the payload: that of a nested filter.
    """
    if key in COLUMNS and key in entry:
        return (entry[key],)
    found: list[Any] = [entry["payload"]]
    for step in steps_of(key):
        if step is None:
            found = [element for value in found if isinstance(value, list) for element in value]
        else:
            found = [v[step] for v in found if isinstance(v, Mapping) and step in v]
    return found


def scalars_of(entry: Mapping[str, Any], key: str) -> Sequence[Scalar]:
    """The scalars that a condition on ``key`` compares: the values, or the elements of lists."""
    return [
        found
        for found in _elements(values_of(entry, key))
        if isinstance(found, bool | int | float | str)
    ]


def _elements(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _count(value: Any) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, list) else 1


def _same(a: Any, b: Scalar) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)
