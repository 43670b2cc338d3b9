"""What a payload may hold: JSON that SQLite and Python read the same way."""

import math
from collections.abc import Mapping
from typing import TypeAlias

from index.neighbours import IndexInputError

Scalar: TypeAlias = bool | int | float | str
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Payload: TypeAlias = dict[str, Json]

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


def check_number(number: int | float, where: str) -> int | float:
    """Return ``number``, or raise IndexInputError if it is not finite or exceeds 64 bits."""
    if isinstance(number, float) and not math.isfinite(number):
        raise IndexInputError(f"{where} is {number!r}; expected a finite number")
    if isinstance(number, int) and not -_INT64 <= number < _INT64:
        raise IndexInputError(f"{where} is {number!r}; expected an integer of at most 64 bits")
    return number


def check_payload(payload: Mapping[str, Json], where: str = "payload") -> None:
    """Raise IndexInputError, with the place, if ``payload`` is not storable JSON.

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
