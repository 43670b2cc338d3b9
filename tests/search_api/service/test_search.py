"""The search service: shared passes and scans, pages that are not plain, concurrent changes."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from index.contract import ModelChangedError, StateGoneError, UnknownIdError
from index.filters import parse_filter
from search_api.service.cursors import CursorModelError
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from search_api.service.search import PictureQuery, VectorQuery
from tests.search_api.conftest import MeanColour, colour, compact, plain, source_of, unit
from tests.search_api.helpers import Wider

RED = parse_filter({"must": [{"key": "label", "match": {"value": "red"}}]})


def query(label: str, shade: int, page: Page | None = Page()) -> PictureQuery:
    return PictureQuery(plain(colour(label, shade)), page)


def sources(result: Any) -> list[str]:
    return [point.entry.source for point in result.points]


class Scans:
    """Records the number of queries in each scan of the index."""

    def __init__(self, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        index = type(engine.served.current().index)
        search = index.search

        def counted(index: Any, xq: np.ndarray, k: int, allowed: Any = None) -> Any:
            self.sizes.append(len(xq))
            return search(index, xq, k, allowed)

        monkeypatch.setattr(index, "search", counted)


@pytest.fixture
def scans(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> Scans:
    return Scans(engine, monkeypatch)


def test_each_picture_has_its_own_result(
    engine: SearchEngine, encoder: MeanColour, scans: Scans
) -> None:
    queries = [query("red", 2, Page(1)), query("blue", 5, Page(3)), query("green", 0, None)]
    red, blue, green = engine.searches.by_picture(encoder, queries)
    assert sources(red) == [source_of("red", 2)]
    assert sources(blue)[0] == source_of("blue", 5)
    assert len(blue.points) == 3
    assert (green.points, green.vote) == ((), None)
    assert [r.prediction.label for r in (red, blue, green) if r.prediction] == [
        "red", "blue", "green"
    ]  # fmt: skip
    for result, (label, shade) in zip((red, blue, green), (("red", 2), ("blue", 5), ("green", 0)),
                                      strict=True):  # fmt: skip
        np.testing.assert_allclose(result.vector, unit(colour(label, shade)), atol=1e-6)
    assert {"forward", "search", "payload", "total"} <= set(red.time)
    assert "search" not in green.time


def test_plain_pages_share_scans_by_filter_and_depth(
    engine: SearchEngine, encoder: MeanColour, scans: Scans
) -> None:
    before = encoder.encoded
    results = engine.searches.by_picture(
        encoder,
        [
            query("red", 0, Page(8)),
            query("blue", 0, Page(3, filter=RED)),
            query("green", 0, Page(10, 5)),
            query("blue", 1, Page(100)),
            query("red", 1, Page(2, filter=RED)),
            query("green", 1, Page(2)),
        ],
    )
    assert encoder.encoded - before == 6
    # 8 and 15 need four bits, 3 and 2 need two bits with the same filter, 2 without it, 100 seven.
    assert sorted(scans.sizes) == [1, 1, 2, 2]
    assert [len(r.points) for r in results] == [8, 3, 10, 24, 2, 2]
    assert sources(results[4]) == [source_of("red", 1), source_of("red", 2)]


def test_other_pages_are_completed_later(
    engine: SearchEngine, encoder: MeanColour, scans: Scans
) -> None:
    grouped = query("red", 0, Page(3, group_by="label", group_size=1))
    (result,) = engine.searches.by_picture(encoder, [grouped])
    assert (result.groups, result.points, scans.sizes) == (None, (), [])
    assert result.prediction is not None
    found = engine.searches.complete(grouped, result)
    assert found.groups is not None
    assert [g.value for g in found.groups] == ["red", "blue", "green"]
    assert (found.prediction, found.vector is result.vector) == (result.prediction, True)
    ready = query("red", 0, Page(1))
    (result,) = engine.searches.by_picture(encoder, [ready])
    assert engine.searches.complete(ready, result) is result


def test_pages_follow_their_cursor(engine: SearchEngine, encoder: MeanColour) -> None:
    def page(page: Page) -> Any:
        return engine.searches.complete(
            query("red", 3, page), *engine.searches.by_picture(encoder, [query("red", 3, page)])
        )

    whole = sources(page(Page(24)))
    first = page(Page(10))
    second = page(Page(10, cursor=first.cursor))
    third = page(Page(10, cursor=second.cursor))
    assert sources(first) + sources(second) + sources(third) == whole
    assert third.cursor is None
    assert second.vote == first.vote


def test_later_pages_use_the_vectors_of_the_first(engine: SearchEngine) -> None:
    """Embedded again, they could differ in their last bits and change the order of near ties."""
    (first,) = engine.searches.search(nearest, [vector_query()])
    assert first.cursor is not None
    vectors = first.cursor.vectors * np.float32(1 + 1e-6)
    page = Page(3, cursor=replace(first.cursor, vectors=vectors))
    (second,) = engine.searches.search(nearest, [replace(vector_query(), page=page)])
    assert second.cursor is not None
    np.testing.assert_array_equal(second.cursor.vectors, vectors)


def test_another_model_is_refused(engine: SearchEngine) -> None:
    with pytest.raises(ModelChangedError, match="the model in use is sha256:mean-colour"):
        engine.searches.by_picture(Wider(), [query("red", 0)])
    vectors = VectorQuery(
        unit(colour("red", 0)).astype(np.float32)[None], Page(1), query("red", 0).timings
    )
    with pytest.raises(ModelChangedError, match="expected sha256:old"):
        engine.searches.search(nearest, [vectors], "sha256:old")
    assert sources(engine.searches.search(nearest, [vectors])[0])[0] == source_of("red", 0)


def nearest(index: Any, xq: np.ndarray, k: int, allowed: Any) -> Any:
    return index.search(xq, k, allowed)


def test_a_cursor_of_another_model_is_refused(engine: SearchEngine, encoder: MeanColour) -> None:
    (first,) = engine.searches.by_picture(encoder, [query("red", 0, Page(1))])
    assert first.cursor is not None
    object.__setattr__(first.cursor, "model", "sha256:old")
    resumed = query("red", 0, Page(1, cursor=first.cursor))
    (result,) = engine.searches.by_picture(encoder, [resumed])
    with pytest.raises(CursorModelError, match="sha256:old"):
        engine.searches.complete(resumed, result)


def vector_query() -> VectorQuery:
    vectors = unit(colour("red", 0)).astype(np.float32)[None]
    return VectorQuery(vectors, Page(3), query("red", 0).timings)


def test_a_picture_deleted_during_a_search_is_left_out(engine: SearchEngine) -> None:
    ids = engine.catalogue.all_sources()
    scans = 0

    def find(index: Any, xq: np.ndarray, k: int, allowed: Any) -> Any:
        nonlocal scans
        scans += 1
        found = index.search(xq, k, allowed)
        if scans == 1:
            engine.ingest.delete(ids[source_of("red", 0)])
        return found

    (result,) = engine.searches.search(find, [vector_query()])
    assert scans == 2
    assert sources(result) == [source_of("red", shade) for shade in (1, 2, 3)]
    assert result.sequence == engine.served.current().sequence


def test_a_state_that_is_gone_is_replaced(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = engine.served.entries
    failures = 1

    def gone(state: Any, ids: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            compact(engine)
            raise StateGoneError
        return entries(state, ids)

    monkeypatch.setattr(engine.served, "entries", gone)
    (result,) = engine.searches.search(nearest, [vector_query()])
    assert sources(result)[0] == source_of("red", 0)
    assert result.generation == 2


def test_an_error_that_stays_is_raised(engine: SearchEngine) -> None:
    calls = 0

    def find(*_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise UnknownIdError([77], "the index")

    with pytest.raises(UnknownIdError, match="77"):
        engine.searches.search(find, [vector_query()])
    assert calls == 2  # the state did not change, so a third try would fail too


def test_few_scans_at_a_time(engine: SearchEngine) -> None:
    running = most = 0
    lock = threading.Lock()
    wait = threading.Event()

    def find(index: Any, xq: np.ndarray, k: int, allowed: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        wait.wait(0.05)
        with lock:
            running -= 1
        return index.search(xq, k, allowed)

    threads = [
        threading.Thread(target=engine.searches.search, args=(find, [vector_query()]))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2  # embed.runtime.protocol.WORKERS
