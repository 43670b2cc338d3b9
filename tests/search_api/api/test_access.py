"""The level of access that each request needs, and the key that it sends."""

from __future__ import annotations

import pytest

from search_api.api.access import key_of, needed
from search_api.keys import Level


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/", Level.OPEN),
        ("GET", "/livez", Level.OPEN),
        ("GET", "/static/app.js", Level.OPEN),
        ("GET", "/metrics", Level.READ),
        ("GET", "/v1/images/1/file", Level.READ),
        ("GET", "/static", Level.READ),
        ("GET", "//livez", Level.READ),
        ("POST", "/v1/search", Level.READ),
        ("POST", "/v1/search/", Level.WRITE),
        ("PUT", "/v1/search", Level.WRITE),
        ("POST", "/livez", Level.WRITE),
        ("POST", "/v1/index/rebuild", Level.WRITE),
        ("DELETE", "/v1/images/1", Level.WRITE),
        ("POST", "/v1/what/is/not/there/yet", Level.WRITE),
        ("BREW", "/v1/coffee", Level.WRITE),
    ],
)
def test_needed(method: str, path: str, level: Level) -> None:
    assert needed(method, path) is level


def test_key_of() -> None:
    assert key_of({}) is None
    assert key_of({b"authorization": b"Basic abc"}) is None
    assert key_of({b"authorization": b"Bearer "}) is None
    assert key_of({b"authorization": b"Basic abc", b"api-key": b"k"}) == "k"
    assert key_of({b"authorization": b"Bearer  t ", b"api-key": b"k"}) == "t"
