"""Filters in Milvus's language.

Each condition is said twice: by an expression that holds wherever the condition does, and perhaps
elsewhere, and by one that holds only where the condition does. ``must_not`` turns one into the
other. Whoever searches tries the filter itself on what Milvus gives, unless the two are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from index.conditions import COLUMNS, Condition, Filter, HasId, Match, Range
from index.milvus.rows import above, below, token

EVERYTHING = "id >= 0"
NOTHING = "id < 0"


class Expression(NamedTuple):
    """``wide`` holds at least where the condition holds, ``narrow`` at most there."""

    wide: str
    narrow: str

    @property
    def exact(self) -> bool:
        """Whether Milvus's answer needs no second look."""
        return self.wide == self.narrow


def expression(where: Filter) -> Expression:
    """The filter as expressions over the rows of `index.milvus.rows`."""
    return _filter(where)


def listed(ids: Sequence[int]) -> str:
    """The expression for these ids."""
    return f"id in [{', '.join(map(str, ids))}]" if len(ids) else NOTHING


def both(first: str, second: str) -> str:
    """The expression that holds where both do; an empty one holds everywhere."""
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
        case Match():
            return _match(condition)
        case Range():
            return _range(condition)
        case HasId():
            # What no id can be is left out: some of it Milvus does not read.
            ids = [i for i in condition.ids if i >= 0]
            return Expression(listed(ids), listed(ids))
        case Filter():
            return _filter(condition)


def _match(condition: Match) -> Expression:
    values = condition.values
    if condition.key in COLUMNS:
        values = tuple(value for value in values if isinstance(value, str))
    tokens = sorted({token(condition.key, value) for value in values})
    if not tokens:
        said = NOTHING
    elif len(tokens) == 1:
        said = f'array_contains(facts, "{tokens[0]}")'
    else:
        words = ", ".join(f'"{word}"' for word in tokens)
        said = f"array_contains_any(facts, [{words}])"
    return Expression(said, said)


def _range(condition: Range) -> Expression:
    if condition.key in COLUMNS:
        return Expression(NOTHING, NOTHING)
    name = token(condition.key, None)
    low, high = f'low["{name}"]', f'high["{name}"]'
    # Said first: what Milvus makes of a number that is not there depends on its version.
    numbers = f'array_contains(facts, "{name}")'
    wide, narrow = [numbers], [numbers]
    # The stored ends were rounded outwards, and so are the bounds.
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
    """A float as Milvus reads it; the decimal point makes it one."""
    text = repr(float(value))
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _join(word: str, parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    # Balanced, as Milvus's parser goes one level deeper for each operator of a chain.
    middle = len(parts) // 2
    return f"({_join(word, parts[:middle])}) {word} ({_join(word, parts[middle:])})"
