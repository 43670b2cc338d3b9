"""Errors and hostile data: what the page shows, and what it never does."""

import httpx2

from tests.search_api.web.browser import (
    Page,
    change_index,
    change_response,
    choice,
    expect,
    fulfil_with,
    sentence,
    show_result,
    upload,
)


def test_unreadable_picture_shows_the_message_of_the_server(page: Page, api: httpx2.Client) -> None:
    files = {"image": ("notes.png", b"no picture", "image/png")}
    problem = api.post("/v1/search", params={"limit": 12}, files=files).json()
    show_result(page)
    upload(page, b"no picture", "notes.png")
    expect(page.get_by_role("alert")).to_have_text(sentence(problem["detail"]))
    expect(page.locator("#result")).to_be_hidden()
    expect(page.locator("#predicted-class")).to_be_hidden()


def test_error_without_a_problem_names_the_status(page: Page) -> None:
    page.route("**/v1/search?*", lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"))
    page.goto("/")
    upload(page)
    expect(page.get_by_role("alert")).to_contain_text("returned an error (status 502)")


def test_search_can_be_retried_when_the_server_does_not_respond(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#status li")).to_have_count(3)
    page.route("**/v1/search?*", lambda route: route.abort())
    upload(page)
    expect(page.get_by_role("alert")).to_contain_text("The server is not responding.")
    page.unroute("**/v1/search?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".point")).to_have_count(12)
    expect(page.get_by_role("alert")).to_be_empty()


def test_start_can_be_retried_when_the_server_does_not_respond(page: Page) -> None:
    page.route("**/v1/index", lambda route: route.abort())
    page.goto("/")
    expect(page.get_by_role("alert")).to_contain_text("The server is not responding.")
    page.unroute("**/v1/index")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status li").first).to_have_text("24 pictures")


def test_picture_above_the_limit_is_refused_before_upload(page: Page, api: httpx2.Client) -> None:
    limits = {**api.get("/v1/index").json()["limits"], "max_upload_bytes": 2048}
    change_index(page, api, limits=limits)
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/v1/search" in r.url else None)
    page.goto("/")
    expect(page.locator("#drop-limit")).to_have_text("Up to 2 kB.")
    upload(page, bytes(3072), "huge.png")
    expect(page.get_by_role("alert")).to_have_text(
        "huge.png is 3 kB; the limit is 2 kB. Choose a smaller picture."
    )
    assert sent == []


def test_text_from_the_api_is_never_read_as_html(page: Page) -> None:
    evil = '<img src=x id="evil"><b>bold</b>'
    payload = {"label": evil, "split": evil, "source": evil}
    poison = change_response(
        lambda answer: {
            **answer,
            "points": [{**point, "payload": payload} for point in answer["points"]],
            "vote": {"class": evil, "share": 1.0},
            "prediction": {
                "class": evil,
                "confidence": 1.0,
                "nearest_class": evil,
                "grade": evil,
                "source": "store",
                "probabilities": {evil: 1.0},
            },
        }
    )
    page.route("**/v1/search?*", poison)
    show_result(page)
    expect(page.locator(".point .label").first).to_have_text(evil)
    expect(page.locator("#predicted-class")).to_have_text(evil)
    expect(page.locator("#vote")).to_have_text(f"10 of 10 neighbours are labelled {evil}")
    problem = {"title": "t", "status": 400, "detail": evil}
    page.route("**/v1/search?*", fulfil_with(problem, 400))
    choice(page, "Results").select_option("24")
    expect(page.get_by_role("alert")).to_have_text(f"{evil}.")
    expect(page.locator("#evil, main b")).to_have_count(0)
