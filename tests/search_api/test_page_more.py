"""The page in a real browser: examples, the index panel, what goes wrong, for everyone."""

import re
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.search_api.browser import (
    BLUE,
    RED,
    answer_with,
    choice,
    ids,
    needs_browser,
    settle,
    show_result,
    upload,
)
from tests.search_api.conftest import MeanColour

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, Route, expect

pytestmark = needs_browser


def test_marked_examples_are_searched_by(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    positive, negative = ids(page)[1], ids(page)[10]
    page.get_by_role("button", name=f"Less like picture {negative}", exact=True).click()
    search = page.get_by_role("button", name="Search by these")
    expect(page.locator("#marks-hint")).to_have_text("More like your picture.")
    plus = page.get_by_role("button", name=f"More like picture {positive}", exact=True)
    plus.click()
    expect(plus).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".chip")).to_have_count(2)
    search.click()
    expect(page.locator("#query-title")).to_have_text("Search by examples")
    settle(page)
    assert page.url.endswith(f"/#like={positive}&unlike={negative}")
    body = {"positive": [positive], "negative": [negative], "limit": 12, "offset": 0}
    answer = api.post("/v1/recommend", json={**body, "strategy": "average_vector"}).json()
    assert ids(page) == [point["id"] for point in answer["points"]]
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.get_by_role("region", name="Chosen examples")).to_be_hidden()


def test_less_like_this_refines_the_users_own_picture(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    negative = ids(page)[0]
    page.get_by_role("button", name=f"Less like picture {negative}", exact=True).click()
    page.get_by_role("button", name="Search by these").click()
    expect(page.locator("#query-text")).to_have_text(
        f"More like your picture; less like #{negative}"
    )
    settle(page)
    assert page.url.endswith(f"/#unlike={negative}")
    answer = api.post(
        "/v1/recommend/images",
        files={"positive_images": ("q.png", RED)},
        data={"negative": str(negative)},
    ).json()
    assert ids(page) == [point["id"] for point in answer["points"]]
    page.go_back()
    expect(page.locator("#query-title")).to_have_text("Your picture")
    # Without a picture of one's own something must be marked with +.
    page.goto(f"/#id={negative}")
    expect(page.locator("#query-title")).to_have_text("More like this")
    settle(page)
    page.get_by_role("button", name="Less like picture").first.click()
    expect(page.get_by_role("button", name="Search by these")).to_be_disabled()
    expect(page.locator("#marks-hint")).to_have_text("Mark at least one picture with +.")


def test_variety(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    nearest = ids(page)
    choice(page, "Variety").select_option("much")
    expect(page.locator(".point").nth(1)).not_to_have_attribute("data-id", str(nearest[1]))
    settle(page)
    params = {"limit": 12, "diversity": 0.7}
    answer = api.post("/v1/search", files={"image": ("q.png", RED)}, params=params).json()
    assert ids(page) == [point["id"] for point in answer["points"]]
    choice(page, "Variety").select_option("nearest first")
    expect(page.locator(".point").nth(1)).to_have_attribute("data-id", str(nearest[1]))


def test_a_chip_can_be_removed(page: Page) -> None:
    show_result(page)
    chosen = ids(page)[0]
    page.get_by_role("button", name=f"More like picture {chosen}", exact=True).click()
    page.get_by_role("button", name=f"Remove red #{chosen}").click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".mark[aria-pressed=true]")).to_have_count(0)


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
    expect(state).to_have_text(re.compile(r"^Rebuilt: generation \d+\.$"), timeout=60_000)
    generation = api.get("/v1/index").json()["generation"]
    assert generation > index["generation"]
    expect(state).to_have_text(f"Rebuilt: generation {generation}.")
    expect(page.locator("#index-facts")).to_contain_text(f"Generation{generation}")
    expect(page.get_by_role("button", name="Rebuild index")).to_be_enabled()


def test_rebuild_shows_progress_and_the_reason_of_a_failure(page: Page) -> None:
    job = {"id": "j", "kind": "rebuild", "state": "queued", "progress": None, "error": None}
    now: dict[str, Any] = dict(job)
    page.route("**/v1/index/rebuild", answer_with(job, 202))
    page.route("**/v1/jobs/j", lambda route: route.fulfill(json=now))
    page.goto("/")
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    state = page.locator("#rebuild-state")
    bar = page.get_by_role("progressbar", name="Rebuild progress")
    expect(state).to_have_text("Waiting to start.")
    expect(bar).not_to_have_attribute("value", re.compile(""))
    for done, words in [(1000, "1,000 of 4,000"), (4000, "4,000 of 4,000")]:
        progress = {"done": done, "total": 4000, "stage": "embedding"}
        now.update(state="running", progress=progress)
        expect(page.locator("#rebuild-count")).to_have_text(words)
        expect(bar).to_have_js_property("value", done)
        expect(state).to_have_text("Rebuilding: embedding.")
    now.update(state="failed", error="the disk is full")
    expect(state).to_have_text("The rebuild failed: the disk is full")
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
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/v1")[2]))
    page.goto("/")
    page.locator("#index summary").click()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()
    api.post("/v1/index/rebuild", params={"reembed": True})
    assert entered.wait(30)
    page.reload()  # the page joins what runs
    page.locator("#index summary").click()
    expect(page.locator("#rebuild-count")).to_have_text("0 of 24")
    expect(page.get_by_role("button", name="Rebuild index")).to_be_disabled()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_disabled()
    opened.set()
    state = page.locator("#rebuild-state")
    expect(state).to_have_text(re.compile("^Cancelled: stopped before the new index"))
    (job,) = api.get("/v1/jobs").json()["jobs"]
    assert job["state"] == "cancelled"
    assert f"/jobs/{job['id']}/events" in asked
    assert f"/jobs/{job['id']}" in asked  # only to cancel it: the rest came by itself
    assert asked.count(f"/jobs/{job['id']}") == 1


def test_rebuild_lists_what_was_left_out(page: Page, folder: Path) -> None:
    for n in range(22):
        (folder / "train" / "red" / f"bad{n:02}.png").write_bytes(b"rubbish")
    page.goto("/")
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    left_out = page.locator("#rebuild-skipped")
    expect(page.locator("#rebuild-skipped-count")).to_have_text("22 pictures left out")
    entries = left_out.get_by_role("listitem")
    expect(entries).to_have_count(21)
    expect(entries.first).to_contain_text("train/red/bad00.png")
    expect(entries.first).to_contain_text("not a picture")
    expect(entries.last).to_have_text("and 2 more")


def test_refused_rebuild_shows_the_words_of_the_server(page: Page) -> None:
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "One runs."}
    page.route("**/v1/index/rebuild", answer_with(problem, 409))
    page.goto("/")
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    expect(page.locator("#rebuild-state")).to_have_text("One runs.")


SEND = """([kind, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("h1").dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_picture_can_be_dropped_or_pasted_anywhere(page: Page, kind: str) -> None:
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    page.evaluate(SEND, [kind, list(BLUE)])
    expect(page.locator("#predicted-class")).to_have_text("blue")
    expect(page.locator("#drop-veil")).to_be_hidden()


def test_unreadable_picture_shows_the_words_of_the_server(page: Page, api: httpx2.Client) -> None:
    files = {"image": ("notes.png", b"no picture", "image/png")}
    problem = api.post("/v1/search", params={"limit": 12}, files=files).json()
    show_result(page)
    upload(page, b"no picture", "notes.png")
    expect(page.get_by_role("alert")).to_have_text(problem["detail"])
    expect(page.locator("#result")).to_be_hidden()
    expect(page.locator("#predicted-class")).to_be_hidden()


def test_answer_without_problem_words_names_the_status(page: Page) -> None:
    page.route("**/v1/search?*", lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"))
    page.goto("/")
    upload(page)
    expect(page.get_by_role("alert")).to_contain_text("refused the request (status 502)")


def test_silent_server_is_named_and_asked_again(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    page.route("**/v1/search?*", lambda route: route.abort())
    upload(page)
    expect(page.get_by_role("alert")).to_contain_text("The server is not answering.")
    page.unroute("**/v1/search?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".point")).to_have_count(12)
    expect(page.get_by_role("alert")).to_be_empty()


def test_silent_server_at_the_start(page: Page) -> None:
    page.route("**/v1/index", lambda route: route.abort())
    page.goto("/")
    expect(page.get_by_role("alert")).to_contain_text("The server is not answering.")
    page.unroute("**/v1/index")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status li").first).to_have_text("24 pictures")


def test_picture_above_the_limit_is_refused_before_upload(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    limits = {**index["limits"], "max_upload_bytes": 2048}
    page.route("**/v1/index", answer_with({**index, "limits": limits}))
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/v1/search" in r.url else None)
    page.goto("/")
    expect(page.locator("#drop-limit")).to_have_text("Up to 2 kB.")
    upload(page, bytes(3072), "huge.png")
    expect(page.get_by_role("alert")).to_have_text(
        "huge.png has 3 kB; the limit is 2 kB. Choose a smaller picture."
    )
    assert sent == []


def test_words_from_the_api_are_never_read_as_html(page: Page) -> None:
    evil = '<img src=x id="evil"><b>bold</b>'

    def poison(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        for point in body["points"]:
            point["payload"] = {"label": evil, "split": evil, "source": evil}
        body["vote"] = {"class": evil, "share": 1.0}
        body["prediction"] = {"class": evil, "confidence": 1.0, "probabilities": {evil: 1.0}}
        route.fulfill(response=answer, json=body)

    page.route("**/v1/search?*", poison)
    show_result(page)
    expect(page.locator(".point .label").first).to_have_text(evil)
    expect(page.locator("#predicted-class")).to_have_text(evil)
    expect(page.locator("#vote")).to_have_text(f"10 of 10 neighbours say {evil}")
    problem = {"title": "t", "status": 400, "detail": evil}
    page.route("**/v1/search?*", answer_with(problem, 400))
    choice(page, "Results").select_option("24")
    expect(page.get_by_role("alert")).to_have_text(evil)
    expect(page.locator("#evil, main b")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    show_result(page)
    page.get_by_role("button", name=re.compile("^More like picture")).first.click()
    page.locator("#index summary").click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_every_control_and_picture_has_a_name(page: Page) -> None:
    show_result(page)
    page.get_by_role("button", name=re.compile("^More like picture")).first.click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("a, button, select, input, progress, summary")]
          .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim()
            || [...(e.labels ?? [])].some((l) => l.textContent.trim())))
          .map((e) => e.outerHTML)"""
    )
    assert [x for x in nameless if 'id="all-classes"' not in x] == []
    assert page.locator("img:not([alt])").count() == 0


def test_search_works_by_keyboard_alone(page: Page) -> None:
    show_result(page)
    focused = page.locator(":focus")
    expect(focused).to_have_id("result-title")
    for _ in range(5):  # four selects, then the first neighbour
        page.keyboard.press("Tab")
    expect(focused).to_have_attribute("href", f"#id={ids(page)[0]}")
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#query-title")).to_have_text("More like this")
    expect(page.locator("#announce")).to_have_text("12 neighbours shown.")


def _linear(channel: int) -> float:
    c = channel / 255
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4


def luminance(rgb: list[int]) -> float:
    red, green, blue = map(_linear, rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    show_result(page)
    pairs = page.evaluate(
        """() => [".muted", ".split", ".label", "#confidence", "#vote", ".drop-title", ".tag"]
          .map((s) => document.querySelector(s))
          .map((e) => {
            const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
            let box = e;
            while (rgb(getComputedStyle(box).backgroundColor)[3] === 0) box = box.parentElement;
            return [rgb(getComputedStyle(e).color), rgb(getComputedStyle(box).backgroundColor)];
          })"""
    )
    assert len(pairs) == 7
    for text, ground in pairs:
        low, high = sorted([luminance(text[:3]), luminance(ground[:3])])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
