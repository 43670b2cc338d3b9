"""The conditions of a filter, and which entries match them.

`index.filters` documents the language and parses it into these; each engine translates them into
its own query language: `index.local.filter_sql`, `index.milvus.expressions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from index.records import Scalar

COLUMNS = ("label", "split", "source")


@dataclass(frozen=True)
class Match:
    """The field equals one of ``values``."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's field, or one element of it, equals one of the values."""
        return any(_same(found, v) for found in scalars_of(entry, self.key) for v in self.values)


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
        return any(self._within(found) for found in scalars_of(entry, self.key))

    def _within(self, value: Scalar) -> bool:
        if isinstance(value, bool | str):
            return False
        return (
            (self.gt is None or value > self.gt)
            and (self.gte is None or value >= self.gte)
            and (self.lt is None or value < self.lt)
            and (self.lte is None or value <= self.lte)
        )


@dataclass(frozen=True)
class HasId:
    """The entry's id is one of ``ids``."""

    ids: tuple[int, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry's id is one of these."""
        return entry["id"] in self.ids


@dataclass(frozen=True)
class Filter:
    """All of ``must``, at least one of ``should`` if there are any, none of ``must_not``."""

    must: tuple["Condition", ...] = ()
    should: tuple["Condition", ...] = ()
    must_not: tuple["Condition", ...] = ()

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry, a mapping with id, label, split, source and payload, matches."""
        return (
            all(condition.matches(entry) for condition in self.must)
            and (not self.should or any(condition.matches(entry) for condition in self.should))
            and not any(condition.matches(entry) for condition in self.must_not)
        )


Condition: TypeAlias = Match | Range | HasId | Filter


def _same(a: Scalar, b: Scalar) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b


def scalars_of(entry: Mapping[str, Any], key: str) -> Sequence[Scalar]:
    """The scalars that a condition on ``key`` compares: the value, or the elements of a list."""
    value: Any = entry[key] if key in COLUMNS else entry["payload"]
    if key not in COLUMNS:
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return ()
            value = value[part]
    elements = value if isinstance(value, list) else [value]
    return [element for element in elements if isinstance(element, bool | int | float | str)]
