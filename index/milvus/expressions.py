"""Filters in Milvus's expression language.

Each condition has two expressions: one that matches at least the rows that the condition matches,
and one that matches at most those. ``must_not`` swaps them. Unless the two are equal, the filter
itself must be applied to what Milvus returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from index.conditions import (
    COLUMNS,
    Condition,
    DateRange,
    Except,
    FieldCondition,
    Filter,
    HasId,
    IsEmpty,
    IsNull,
    Match,
    Range,
    ValuesCount,
    plain_name,
    within,
)
from index.dates import seconds
from index.milvus.rows import MARKED, above, below, mark, token

EVERYTHING = "id >= 0"
NOTHING = "id < 0"


class Expression(NamedTuple):
    """``wide`` matches at least the rows that the condition matches, ``narrow`` at most those."""

    wide: str
    narrow: str

    @property
    def exact(self) -> bool:
        """Whether Milvus's result needs no further filtering."""
        return self.wide == self.narrow


UNKNOWN = Expression(EVERYTHING, NOTHING)


def expression(where: Filter) -> Expression:
    """The filter as expressions over the rows of `index.milvus.rows`."""
    return _filter(where)


def listed(ids: Sequence[int]) -> str:
    """The expression that matches these ids."""
    return f"id in [{', '.join(map(str, ids))}]" if len(ids) else NOTHING


def both(first: str, second: str) -> str:
    """The conjunction of two expressions; an empty one matches everything."""
    return f"({first}) and ({second})" if first and second else first or second


def _filter(where: Filter) -> Expression:
    wide, narrow = [], []
    if where.must:
        parts = [_condition(condition) for condition in where.must]
        wide.append(_join("and", [part.wide for part in parts]))
        narrow.append(_join("and", [part.narrow for part in parts]))
    if where.should:
        parts = [_condition(condition) for condition in where.should]
        wide.append(_join("or", [part.wide for part in parts]))
        narrow.append(_join("or", [part.narrow for part in parts]))
    if where.must_not:
        parts = [_condition(condition) for condition in where.must_not]
        wide.append(f"not ({_join('or', [part.narrow for part in parts])})")
        narrow.append(f"not ({_join('or', [part.wide for part in parts])})")
    if not wide:
        return Expression(EVERYTHING, EVERYTHING)
    return Expression(_join("and", wide), _join("and", narrow))


def _condition(condition: Condition) -> Expression:
    match condition:
        case HasId():
            # Milvus cannot parse all negative numbers, and no id is negative.
            ids = [i for i in condition.ids if i >= 0]
            return Expression(listed(ids), listed(ids))
        case Filter():
            return _filter(condition)
    name = plain_name(condition.key)
    return UNKNOWN if name is None else _of_field(name, condition)


def _of_field(name: str, condition: FieldCondition) -> Expression:
    match condition:
        case Match():
            return _match(name, condition)
        case Except():
            return _except(name, condition)
        case Range() if name in COLUMNS:
            return Expression(NOTHING, NOTHING)
        case Range():
            return _between(mark(name, "numbers"), condition)
        case DateRange():
            return _dates(name, condition)
        case IsNull():
            null = _has(mark(name, "null"))
            return Expression(f"({null}) or {_UNMARKED}", null)
        case IsEmpty():
            return _inverted(_filled(name))
        case ValuesCount() if within(condition, 0):
            return Expression(EVERYTHING, _inverted(_filled(name)).narrow)
        case _:
            return Expression(_filled(name).wide, NOTHING)


# Rows that earlier versions wrote have no marks, and may match whatever these say.
_UNMARKED = f'not (array_contains(facts, "{MARKED}"))'


def _has(*tokens: str) -> str:
    """Whether a row has one of the tokens."""
    if not tokens:
        return NOTHING
    if len(tokens) == 1:
        return f'array_contains(facts, "{tokens[0]}")'
    words = ", ".join(f'"{word}"' for word in sorted(tokens))
    return f"array_contains_any(facts, [{words}])"


def _filled(name: str) -> Expression:
    """Whether the field holds anything."""
    filled = _has(mark(name, "filled"))
    return Expression(f"({filled}) or {_UNMARKED}", filled)


def _inverted(of: Expression) -> Expression:
    return Expression(f"not ({of.narrow})", f"not ({of.wide})")


def _match(name: str, condition: Match) -> Expression:
    values = condition.values
    if name in COLUMNS:
        values = tuple(value for value in values if isinstance(value, str))
    text = _has(*{token(name, value) for value in values})
    return Expression(text, text)


def _except(name: str, condition: Except) -> Expression:
    filled = _filled(name)
    if name not in COLUMNS:  # of a list, another element may match
        return Expression(filled.wide, NOTHING)
    texts = {value for value in condition.values if isinstance(value, str)}
    others = f"not ({_has(*(token(name, value) for value in texts))})"
    return Expression(both(filled.wide, others), both(filled.narrow, others))


def _dates(name: str, condition: DateRange) -> Expression:
    bounds = {
        word: None if (bound := getattr(condition, word)) is None else seconds(bound)
        for word in ("gt", "gte", "lt", "lte")
    }
    found = _between(mark(name, "dates"), Range(name, **bounds))
    return Expression(f"({found.wide}) or {_UNMARKED}", found.narrow)


def _between(name: str, condition: Range) -> Expression:
    """Whether a field with a mark is within the bounds."""
    low, high = f'low["{name}"]', f'high["{name}"]'
    # Tested first, because comparing a missing number depends on the version of Milvus.
    numbers = _has(name)
    wide, narrow = [numbers], [numbers]
    # The stored extremes were rounded outwards, and so are the bounds.
    for bound, strict in ((condition.gt, True), (condition.gte, False)):
        if bound is not None:
            wide.append(f"{high} >= {_number(below(bound))}")
            narrow.append(f"{low} {'>' if strict else '>='} {_number(above(bound))}")
    for bound, strict in ((condition.lt, True), (condition.lte, False)):
        if bound is not None:
            wide.append(f"{low} <= {_number(above(bound))}")
            narrow.append(f"{high} {'<' if strict else '<='} {_number(below(bound))}")
    return Expression(_join("and", wide), _join("and", narrow))


def _number(value: float) -> str:
    """A float literal in Milvus's syntax, which needs a decimal point."""
    text = repr(float(value))
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _join(word: str, parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    # Balanced, because Milvus's parser nests one level for each operator of a chain.
    middle = len(parts) // 2
    return f"({_join(word, parts[:middle])}) {word} ({_join(word, parts[middle:])})"
