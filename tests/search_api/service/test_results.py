"""The results of the service."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from index.ranking.resume import RankPosition
from search_api.service.cursors import Cursor
from search_api.service.results import Prediction, SearchResult

RESULT = SearchResult(points=(), vote=None, generation=1, model="m", time={})


def test_a_prediction_is_of_the_most_probable_class() -> None:
    row = np.array([0.25, 0.5, 0.25], np.float32)
    found = Prediction.of(("red", "green", "blue"), row)
    assert (found.label, found.nearest_class, found.confidence) == ("green", "green", 0.5)
    assert found.probabilities == {"red": 0.25, "green": 0.5, "blue": 0.25}
    assert found.source == "network"


def test_a_picture_unlike_the_stored_ones_has_no_class() -> None:
    row = np.array([0.25, 0.75], np.float32)
    found = Prediction.of(("red", "green"), row, "store", 0.01)
    assert (found.label, found.nearest_class, found.source) == (None, "green", "store")
    assert found.confidence == pytest.approx(0.0075)
    assert found.grade != Prediction.of(("red", "green"), row, "store", 0.99).grade


def test_of_many_classes_the_most_probable_are_listed() -> None:
    names = tuple(f"c{number:04}" for number in range(1000))
    row = np.arange(1000, dtype=np.float32)
    found = Prediction.of(names, row / row.sum())
    assert list(found.probabilities) == [f"c{number:04}" for number in range(999, 979, -1)]
    assert found.probabilities["c0999"] == pytest.approx(999 / 499_500)
    few = Prediction.of(names[:20], row[:20] / row[:20].sum())
    assert list(few.probabilities) == list(names[:20])


def test_a_cursor_that_is_too_long_is_not_given() -> None:
    assert RESULT.cursor_text(None) is None
    cursor = Cursor(RankPosition(0.5, 1), 1, None, "m", "r", np.empty((0, 0), np.float32))
    result = replace(RESULT, cursor=cursor)
    text = cursor.text()
    assert result.cursor_text(None) == text
    assert result.cursor_text(len(text)) == text
    assert result.cursor_text(len(text) - 1) is None
