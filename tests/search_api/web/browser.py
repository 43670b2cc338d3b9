"""Shared by the tests of the page: Playwright, pictures to upload, and steps taken often."""

import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.search_api.conftest import png

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Error, Locator, Page, Route, expect

__all__ = [
    "BLUE",
    "RED",
    "Error",
    "Page",
    "Route",
    "change_index",
    "change_response",
    "choice",
    "expect",
    "fulfil_with",
    "ids",
    "labels",
    "open_index_panel",
    "sentence",
    "settle",
    "show_result",
    "start_rebuild",
    "upload",
]

RED, BLUE = png((230, 10, 10)), png((10, 10, 230))


def upload(page: Page, data: bytes = RED, name: str = "mine.png", kind: str = "image/png") -> None:
    page.get_by_label(re.compile("Choose a")).set_input_files(
        {"name": name, "mimeType": kind, "buffer": data}
    )


def choice(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name, exact=True)


def settle(page: Page) -> None:
    """Wait until no search is running."""
    expect(page.locator("#loading")).to_be_hidden()


def ids(page: Page) -> list[int]:
    return [int(x) for x in page.locator(".point").evaluate_all("a => a.map(p => p.dataset.id)")]


def labels(page: Page) -> list[str]:
    return page.locator(".point .label").all_inner_texts()


def show_result(page: Page, data: bytes = RED) -> None:
    page.goto("/")
    upload(page, data)
    expect(page.locator(".point")).to_have_count(12)
    settle(page)


def open_index_panel(page: Page) -> None:
    page.goto("/")
    page.locator("#index summary").click()


def start_rebuild(page: Page) -> None:
    open_index_panel(page)
    page.get_by_role("button", name="Rebuild index").click()


def fulfil_with(body: Any, status: int = 200) -> Callable[[Route], None]:
    """A handler that responds with ``body`` instead of the server."""
    kind = "application/json" if status < 400 else "application/problem+json"
    return lambda route: route.fulfill(status=status, json=body, content_type=kind)


def change_response(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Route], None]:
    """A handler that passes the server's JSON through ``change``."""

    def handle(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=change(response.json()))

    return handle


def change_index(page: Page, api: httpx2.Client, **members: Any) -> None:
    """Let the page read these members of ``/v1/index`` in place of the server's."""
    page.route("**/v1/index", fulfil_with({**api.get("/v1/index").json(), **members}))


def sentence(text: str) -> str:
    """A message of the server as the page shows it."""
    return text[0].upper() + text[1:].removesuffix(".") + "."
