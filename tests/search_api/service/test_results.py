"""The results of the service."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from index.ranking.resume import RankPosition
from search_api.service.cursors import Cursor
from search_api.service.results import Prediction, SearchResult

RESULT = SearchResult(points=(), vote=None, generation=1, model="m", time={})


def test_a_prediction_is_of_the_most_probable_class() -> None:
    row = np.array([0.25, 0.5, 0.25], np.float32)
    assert Prediction.of(("red", "green", "blue"), row) == Prediction(
        "green", 0.5, {"red": 0.25, "green": 0.5, "blue": 0.25}
    )


def test_a_cursor_that_is_too_long_is_not_given() -> None:
    assert RESULT.cursor_text(None) is None
    cursor = Cursor(RankPosition(0.5, 1), 1, None, "m", "r", np.empty((0, 0), np.float32))
    result = replace(RESULT, cursor=cursor)
    text = cursor.text()
    assert result.cursor_text(None) == text
    assert result.cursor_text(len(text)) == text
    assert result.cursor_text(len(text) - 1) is None
