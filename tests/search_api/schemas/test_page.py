"""The parameters of a page of results are the same wherever they are written down."""

from __future__ import annotations

from dataclasses import fields

import click

from search_api.cli.search import page_options
from search_api.client.calls import PageOptions
from search_api.schemas import PageParams, PageQuery, RecommendRequest
from search_api.service.page import Page

NAMES = {*PageParams.model_fields, "filter"}


@click.command()
@page_options
def command(**_: object) -> None:
    pass


def test_service_api_client_and_command_line_take_the_same_parameters() -> None:
    assert {field.name for field in fields(Page)} == NAMES
    assert set(PageQuery.model_fields) == NAMES
    assert set(RecommendRequest.model_fields) == NAMES | {"positive", "negative", "strategy"}
    assert set(PageOptions.__annotations__) == NAMES
    options = {option.name for option in command.params}
    assert options - {"where"} | {"filter"} == NAMES


def test_they_have_the_same_defaults() -> None:
    default = Page()
    for params in (PageParams(), PageQuery(), RecommendRequest(positive=[1])):
        assert (params.limit, params.offset) == (default.limit, default.offset)
        assert params.score_threshold is default.score_threshold is None
        assert params.diversity is params.group_by is params.cursor is None
    with command.make_context("search", []) as context:
        assert context.params == PageParams().model_dump() | {"where": None}
