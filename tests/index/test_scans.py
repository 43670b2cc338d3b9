"""Bounds on reading by a filter."""

import pytest

from index.scans import UNBOUNDED, FilterScans, FilterTimeoutError, Scan, ScansBusyError


def test_places_are_given_back() -> None:
    scans = FilterScans(0.01, 2)
    with scans.one():
        with scans.one(), pytest.raises(ScansBusyError, match=r"2 other filters .* 0\.01 seconds"):
            scans.one().__enter__()
        with scans.one():
            pass
    with pytest.raises(KeyError), scans.one():
        raise KeyError("x")
    with scans.one(), scans.one():
        pass


def test_time() -> None:
    scan = FilterScans(1000, 1).begin()
    assert scan is not None and not scan.late()
    scan.check()
    late = Scan(-1)
    assert late.late()
    with pytest.raises(FilterTimeoutError, match="longer than -1 seconds; use fewer"):
        late.check()


def test_without_bounds() -> None:
    assert UNBOUNDED.begin() is None
    with UNBOUNDED.one(), UNBOUNDED.one():
        pass
