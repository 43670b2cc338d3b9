"""Encoded responses have the shape of the schemas."""

from __future__ import annotations

from search_api import schemas
from search_api.api.response_encoder import ResponseEncoder
from search_api.api.responses import points as points_of
from search_api.api.responses import search_response
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from tests.search_api.conftest import colour, png

RED = png(colour("red", 3))


def test_responses_have_the_shape_of_the_schemas(engine: SearchEngine) -> None:
    engine.catalogue.update([1], label=None, payload={"name": 'Zoë "🐈"', "tags": ["a", None]})
    encoder = ResponseEncoder(16_384, 3)
    for page in (
        Page(5),
        Page(24),
        Page(5, group_by="label", group_size=2),
        Page(5, group_by="nothing"),
        Page(4, diversity=0.7),
        Page(3, score_threshold=0.9999),
    ):
        result = engine.search(RED, page)
        assert result.prediction is not None
        expected = search_response(result, 16_384)
        assert schemas.SearchResponse.model_validate_json(encoder.search(result)) == expected
        points = schemas.Points(**points_of(result, 16_384))
        assert schemas.Points.model_validate_json(encoder.points(result)) == points
        error = schemas.ItemError(type="t", title="x", status=415, detail="é")
        batch = encoder.batch([("a\udc80.png", result), (None, error)])
        found = schemas.BatchResponse.model_validate_json(batch.replace(b"\\udc80", b""))
        assert found.results == [
            schemas.Found(filename="a.png", result=expected),
            schemas.Found(filename=None, error=error),
        ]
    assert len(encoder._written) == 3
    short = engine.search(RED, Page(5))
    assert (
        schemas.Points.model_validate_json(ResponseEncoder(10, 0).points(short)).next_cursor is None
    )
