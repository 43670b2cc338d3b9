"""Dates as instants."""

import pytest

from index.dates import day, instant, seconds

SAME = [
    ["2024-05-31", "2024-05-31T00:00Z", "2024-05-31t00:00:00", "2024-05-31 00:00:00.000z"],
    ["2024-06-01T01:30:00Z", "2024-05-31T23:30:00-02:00", "2024-06-02T01:29:00+23:59"],
    ["2017-01-01", "2016-12-31T23:59:60Z", "2017-01-01T01:59:60+02:00"],
    ["2024-02-29T12:00:00.12", "2024-02-29T12:00:00.120000000000000"],
]
ASCENDING = [
    "0001-01-01T00:00:00+23:59",
    "0001-01-01",
    "1970-01-01T00:00:00-00:00",
    "2024-05-31T10:00:00.9Z",
    "2024-05-31T10:00:00.99999999999999999999Z",
    "2024-05-31T10:00:01Z",
    "2024-05-31T10:00:01.000000000000000001Z",
    "9999-12-31T23:59:59-23:59",
]


@pytest.mark.parametrize("texts", SAME)
def test_one_instant(texts: list[str]) -> None:
    assert len({instant(text) for text in texts}) == 1
    assert instant(texts[0]) is not None


def test_instants_sort_like_time() -> None:
    found = [instant(text) for text in ASCENDING]
    assert None not in found
    assert found == sorted(found, key=str)  # as text
    assert len(set(found)) == len(found)
    numbers = [seconds(one) for one in found if one]
    assert numbers == sorted(numbers)
    assert numbers[5] - numbers[2] == 1717149601 - 0  # seconds since 1970


@pytest.mark.parametrize(
    "text",
    ["", "2024", "2024-05", "2024-5-31", "2024-02-30", "0000-01-01", "2024-05-31T", "31.5.2024",
     "2024-05-31T24:00", "2024-05-31T10:60", "2024-05-31T10:00:61Z", "2024-05-31T10:00:60Z",
     "2024-05-31T10:00:00.", "2024-05-31T10:00:00+24:00", "2024-05-31T10:00:00+0200",
     "2024-05-31Z", "2024-05-31T10:00:00Z ", " 2024-05-31", "2024-05-31\n", "2024-05-31T10Z",
     "\u0662\u0660\u0662\u0664-05-31", "2024-W22-5", "20240531", "1717149600"],
)  # fmt: skip
def test_no_date(text: str) -> None:
    assert instant(text) is None


def test_days_around_an_instant() -> None:
    found = instant("2024-05-31T23:59:59.9+14:00")
    assert found is not None
    assert [day(found, n) for n in (-1, 0, 2)] == ["2024-05-30", "2024-05-31", "2024-06-02"]
    edge = instant("9999-12-31")
    assert edge is not None and day(edge, 2) is None
