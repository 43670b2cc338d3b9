"""Dates in payloads and filters: RFC 3339, compared as instants."""

import re
from datetime import date, timedelta
from functools import lru_cache

_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(
    r"[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII
)
_DAY = 86_400


def instant(text: str) -> str | None:
    """The instant that ``text`` names, as text that sorts like it; None if it names none.

    RFC 3339, and shorter, as in Qdrant: without an offset the time is UTC, without seconds they
    are 0, and a date alone is its first instant. A leap second is the instant after it. Any number
    of decimals of a second counts.
    """
    start = _start(text[:10])
    if start is None:
        return None
    if len(text) == 10:
        return f"{start:012d}."
    found = _TIME.fullmatch(text, 10)
    if found is None:
        return None
    hour, minute, second, decimals, sign, hours, minutes = found.groups()
    if hour > "23" or minute > "59" or (sign and (hours > "23" or minutes > "59")):
        return None
    at = start + 3600 * int(hour) + 60 * int(minute) + int(second or 0)
    if sign:
        offset = 3600 * int(hours) + 60 * int(minutes)
        at += offset if sign == "-" else -offset
    if second and (second > "60" or (second == "60" and at % _DAY)):
        return None
    return f"{at:012d}.{decimals.rstrip('0') if decimals else ''}"


@lru_cache(20_000)
def _start(text: str) -> int | None:
    """The seconds from the day before year 1 to this date; None if it is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        return date(*map(int, found.groups())).toordinal() * _DAY
    except ValueError:
        return None


def day(of: str, days: int) -> str | None:
    """The UTC date of an instant, moved by ``days``, as in RFC 3339; None outside years 1 to 9999.

    A text that names an instant begins with a date at most a day away from it.
    """
    try:
        moved = date.fromordinal(int(of.partition(".")[0]) // _DAY) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return moved.isoformat()


def seconds(of: str) -> float:
    """An instant as a number of seconds that sorts like it, but for what it rounds away."""
    return float(of + "0")
