"""What a route does not declare is refused, on every route, with the nearest right name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from search_api.api.intake.declared import Parameters, parameters
from search_api.api.intake.strict import StrictRoute
from tests.search_api.api.middleware.test_site import VALUES
from tests.search_api.conftest import colour, id_of, png
from tests.search_api.helpers import assert_problem

RED = png(colour("red", 3))
PICTURE = ("q.png", RED)
GREEN = json.dumps({"must": [{"key": "label", "match": {"value": "green"}}]})
PAGES = {"/", "/docs", "/redoc", "/openapi.json", "/static", "/static-offline-docs"}


def routes(client: TestClient) -> Iterator[tuple[str, str, Parameters]]:
    """(method, path, what it takes) of every route but the pages, with ids filled in."""
    for route in iter_route_contexts(client.app.routes):
        path = str(route.path)
        if path not in PAGES:
            assert isinstance(route.original_route, StrictRoute), path
            for name, value in VALUES.items():
                path = path.replace(f"{{{name}}}", value)
            (method,) = route.methods
            yield method, path, parameters(route)


def timeless(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {name: value for name, value in response.json().items() if name != "time"}


def test_unknown_parameters_on_every_route(client: TestClient) -> None:
    before = client.get("/v1/index").json()
    for method, path, takes in routes(client):
        for query in ("fliter=%7B%7D", "_=1", "utm_source=x", "limit_=3", "x", "=1"):
            response = client.request(method, f"{path}?{query}")
            problem = assert_problem(response, 422, "unknown parameter", "expected")
            assert problem["type"] == "urn:lookalike:problem:unknown-parameter"
            assert problem["errors"][0]["in"].startswith("query.")
            for name in takes.query:
                assert name in problem["detail"]
    after = client.get("/v1/index").json()
    assert {**after, "storage": None} == {**before, "storage": None}


def test_every_misspelt_parameter_gets_its_right_name(client: TestClient) -> None:
    for method, path, takes in routes(client):
        for name in takes.query:
            for wrong in (name[:-1] + name[-2:][::-1], name + "s", name.upper()):
                if wrong not in takes.query and len(name) > 3:
                    problem = client.request(method, path, params={wrong: 1}).json()
                    assert f"{wrong!r}; did you mean {name!r}?" in problem["detail"]


def test_unknown_fields_on_every_form(client: TestClient) -> None:
    forms = 0
    for method, path, takes in routes(client):
        if takes.files:
            forms += 1
            right = dict.fromkeys(takes.files, PICTURE)
            response = client.request(method, path, files=right, data={"fliter": GREEN})
            meant = "did you mean 'filter'?" if "filter" in takes.query else "expected"
            problem = assert_problem(response, 422, "unknown field 'fliter'", meant)
            assert problem["type"] == "urn:lookalike:problem:unknown-field"
    assert forms >= 5
    assert client.get("/v1/images").json()["total"] == 24


def test_unknown_members_on_every_json_body(client: TestClient) -> None:
    bodies = 0
    for method, path, takes in routes(client):
        if takes.json:
            bodies += 1
            name = takes.members[0]
            response = client.request(method, path, json={f"{name}x": 1})
            detail = f"unknown member '{name}x'; did you mean {name!r}?"
            assert_problem(response, 422, detail, ", ".join(takes.members))
    assert bodies >= 6


def test_parameters_given_twice_on_every_route(client: TestClient) -> None:
    for method, path, takes in routes(client):
        for name in takes.query:
            response = client.request(method, f"{path}?{name}=1&{name}=1")
            problem = assert_problem(response, 422, f"{name} was sent 2 times")
            assert problem["type"] == "urn:lookalike:problem:repeated-parameter"
    response = client.post(
        "/v1/recommend",
        content=b'{"positive": [1], "limit": 3, "limit": 4}',
        headers={"content-type": "application/json"},
    )
    assert_problem(response, 422, "'limit' twice")


def test_a_body_where_none_is_taken(client: TestClient) -> None:
    """What it says would be ignored, as a `reembed` that nobody reads."""
    seen = 0
    for method, path, takes in routes(client):
        if not any(takes.bodies):
            seen += method != "GET"
            response = client.request(method, path, json={"reembed": True})
            assert_problem(response, 422, f"{method} {path} takes no body", *takes.query)
    assert seen >= 9
    wanted = {"filter": GREEN}
    assert_problem(client.request("GET", "/v1/images", data=wanted), 422, "takes no body")
    assert client.request("GET", "/v1/images/1", headers={"content-length": "0"}).is_success
    assert client.get("/v1/jobs").json()["jobs"] == []
    started = client.post("/v1/index/compact", content=b"{}")
    assert started.status_code == 202


def test_several_files_where_one_is_expected(client: TestClient) -> None:
    two = [("image", PICTURE), ("image", ("r.png", png((1, 2, 3))))]
    response = client.post("/v1/search", files=two)
    assert_problem(response, 422, "image was sent 2 times", "/v1/search/batch")


@pytest.mark.parametrize("name", ["file", "images", "picture", "Image", "upload[]"])
def test_a_file_under_another_name(client: TestClient, name: str) -> None:
    response = client.post("/v1/search", files={name: PICTURE})
    assert_problem(response, 422, f"unknown field {name!r}; did you mean 'image'?")
    response = client.post("/v1/classify", files={name: PICTURE})
    if name != "images":
        assert_problem(response, 422, f"unknown field {name!r}; did you mean 'images'?")


def test_a_name_that_belongs_elsewhere(client: TestClient) -> None:
    response = client.post("/v1/search?image=cat.jpg")
    assert_problem(response, 422, "image is a file", "-F image=@cat.jpg")
    response = client.post("/v1/recommend?limit=3", json={"positive": [1]})
    assert_problem(response, 422, "limit is a member of the JSON body")


PARAMETERS = [
    {"limit": "3"},
    {"filter": GREEN, "limit": "5"},
    {"limit": "2", "offset": "2", "score_threshold": "0.5"},
    {"group_by": "label", "group_size": "1"},
    {"diversity": "0.5", "candidates": "20"},
]


@pytest.mark.parametrize("params", PARAMETERS, ids=str)
def test_parameters_of_a_page_as_fields_of_the_form(
    client: TestClient, params: dict[str, str]
) -> None:
    both = {"params": params, "data": params}
    for path, field in (
        ("/v1/search", "image"),
        ("/v1/search/batch", "images"),
        ("/v1/recommend/images", "positive_images"),
    ):
        files = {field: PICTURE}
        without, in_url, in_form, in_both = (
            client.post(path, files=files, **options).json()
            for options in ({}, {"params": params}, {"data": params}, both)
        )
        for found in (without, in_url, in_form, in_both):
            for one in [found, *(result["result"] for result in found.get("results", []))]:
                one.pop("time", None)
        assert in_form == in_url == in_both
        assert in_form != without
        assert "status" not in in_form


def test_other_parameters_as_fields(client: TestClient) -> None:
    both = client.post("/v1/search", files={"image": PICTURE}, data={"classes": "network"})
    assert timeless(both)["prediction"]["source"] == "network"
    tagged = client.post("/v1/classify", files={"images": PICTURE}, data={"tags": "true"})
    assert tagged.status_code == 200
    page = client.post("/v1/search", files={"image": PICTURE}, data={"limit": "2"}).json()
    cursor = page["next_cursor"]
    more = client.post(
        "/v1/search", files={"image": PICTURE}, data={"limit": "2", "cursor": cursor}
    )
    assert {p["id"] for p in more.json()["points"]}.isdisjoint(p["id"] for p in page["points"])


def test_wrong_values_are_named_wherever_they_are(client: TestClient) -> None:
    for bad, words in (({"limit": "0"}, "limit is 0"), ({"limit": "many"}, "limit")):
        response = client.post("/v1/search", files={"image": PICTURE}, data=bad)
        assert_problem(response, 422, words)


def test_different_values_in_both_places(client: TestClient) -> None:
    files = {"image": PICTURE}
    response = client.post("/v1/search?limit=3", files=files, data={"limit": "4"})
    problem = assert_problem(response, 422, "limit is '3' in the query string and '4' in the form")
    assert problem["type"] == "urn:lookalike:problem:conflicting-parameter"
    response = client.post("/v1/search", files=files, data={"limit": ["3", "3"]})
    assert_problem(response, 422, "limit was sent 2 times")


def test_fields_of_a_form_in_the_query_string(client: TestClient) -> None:
    """For a picture that is the whole body there is no other place."""
    added = client.post(
        "/v1/images",
        params={"key": "k1", "payload": '{"label": "plum"}'},
        content=png((90, 20, 90)),
        headers={"content-type": "image/png"},
    )
    assert added.status_code == 201, added.text
    (result,) = added.json()["results"]
    assert result["key"] == "k1"
    assert client.get(f"/v1/images/{result['id']}").json()["payload"]["label"] == "plum"


def test_the_fast_path_passes_on_what_it_does_not_know(client: TestClient) -> None:
    image_id = id_of(client, "red", 3)
    assert_problem(client.get(f"/v1/images/{image_id}?fliter=1"), 422, "unknown parameter")
    assert_problem(client.get(f"/v1/images/{image_id}?size=64"), 422, "unknown parameter")
    response = client.post("/v1/search?limt=3", files={"image": PICTURE})
    assert_problem(response, 422, "did you mean 'limit'?")


def test_pages_take_any_query(client: TestClient) -> None:
    """It is for the browser's cache, and for whoever leads people to the page."""
    for path in ("/", "/docs", "/static/app.js?v=3", "/?utm_source=x"):
        assert client.get(path).status_code == 200


def test_json_under_another_type(client: TestClient) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        response = client.post(
            "/v1/images/delete", content=b'{"ids": [1]}', headers={"content-type": kind}
        )
        problem = assert_problem(response, 415, kind, "-H 'content-type: application/json'")
        assert problem["type"] == "urn:lookalike:problem:not-json"
    assert client.get("/v1/images").json()["total"] == 24
    charset = {"content-type": "application/json; charset=utf-8"}
    response = client.post("/v1/images/delete", content=b'{"ids": [1]}', headers=charset)
    assert response.json()["deleted"] == 1
