"""/docs and /redoc in a browser: they work under their policy, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api")

if TYPE_CHECKING:
    from playwright.sync_api import Page


@contextmanager
def complaints(page: Page) -> Iterator[list[str]]:
    """What the policy blocked."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if "Security Policy" in m.text else None)
    yield found


def test_docs_work_and_call_the_api(page: Page) -> None:
    with complaints(page) as blocked:
        page.goto("/docs")
        page.locator(".opblock-summary").first.wait_for()
        operation = page.locator("#operations-health-livez")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response .response-col_status")
        answer.wait_for()
        assert answer.inner_text().startswith("200")
    assert blocked == []


def test_redoc_works(page: Page) -> None:
    with complaints(page) as blocked:
        page.goto("/redoc")
        page.get_by_role("heading", name="Class and nearest neighbours").first.wait_for()
    # The logo of its maker, on a server of theirs.
    assert [text for text in blocked if "logo" not in text] == []


def test_an_inline_script_does_not_run(page: Page) -> None:
    page.goto("/docs")
    with complaints(page) as blocked:
        page.evaluate(
            "() => { const s = document.createElement('script');"
            " s.textContent = 'window.ran = true'; document.body.append(s) }"
        )
        assert page.evaluate("() => window.ran") is None
    assert len(blocked) == 1
