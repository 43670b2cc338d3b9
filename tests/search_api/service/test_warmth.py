"""What keeps a service warm runs only between its requests, and not for ever."""

from __future__ import annotations

import threading

import pytest

from search_api.service.engine import SearchEngine
from search_api.service.warmth import Warmth, toucher
from tests.search_api.conftest import MeanColour
from tests.search_api.helpers import until


class Touched:
    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


def test_nothing_is_done_before_the_first_use() -> None:
    touched = Touched()
    warmth = Warmth(touched, 60, 0.001)
    threading.Event().wait(0.05)
    assert touched.count == 0
    warmth.close()
    assert touched.count == 0


def test_it_goes_on_after_a_use_and_after_an_error() -> None:
    touched = Touched()
    touched.error = RuntimeError("no index")
    warmth = Warmth(touched, 60, 0.001)
    warmth.used()
    until(lambda: touched.count >= 3)
    warmth.close()


def test_it_ends_some_time_after_the_last_use_and_begins_again() -> None:
    touched = Touched()
    warmth = Warmth(touched, 0.05, 0.001)
    warmth.used()
    until(lambda: touched.count > 0 and not warmth._used.is_set())
    ended = touched.count
    threading.Event().wait(0.05)
    assert touched.count == ended
    warmth.used()
    until(lambda: touched.count > ended)
    warmth.close()


def test_it_does_nothing_while_requests_keep_coming() -> None:
    touched = Touched()
    warmth = Warmth(touched, 60, 30)
    warmth.used()
    assert touched.count == 0
    warmth.close()
    assert touched.count == 0


def test_a_touch_embeds_and_searches(
    engine: SearchEngine, encoder: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    entries = engine.served.entries

    def noted(state, ids):
        asked.append(len(ids))
        return entries(state, ids)

    monkeypatch.setattr(engine.served, "entries", noted)
    toucher(engine)()
    assert asked == [13]
