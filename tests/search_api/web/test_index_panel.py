"""The index panel: its facts, and a rebuild with progress, cancellation and skipped pictures."""

import re
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.search_api.conftest import MeanColour
from tests.search_api.web.browser import Page, expect, fulfil_with, open_index_panel, start_rebuild


def test_index_panel_lists_labels_and_rebuilds(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    page.goto("/")
    page.get_by_role("heading", name="Index", exact=True).click()
    expect(page.get_by_role("list", name="Labels").get_by_role("listitem")).to_have_text(
        [f"{name}{n}" for name, n in index["labels"].items()]
    )
    expect(page.locator("#index-facts")).to_contain_text(f"Dimension{index['dimension']}")
    page.get_by_role("button", name="Rebuild index").click()
    state = page.locator("#rebuild-state")
    expect(state).to_have_text(re.compile(r"^Rebuild complete: generation \d+\.$"), timeout=60_000)
    generation = api.get("/v1/index").json()["generation"]
    assert generation > index["generation"]
    expect(state).to_have_text(f"Rebuild complete: generation {generation}.")
    expect(page.locator("#index-facts")).to_contain_text(f"Generation{generation}")
    expect(page.get_by_role("button", name="Rebuild index")).to_be_enabled()


def test_rebuild_shows_progress_and_the_reason_of_a_failure(page: Page) -> None:
    job = {"id": "j", "kind": "rebuild", "state": "queued", "progress": None, "error": None}
    now: dict[str, Any] = dict(job)
    page.route("**/v1/index/rebuild", fulfil_with(job, 202))
    page.route("**/v1/jobs/j", lambda route: route.fulfill(json=now))
    start_rebuild(page)
    state = page.locator("#rebuild-state")
    bar = page.get_by_role("progressbar", name="Rebuild progress")
    expect(state).to_have_text("Waiting to start.")
    expect(bar).not_to_have_attribute("value", re.compile(""))
    for done, text in [(1000, "1,000 of 4,000"), (4000, "4,000 of 4,000")]:
        progress = {"done": done, "total": 4000, "stage": "embedding"}
        now.update(state="running", progress=progress)
        expect(page.locator("#rebuild-count")).to_have_text(text)
        expect(bar).to_have_js_property("value", done)
        expect(state).to_have_text("Rebuilding: embedding.")
    now.update(state="failed", error="the disk is full")
    expect(state).to_have_text("Rebuild failed: the disk is full.")
    expect(bar).to_be_hidden()


def test_rebuild_is_followed_by_events_and_cancelled(
    page: Page, api: httpx2.Client, encoder: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, opened = threading.Event(), threading.Event()
    encode = encoder.encode

    def slow(pictures: Any) -> Any:
        entered.set()
        assert opened.wait(30)
        return encode(pictures)

    monkeypatch.setattr(encoder, "encode", slow)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url.rpartition("/v1")[2]))
    open_index_panel(page)
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()
    api.post("/v1/index/rebuild", params={"reembed": True})
    assert entered.wait(30)
    page.reload()  # the page joins the running job
    page.locator("#index summary").click()
    expect(page.locator("#rebuild-count")).to_have_text("0 of 24")
    expect(page.get_by_role("button", name="Rebuild index")).to_be_disabled()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_disabled()
    opened.set()
    state = page.locator("#rebuild-state")
    expect(state).to_have_text(re.compile("^Rebuild cancelled: "))
    (job,) = api.get("/v1/jobs").json()["jobs"]
    assert job["state"] == "cancelled"
    assert job["error"].startswith("stopped before the new index")
    expect(state).to_have_text(f"Rebuild cancelled: {job['error'].removesuffix('.')}.")
    assert f"/jobs/{job['id']}/events" in requested
    assert f"/jobs/{job['id']}" in requested  # only to cancel it: the rest came as events
    assert requested.count(f"/jobs/{job['id']}") == 1


def test_rebuild_lists_skipped_pictures(page: Page, api: httpx2.Client, folder: Path) -> None:
    for n in range(22):
        (folder / "train" / "red" / f"bad{n:02}.png").write_bytes(b"rubbish")
    start_rebuild(page)
    expect(page.locator("#rebuild-skipped-count")).to_have_text("22 pictures skipped:")
    entries = page.locator("#rebuild-skipped").get_by_role("listitem")
    expect(entries).to_have_count(21)
    (job,) = api.get("/v1/jobs").json()["jobs"]
    entry = api.get(f"/v1/jobs/{job['id']}/log").json()["entries"][0]
    assert entry["source"] == "train/red/bad00.png"
    assert "not a picture" in entry["reason"]
    expect(entries.first).to_have_text(f"train/red/bad00.png: {entry['reason']}")
    expect(entries.last).to_have_text("and 2 more")


def test_refused_rebuild_shows_the_message_of_the_server(page: Page) -> None:
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "One runs."}
    page.route("**/v1/index/rebuild", fulfil_with(problem, 409))
    start_rebuild(page)
    expect(page.locator("#rebuild-state")).to_have_text("One runs.")
