"""What the tests of the page share: a browser, and hands for it."""

import io
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Locator, Page, Route, expect

CHROMIUM = shutil.which("chromium")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; install it with `apt-get install chromium`"
)


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = png((230, 10, 10)), png((10, 10, 230))


def upload(page: Page, data: bytes = RED, name: str = "mine.png", kind: str = "image/png") -> None:
    page.get_by_label(re.compile("Choose a")).set_input_files(
        {"name": name, "mimeType": kind, "buffer": data}
    )


def choice(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name, exact=True)


def settle(page: Page) -> None:
    """Waits until no search is under way."""
    expect(page.locator("#loading")).to_be_hidden()


def ids(page: Page) -> list[int]:
    return [int(x) for x in page.locator(".point").evaluate_all("a => a.map(p => p.dataset.id)")]


def labels(page: Page) -> list[str]:
    return page.locator(".point .label").all_inner_texts()


def answer_with(body: Any, status: int = 200) -> Callable[[Route], None]:
    kind = "application/json" if status < 400 else "application/problem+json"
    return lambda route: route.fulfill(status=status, json=body, content_type=kind)


def show_result(page: Page, data: bytes = RED) -> None:
    page.goto("/")
    upload(page, data)
    expect(page.locator(".point")).to_have_count(12)
    settle(page)
