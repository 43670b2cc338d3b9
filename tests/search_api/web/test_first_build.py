"""The page while the first build of a store is going on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from search_api.jobs.tasks import Task
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour
from tests.search_api.helpers import running

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.slow


class Gate(MeanColour):
    """Encodes a batch each time it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = threading.Semaphore(0)

    def encode(self, pictures, *, spare=False):
        if len(pictures) > 1:
            assert self.turns.acquire(timeout=60)
        return super().encode(pictures)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def address(
    gate: Gate, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setattr("search_api.service.corpus_sync.BATCH", 5)
    engine = SearchEngine(gate, FolderCorpus(folder), tmp_path / "empty")
    with running(engine, build=Task("rebuild")) as (_, (host, port)):
        yield f"http://{host}:{port}"
        gate.turns.release(99)


def test_the_page_shows_the_first_build(browser: Browser, address: str, gate: Gate) -> None:
    context = browser.new_context(base_url=address)
    page = context.new_page()
    page.goto("/")
    banner, status = page.locator("#building"), page.locator("#status")
    expect(banner).to_contain_text("searches are possible once the first pictures are embedded")
    expect(banner).to_contain_text("0 of 24")
    expect(page.locator("#error")).to_be_empty()
    gate.turns.release()
    expect(banner).to_contain_text("searches find what is embedded so far")
    expect(status).to_contain_text("5 pictures")
    expect(page.locator("#building-progress")).to_have_attribute("value", "5")
    expect(page.locator("#sample-list li")).not_to_have_count(0)
    gate.turns.release()
    expect(status).to_contain_text("10 pictures")
    gate.turns.release(9)
    expect(banner).to_be_hidden()
    expect(status).to_contain_text("24 pictures")
    context.close()
