"""The page in a real browser, on the real service with 24 plain coloured pictures."""

import contextlib
import io
import re

import httpx2
import pytest
from PIL import Image

from embed.pictures import SUFFIXES
from tests.embed.helpers import encoded
from tests.search_api.web.browser import (
    BLUE,
    RED,
    Error,
    Page,
    Route,
    change_index,
    change_response,
    choice,
    expect,
    ids,
    labels,
    sentence,
    settle,
    show_result,
    upload,
)


def test_header_states_count_kind_and_model(page: Page, api: httpx2.Client) -> None:
    index = api.get("/v1/index").json()
    page.goto("/")
    status = page.get_by_role("list", name="Service status").get_by_role("listitem")
    digest = index["model"].removeprefix("sha256:")[:8]
    expect(status).to_have_text(["24 pictures", f"{index['kind']} index", f"model {digest}"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Lookalike")


def test_page_requests_only_its_own_server(page: Page, live_server: str) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    show_result(page)
    assert f"{live_server}/static/app.js" in urls
    own = (live_server, "blob:", "data:")
    assert [url for url in urls if not url.startswith(own)] == []


def test_content_security_policy_blocks_nothing_the_page_needs(page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if "Security Policy" in m.text else None)
    response = page.goto("/")
    assert response is not None
    assert "default-src 'self'" in response.headers["content-security-policy"]
    upload(page)
    expect(page.locator(".point")).to_have_count(12)
    shown = page.locator("#query-pictures img")
    assert shown.evaluate("image => image.naturalWidth") == 32
    assert complaints == []


def test_sample_corpus_is_announced_by_a_banner(page: Page, api: httpx2.Client) -> None:
    change_index(page, api, sample=True, notice="Not your pictures.")
    page.goto("/")
    expect(page.get_by_role("note")).to_have_text("Not your pictures.")


def test_own_corpus_has_no_banner(page: Page, api: httpx2.Client) -> None:
    change_index(page, api, sample=False, notice=None)
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
    expect(page.locator(".point").first).to_contain_text("your query")


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
    expect(page.locator("#vote")).to_have_text(
        f"{voters.count('red')} of 10 neighbours are labelled red"
    )
    expect(page.locator("#summary")).to_have_text(
        re.compile(r"^12 neighbours in \d+\.\d ms \(.*\)")
    )


def test_neighbours_of_another_label_are_marked(page: Page) -> None:
    show_result(page)
    other = [label != "red" for label in labels(page)]
    assert any(other), "twelve neighbours among eight red pictures hold another colour"
    tags = page.locator(".point").evaluate_all(
        "points => points.map(p => p.querySelector('.tag')?.textContent === 'other label')"
    )
    assert tags == other


def predict(page: Page, members: dict[str, object]) -> None:
    """Give the responses of searches this prediction."""
    prediction = {"confidence": 0.5, "grade": "like the stored pictures", "source": "network"}
    page.route(
        "**/v1/search?*",
        change_response(lambda answer: {**answer, "prediction": {**prediction, **members}}),
    )


def test_a_picture_unlike_the_stored_ones_has_none_of_the_classes(page: Page) -> None:
    predict(
        page,
        {
            "class": None,
            "nearest_class": "red",
            "grade": "unlike most stored pictures",
            "probabilities": {"red": 0.9, "blue": 0.1},
        },
    )
    show_result(page)
    expect(page.locator("#predicted-class")).to_have_text("None of these")
    expect(page.locator("#confidence")).to_be_empty()
    expect(page.locator("#prediction-note")).to_have_text(
        "Unlike most stored pictures; the nearest class is red."
    )
    expect(page.locator("#probabilities li")).to_have_count(0)
    expect(page).to_have_title("none of these \u00b7 Lookalike")
    # No predicted class, so no neighbour has another label than it.
    expect(page.locator(".point .tag")).to_have_count(0)


def test_bars_show_five_classes_and_open_to_all(page: Page) -> None:
    probabilities = {f"c{i}": p for i, p in enumerate([0.02, 0.5, 0.2, 0.0004, 0.1, 0.09, 0.0896])}
    predict(page, {"class": "c1", "nearest_class": "c1", "probabilities": probabilities})
    show_result(page)
    expect(page.locator("#prediction-note")).to_have_text(
        "Like the stored pictures. These are the model's classes, not your labels."
    )
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
    empty = change_response(lambda answer: {**answer, "points": [], "vote": None})
    page.route(re.compile(r"/v1/search\?.*filter="), empty)
    choice(page, "Label").select_option("green")
    expect(page.locator("#nothing-text")).to_have_text("No pictures match these filters.")
    expect(page.locator("#vote")).to_be_hidden()
    page.get_by_role("button", name="Clear filters").click()
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


def test_unknown_id_shows_the_message_of_the_server(page: Page, api: httpx2.Client) -> None:
    # The page requests the picture and its neighbours at once; either error will do.
    paths = ["/v1/images/987654321/similar", "/v1/images/987654321"]
    details = [re.escape(sentence(api.get(path).json()["detail"])) for path in paths]
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
    with contextlib.suppress(Error):  # the page has aborted the request
        held[0].continue_()
    page.wait_for_timeout(300)  # time for a late response to do harm
    expect(page.locator("#query-text")).to_contain_text(f"picture {quick}")
    assert ids(page) == expected
    settle(page)


def test_variety(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    nearest = ids(page)
    choice(page, "Variety").select_option("high")
    expect(page.locator(".point").nth(1)).not_to_have_attribute("data-id", str(nearest[1]))
    settle(page)
    params = {"limit": 12, "diversity": 0.7}
    answer = api.post("/v1/search", files={"image": ("q.png", RED)}, params=params).json()
    assert ids(page) == [point["id"] for point in answer["points"]]
    choice(page, "Variety").select_option("none")
    expect(page.locator(".point").nth(1)).to_have_attribute("data-id", str(nearest[1]))


SEND = """([kind, bytes, name, type]) => {
  const data = new DataTransfer();
  if (!type) data.items.add(new File(["a note"], "note.txt", { type: "text/plain" }));
  data.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("h1").dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_picture_can_be_dropped_or_pasted_anywhere(page: Page, kind: str) -> None:
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    page.evaluate(SEND, [kind, list(BLUE), "mine.png", "image/png"])
    expect(page.locator("#predicted-class")).to_have_text("blue")
    expect(page.locator("#drop-overlay")).to_be_hidden()


def blue_heic() -> bytes:
    with Image.open(io.BytesIO(BLUE)) as picture:
        return encoded(picture.convert("RGB").resize((128, 128)), "HEIF")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_whose_type_the_browser_does_not_know(page: Page, kind: str) -> None:
    """An HEIC next to a note: the ending says which of them is the picture."""
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    page.evaluate(SEND, [kind, list(blue_heic()), "IMG_0001.HEIC", ""])
    expect(page.locator("#predicted-class")).to_have_text("blue")
    expect(page.locator("#query .no-preview")).to_have_text("No preview")


def test_every_ending_that_is_read_can_be_chosen(page: Page) -> None:
    page.goto("/")
    accepted = page.locator("#file").get_attribute("accept")
    assert accepted is not None
    # Browsers know the type of these.
    known = {".jpg", ".jpeg", ".png", ".apng", ".webp", ".gif", ".bmp", ".svg"}
    rare = {".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".btf"}
    assert set(SUFFIXES) - known - rare <= set(accepted.split(","))
