"""The page in a real browser, against the real service with 24 plain coloured pictures."""

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Error, Locator, Page, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; install it with `apt-get install chromium`"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, live_server: str) -> Iterator[Page]:
    context = browser.new_context(base_url=live_server, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == [], "scripts of the page failed"


@pytest.fixture
def api(live_server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live_server, timeout=10) as client:
        yield client


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


# ---- The start page


def test_header_states_count_kind_and_model(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    page.goto("/")
    status = page.get_by_role("list", name="Service status").get_by_role("listitem")
    digest = index["model"].removeprefix("sha256:")[:8]
    expect(status).to_have_text(["24 pictures", f"{index['kind']} index", f"model {digest}"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Lookalike")


def test_page_asks_nobody_but_its_own_server(page: Page, live_server: str) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    show_result(page)
    assert f"{live_server}/static/app.js" in urls
    own = (live_server, "blob:", "data:")
    assert [url for url in urls if not url.startswith(own)] == []


def test_content_security_policy_blocks_nothing_the_page_needs(page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if "Security Policy" in m.text else None)
    answer = page.goto("/")
    assert answer is not None
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    upload(page)
    expect(page.locator(".point")).to_have_count(12)
    shown = page.locator("#query-pictures img")
    assert shown.evaluate("image => image.naturalWidth") == 32
    assert complaints == []


def test_sample_corpus_is_announced_by_a_banner(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    page.route(
        "**/v1/index", answer_with({**index, "sample": True, "notice": "Not your pictures."})
    )
    page.goto("/")
    expect(page.get_by_role("note")).to_have_text("Not your pictures.")


def test_own_corpus_has_no_banner(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    page.route("**/v1/index", answer_with({**index, "sample": False, "notice": None}))
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    expect(page.get_by_role("note")).to_be_hidden()


def test_sample_picture_is_classified_and_searched(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Search with a sample picture: blue").first.click()
    expect(page.locator("#predicted-class")).to_have_text("blue")
    expect(page.locator(".point")).to_have_count(12)
    sample = int(re.sub(r".*#try=", "", page.url))
    assert ids(page)[0] == sample
    expect(page.locator(".point").first).to_contain_text("this one")


# ---- A search


def test_upload_shows_class_bars_vote_and_neighbours(page: Page, api: httpx2.Client) -> None:
    answer = api.post("/v1/search", params={"limit": 12}, files={"image": RED}).json()
    show_result(page)
    prediction = answer["prediction"]
    assert prediction["class"] == "red"
    expect(page.locator("#predicted-class")).to_have_text("red")

    bars = page.get_by_role("list", name="Probability of each class").locator(".name")
    by_probability = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    assert bars.all_inner_texts()[0] == by_probability[0][0] == "red"
    assert sorted(bars.all_inner_texts()) == ["blue", "green", "red"]

    points = answer["points"]
    assert ids(page) == [point["id"] for point in points]
    assert labels(page) == [point["payload"]["label"] for point in points]
    assert page.locator(".point .score").all_inner_texts() == [f"{p['score']:.3f}" for p in points]
    assert page.locator(".point .split").all_inner_texts() == [
        p["payload"]["split"] for p in points
    ]
    voters = [point["payload"]["label"] for point in points[:10]]
    expect(page.locator("#vote")).to_have_text(f"{voters.count('red')} of 10 neighbours say red")
    expect(page.locator("#summary")).to_have_text(
        re.compile(r"^12 neighbours in \d+\.\d ms \(.*\)")
    )


def test_neighbours_of_another_label_are_marked(page: Page) -> None:
    show_result(page)
    other = [label != "red" for label in labels(page)]
    assert any(other), "twelve neighbours among eight red pictures hold another colour"
    tags = page.locator(".point").evaluate_all(
        "points => points.map(p => p.querySelector('.tag')?.textContent === 'differs')"
    )
    assert tags == other


def answer_with_many_classes(prediction: dict[str, Any]) -> Callable[[Route], None]:
    def handle(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "prediction": prediction})

    return handle


def test_bars_show_five_classes_and_open_to_all(page: Page) -> None:
    probabilities = {f"c{i}": p for i, p in enumerate([0.02, 0.5, 0.2, 0.0004, 0.1, 0.09, 0.0896])}
    prediction = {"class": "c1", "confidence": 0.5, "probabilities": probabilities}
    page.route("**/v1/search?*", answer_with_many_classes(prediction))
    show_result(page)
    rows = page.locator("#probabilities li")
    expect(rows).to_have_text(["c150.0%", "c220.0%", "c410.0%", "c59.0%", "c69.0%"])
    page.get_by_role("button", name="Show all 7 classes").click()
    expect(rows).to_have_count(7)
    expect(rows.last).to_have_text("c3<0.1%")
    expect(page.get_by_role("button", name="Show the top 5")).to_have_attribute(
        "aria-expanded", "true"
    )


def test_filters_by_label_and_split(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    choice(page, "Label").select_option("blue")
    expect(page.locator(".point")).to_have_count(8)
    assert set(labels(page)) == {"blue"}
    choice(page, "Label").select_option("any")
    split, total = next(iter(api.get("/v1/index").json()["splits"].items()))
    choice(page, "Results").select_option("24")
    choice(page, "Split").select_option(split)
    settle(page)
    expect(page.locator(".point")).to_have_count(total)
    assert set(page.locator(".point .split").all_inner_texts()) == {split}


def test_filter_without_a_match_says_so_and_can_be_cleared(page: Page) -> None:
    show_result(page)

    def empty(route: Route) -> None:
        if "filter=" not in route.request.url:
            route.continue_()
            return
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "points": [], "vote": None})

    page.route("**/v1/search?*", empty)
    choice(page, "Label").select_option("green")
    expect(page.locator("#nothing-text")).to_have_text("No picture fits these filters.")
    expect(page.locator("#vote")).to_be_hidden()
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator(".point")).to_have_count(12)
    expect(choice(page, "Label")).to_have_value("")


def test_show_more_appends_the_next_page(page: Page) -> None:
    show_result(page)
    first = ids(page)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".point")).to_have_count(24)
    settle(page)
    both = ids(page)
    assert both[:12] == first
    assert len(set(both)) == 24
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_number_of_results_can_be_chosen(page: Page) -> None:
    show_result(page)
    assert choice(page, "Results").locator("option").all_inner_texts() == [
        *("12", "24", "48", "96")
    ]
    choice(page, "Results").select_option("48")
    expect(page.locator(".point")).to_have_count(24)


# ---- More like this, and the history


def test_click_on_a_neighbour_searches_by_it_and_back_returns(
    page: Page, api: httpx2.Client
) -> None:
    show_result(page)
    uploaded = ids(page)
    chosen = uploaded[3]
    page.locator(".point a").nth(3).click()
    expect(page.locator("#query-title")).to_have_text("More like this")
    expect(page.locator("#query-text")).to_contain_text(f"red, picture {chosen}")
    expect(page.locator("#prediction")).to_be_hidden()
    settle(page)
    assert page.url.endswith(f"/#id={chosen}")
    similar = api.get(f"/v1/images/{chosen}/similar", params={"limit": 12}).json()
    assert ids(page) == [point["id"] for point in similar["points"]]

    page.go_back()
    expect(page.locator("#query-text")).to_have_text("mine.png")
    settle(page)
    expect(page.locator("#predicted-class")).to_be_visible()
    assert ids(page) == uploaded
    page.go_back()
    expect(page.locator("#result")).to_be_hidden()
    expect(page.get_by_role("heading", name="Or try one of these")).to_be_visible()
    page.go_forward()
    expect(page.locator("#query-text")).to_have_text("mine.png")


def test_address_with_an_id_opens_its_neighbours(page: Page, api: httpx2.Client) -> None:
    point = api.get("/v1/images", params={"limit": 5}).json()["points"][4]
    page.goto(f"/#id={point['id']}")
    expect(page.locator("#query-text")).to_contain_text(
        f"{point['payload']['label']}, picture {point['id']}"
    )
    settle(page)
    expect(page.locator(".point")).to_have_count(12)
    assert point["id"] not in ids(page)


def test_unknown_id_shows_the_words_of_the_server(page: Page, api: httpx2.Client) -> None:
    # The page asks for the picture and for its neighbours at once; either refusal will do.
    paths = ["/v1/images/987654321/similar", "/v1/images/987654321"]
    details = [re.escape(api.get(path).json()["detail"]) for path in paths]
    page.goto("/#id=987654321")
    expect(page.get_by_role("alert")).to_have_text(re.compile(f"^({'|'.join(details)})$"))
    expect(page.locator("#result")).to_be_hidden()


def test_newest_request_wins(page: Page, api: httpx2.Client) -> None:
    slow, quick = [p["id"] for p in api.get("/v1/images", params={"limit": 2}).json()["points"]]
    held: list[Route] = []
    page.route(f"**/v1/images/{slow}/similar?*", lambda route: held.append(route))
    page.goto(f"/#id={slow}")
    expect(page.locator("#loading")).to_be_visible()
    page.evaluate("id => { location.hash = `#id=${id}` }", quick)
    expect(page.locator("#query-text")).to_contain_text(f"picture {quick}")
    expect(page.locator(".point")).to_have_count(12)
    expected = ids(page)
    assert len(held) == 1
    with contextlib.suppress(Error):  # the page has given the request up
        held[0].continue_()
    page.wait_for_timeout(300)  # time for a late answer to do its harm
    expect(page.locator("#query-text")).to_contain_text(f"picture {quick}")
    assert ids(page) == expected
    settle(page)


# ---- Search by examples


def test_marked_examples_are_searched_by(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    positive, negative = ids(page)[1], ids(page)[10]
    page.get_by_role("button", name=f"Less like picture {negative}", exact=True).click()
    search = page.get_by_role("button", name="Search by these")
    expect(search).to_be_disabled()
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


def test_a_chip_can_be_removed(page: Page) -> None:
    show_result(page)
    chosen = ids(page)[0]
    page.get_by_role("button", name=f"More like picture {chosen}", exact=True).click()
    page.get_by_role("button", name=f"Remove red #{chosen}").click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".mark[aria-pressed=true]")).to_have_count(0)


# ---- The index panel


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


def test_refused_rebuild_shows_the_words_of_the_server(page: Page) -> None:
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "One runs."}
    page.route("**/v1/index/rebuild", answer_with(problem, 409))
    page.goto("/")
    page.locator("#index summary").click()
    page.get_by_role("button", name="Rebuild index").click()
    expect(page.locator("#rebuild-state")).to_have_text("One runs.")


# ---- Dropping, pasting, and what may go wrong

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


# ---- For everyone


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
    for _ in range(4):  # three selects, then the first neighbour
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
