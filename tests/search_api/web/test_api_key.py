"""The page on a server with API keys."""

import pytest

from search_api.keys import Access, Keys
from tests.search_api.web.browser import RED, Page, expect, settle, upload

READ, WRITE = "reader-0123456789", "writer-0123456789"


@pytest.fixture
def access() -> Access:
    return Access(Keys.of([READ], [WRITE]))


def enter_key(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_label("API key").press("Enter")


def test_the_page_asks_for_a_key_and_shows_pictures_with_it(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#key-reason")).to_contain_text("requires an API key")
    enter_key(page, "not-the-right-key")
    expect(page.locator("#key-reason")).to_contain_text("does not recognise")
    enter_key(page, READ)
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


def test_without_a_key_the_page_says_so(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert")).to_contain_text("This server requires an API key.")


def test_a_rebuild_asks_for_a_key_with_write_access(page: Page) -> None:
    page.goto("/")
    enter_key(page, READ)
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    expect(page.locator("#key-reason")).to_contain_text("allows searching only")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.locator("#key-input").fill(WRITE)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#rebuild-state")).to_have_text("Rebuild complete: generation 2.")


def test_the_key_is_in_no_url_and_is_forgotten_with_the_tab(page: Page) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto("/")
    enter_key(page, READ)
    expect(page.locator("#status li").first).to_have_text("24 pictures")
    assert not [url for url in urls if READ in url]
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert page.evaluate("document.cookie") == ""
