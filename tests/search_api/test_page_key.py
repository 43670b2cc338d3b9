"""The page on a server with API keys, in a real browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from search_api.access import Access, Keys
from search_api.app import create_app
from search_api.engine import SearchEngine
from tests.search_api.browser import RED, needs_browser, settle, upload

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

pytestmark = needs_browser

READ, WRITE = "reader-0123456789", "writer-0123456789"


@pytest.fixture
def live_server(engine: SearchEngine) -> Iterator[str]:
    """A server over the 24 pictures that wants a key."""
    app = create_app(engine, access=Access(Keys.of([READ], [WRITE])))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_label("API key").press("Enter")


def test_the_page_asks_for_a_key_and_shows_pictures_with_it(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#key-why")).to_contain_text("have a key")
    give(page, "not-the-right-key")
    expect(page.locator("#key-why")).to_contain_text("does not know")
    give(page, READ)
    expect(page.locator("#status li").first).to_have_text("24 pictures")
    expect(page.get_by_role("dialog")).to_be_hidden()
    upload(page, RED)
    expect(page.locator(".point")).to_have_count(12)
    settle(page)
    for picture in page.locator(".point img").all():
        # Not wait_for_function: its polling evaluates strings, which the page's policy forbids.
        expect(picture).to_have_js_property("naturalWidth", 32)
    page.reload()
    expect(page.locator("#status li").first).to_have_text("24 pictures")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_no_key_is_a_plain_refusal(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert")).to_contain_text("no API key")


def test_a_rebuild_asks_for_a_key_for_writing(page: Page) -> None:
    page.goto("/")
    give(page, READ)
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    expect(page.locator("#key-why")).to_contain_text("may only search")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.locator("#key-input").fill(WRITE)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#rebuild-state")).to_have_text("Rebuilt: generation 2.")


def test_the_key_is_in_no_address_and_goes_with_the_tab(page: Page) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto("/")
    give(page, READ)
    expect(page.locator("#status li").first).to_have_text("24 pictures")
    assert not [url for url in urls if READ in url]
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert page.evaluate("document.cookie") == ""
