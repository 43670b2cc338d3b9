"""Dates in payloads and filters: RFC 3339, compared as instants."""

import re
from datetime import date, timedelta

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:([Zz])|([+-])(\d\d):(\d\d))?)?",
    re.ASCII,
)
_DAY = 86_400


def instant(text: str) -> str | None:
    """The instant that ``text`` names, as text that sorts like it; None if it names none.

    RFC 3339, and shorter, as in Qdrant: without an offset the time is UTC, without seconds they
    are 0, and a date alone is its first instant. A leap second is the instant after it. Any number
    of decimals of a second counts.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, decimals, _, sign, hours, minutes = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None
    clock = 3600 * int(hour or 0) + 60 * int(minute or 0) + int(second or 0)
    offset = 3600 * int(hours or 0) + 60 * int(minutes or 0)
    seconds = days * _DAY + clock + (offset if sign == "-" else -offset)
    if int(hour or 0) > 23 or int(minute or 0) > 59 or int(hours or 0) > 23:
        return None
    if int(minutes or 0) > 59 or int(second or 0) > 60 or (second == "60" and seconds % _DAY):
        return None
    return f"{seconds:012d}.{(decimals or '').rstrip('0')}"


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
