"""What each route declares."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from search_api.api.app import bare_app
from search_api.api.intake.declared import Bodies, Parameters, parameters, route_table

PAGE = {
    "limit",
    "offset",
    "score_threshold",
    "filter",
    "diversity",
    "candidates",
    "group_by",
    "group_size",
    "cursor",
}


def declared(method: str, path: str) -> Parameters:
    (found,) = (
        parameters(route)
        for route in iter_route_contexts(bare_app().routes)
        if route.path == path and method in (route.methods or ())
    )
    return found


def test_parameters_of_dependencies_and_models() -> None:
    takes = declared("POST", "/v1/search")
    assert set(takes.query) >= PAGE | {"classes"}
    assert takes.files == {"image": False}
    assert (takes.texts, takes.members, takes.json) == ({}, (), False)
    assert {"limit", "after", "filter"} <= set(declared("GET", "/v1/images").query)


def test_fields_that_may_be_sent_several_times() -> None:
    takes = declared("POST", "/v1/images")
    assert takes.texts.items() >= {"key": True, "payload": True}.items()
    assert takes.files == {"images": True}
    takes = declared("POST", "/v1/recommend/images")
    assert takes.texts.items() >= {"positive": True, "negative": True, "strategy": False}.items()


def test_members_of_a_json_body_also_if_it_may_be_left_out() -> None:
    takes = declared("PATCH", "/v1/images/{image_id}")
    assert takes.json
    assert {"payload", "replace"} <= set(takes.members)
    assert {"name", "allow_missing"} <= set(declared("POST", "/v1/snapshots").members)


@pytest.mark.parametrize(
    ("method", "path", "bodies"),
    [
        ("POST", "/v1/search", Bodies(form=True, image=True)),
        ("POST", "/v1/images", Bodies(form=True, image=True)),
        ("POST", "/v1/recommend/images", Bodies(form=True)),
        ("POST", "/v1/recommend", Bodies(json=True)),
        ("POST", "/v1/snapshots/monday/restore", Bodies()),
        ("GET", "/openapi.json", Bodies()),
        ("GET", "/static/app.js", Bodies()),
        ("GET", "/v1/search", None),
        ("POST", "/v1/nothing", None),
    ],
)
def test_bodies(method: str, path: str, bodies: Any) -> None:
    assert route_table(bare_app()).bodies(method, path) == bodies
