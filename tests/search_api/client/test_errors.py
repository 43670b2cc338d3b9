"""What the clients raise."""

from __future__ import annotations

import httpx2
import pytest

from search_api.client import Client, ProblemError, UnreachableError
from tests.search_api.client.helpers import transport


def test_problems_are_raised_with_their_members(live_server: str) -> None:
    with Client(live_server) as client, pytest.raises(ProblemError) as caught:
        client.similar(999_999)
    problem = caught.value
    assert problem.status == 404
    assert problem.type == "urn:lookalike:problem:unknown-id"
    assert problem.title == "Not Found"
    assert "999999" in problem.detail
    assert problem.instance == "/v1/images/999999/similar"
    assert len(problem.request_id) == 32
    assert problem.members["ids"] == [999_999]
    assert "999999" in str(problem)


def test_nothing_there() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(UnreachableError, match="check"):
        client.index_info()
    with Client("nonsense") as client, pytest.raises(UnreachableError, match="nonsense"):
        client.index_info()


def test_what_answers_is_something_else() -> None:
    page = transport(lambda _: httpx2.Response(200, text="<html>Welcome</html>"))
    with Client("http://x", transport=page) as client, pytest.raises(UnreachableError):
        client.index_info()
    proxy = transport(lambda _: httpx2.Response(502, text="Bad gateway: upstream"))
    with Client("http://x", transport=proxy) as client, pytest.raises(ProblemError) as caught:
        client.index_info()
    assert caught.value.status == 502
    assert "upstream" in caught.value.detail
