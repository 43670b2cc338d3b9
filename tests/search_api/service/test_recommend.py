"""Recommendation from stored and uploaded examples, against brute force over the 24 pictures."""

from __future__ import annotations

import numpy as np
import pytest

from index.contract import IndexInputError, ModelChangedError, UnknownIdError
from search_api.service.cursors import CursorError
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from search_api.service.recommend import ExampleSet, recommendation
from search_api.service.results import SearchResult
from search_api.timings import Timings
from tests.search_api.conftest import CLASSES, SHADES, colour, source_of, unit

NONE = ExampleSet()
MODEL = "sha256:mean-colour"


def recommend(
    engine: SearchEngine,
    positive: ExampleSet,
    negative: ExampleSet = NONE,
    strategy: str = "average_vector",
    page: Page = Page(24),
) -> SearchResult:
    return recommendation(engine.searches, positive, negative, strategy, page, Timings())  # type: ignore[arg-type]


def sources(result: SearchResult) -> list[str]:
    return [point.entry.source for point in result.points]


def brute_force(query: np.ndarray, *without: str) -> list[str]:
    xb = {source_of(c, s): unit(colour(c, s)) for c in CLASSES for s in range(SHADES)}
    ranked = sorted(xb, key=lambda source: -float(xb[source] @ query))
    return [source for source in ranked if source not in without]


@pytest.fixture
def ids(engine: SearchEngine) -> dict[str, int]:
    return engine.catalogue.all_sources()


def test_the_average_of_stored_examples(engine: SearchEngine, ids: dict[str, int]) -> None:
    positive = [source_of("red", 1), source_of("green", 2)]
    negative = [source_of("blue", 3)]
    found = recommend(
        engine,
        ExampleSet(tuple(ids[source] for source in positive)),
        ExampleSet(tuple(ids[source] for source in negative)),
    )
    # Qdrant's formula: the mean positive, mirrored at the mean negative.
    mean = (unit(colour("red", 1)) + unit(colour("green", 2))) / 2
    expected = brute_force(2 * mean - unit(colour("blue", 3)), *positive, *negative)
    assert sources(found) == expected
    assert found.prediction is None
    assert found.model == MODEL


def test_uploaded_examples_count_as_stored_ones(engine: SearchEngine, ids: dict[str, int]) -> None:
    vectors = {c: unit(colour(c, 0)).astype(np.float32) for c in CLASSES}
    stored = recommend(
        engine,
        ExampleSet((ids[source_of("red", 0)], ids[source_of("green", 0)])),
        ExampleSet((ids[source_of("blue", 0)],)),
    )
    uploaded = recommend(
        engine,
        ExampleSet((ids[source_of("red", 0)],), (vectors["green"],), MODEL),
        ExampleSet((), (vectors["blue"],), MODEL),
    )
    # Only stored examples are left out.
    left = [s for s in sources(uploaded) if s not in (source_of("green", 0), source_of("blue", 0))]
    assert left == sources(stored)
    assert len(uploaded.points) == 23


def test_strategies_differ(engine: SearchEngine, ids: dict[str, int]) -> None:
    positive = ExampleSet((ids[source_of("red", 0)], ids[source_of("green", 0)]))
    average = sources(recommend(engine, positive))
    best = sources(recommend(engine, positive, strategy="best_score"))
    # Between red and green: the nearest to the mean. Nearest to either one: a pure neighbour of it.
    assert average[0] in (source_of("red", 7), source_of("green", 7))
    assert best[0] in (source_of("red", 1), source_of("green", 1))


def test_without_a_positive_example(engine: SearchEngine, ids: dict[str, int]) -> None:
    with pytest.raises(IndexInputError, match="positive"):
        recommend(engine, NONE, ExampleSet((ids[source_of("red", 0)],)))


def test_an_unknown_example(engine: SearchEngine) -> None:
    with pytest.raises(UnknownIdError, match="999"):
        recommend(engine, ExampleSet((999,)))


def test_examples_of_another_model(engine: SearchEngine) -> None:
    vector = np.array([1, 0, 0], np.float32)
    with pytest.raises(ModelChangedError, match="sha256:old"):
        recommend(engine, ExampleSet((), (vector,), "sha256:old"))
    with pytest.raises(ModelChangedError, match="sha256:old"):
        recommend(engine, ExampleSet((1,)), ExampleSet((), (vector,), "sha256:old"))


def test_a_cursor_continues_only_the_same_examples(
    engine: SearchEngine, ids: dict[str, int]
) -> None:
    positive = ExampleSet((ids[source_of("red", 0)],))
    negative = ExampleSet((ids[source_of("blue", 0)],))
    whole = sources(recommend(engine, positive, negative))
    first = recommend(engine, positive, negative, page=Page(5))
    assert first.cursor is not None
    after = Page(24, cursor=first.cursor)
    assert sources(first) + sources(recommend(engine, positive, negative, page=after)) == whole
    for other in ((positive, NONE, "average_vector"), (positive, negative, "best_score")):
        with pytest.raises(CursorError, match="another request"):
            recommend(engine, *other, page=after)


def test_a_cursor_knows_on_which_side_an_upload_was(
    engine: SearchEngine, ids: dict[str, int]
) -> None:
    upload = (unit(colour("green", 0)).astype(np.float32),)
    stored = (ids[source_of("red", 0)],)
    liked = ExampleSet(stored, upload, MODEL), NONE
    disliked = ExampleSet(stored), ExampleSet((), upload, MODEL)
    first = recommend(engine, *liked, page=Page(5))
    assert first.cursor is not None
    after = Page(5, cursor=first.cursor)
    assert len(recommend(engine, *liked, page=after).points) == 5
    with pytest.raises(CursorError, match="another request"):
        recommend(engine, *disliked, page=after)
