"""Search with positive and negative examples."""

import httpx2

from tests.search_api.web.browser import RED, Page, expect, ids, settle, show_result


def test_search_with_positive_and_negative_examples(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    positive, negative = ids(page)[1], ids(page)[10]
    page.get_by_role("button", name=f"Less like picture {negative}", exact=True).click()
    search = page.get_by_role("button", name="Search with these")
    expect(page.locator("#examples-hint")).to_have_text("Finds more pictures like yours.")
    plus = page.get_by_role("button", name=f"More like picture {positive}", exact=True)
    plus.click()
    expect(plus).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".chip")).to_have_count(2)
    search.click()
    expect(page.locator("#query-title")).to_have_text("Search by example")
    settle(page)
    assert page.url.endswith(f"/#like={positive}&unlike={negative}")
    body = {"positive": [positive], "negative": [negative], "limit": 12, "offset": 0}
    answer = api.post("/v1/recommend", json={**body, "strategy": "average_vector"}).json()
    assert ids(page) == [point["id"] for point in answer["points"]]
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.get_by_role("region", name="Selected examples")).to_be_hidden()


def test_negative_example_refines_the_uploaded_picture(page: Page, api: httpx2.Client) -> None:
    show_result(page)
    negative = ids(page)[0]
    page.get_by_role("button", name=f"Less like picture {negative}", exact=True).click()
    page.get_by_role("button", name="Search with these").click()
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
    # Without an uploaded picture, a positive example is required.
    page.goto(f"/#id={negative}")
    expect(page.locator("#query-title")).to_have_text("More like this")
    settle(page)
    page.get_by_role("button", name="Less like picture").first.click()
    expect(page.get_by_role("button", name="Search with these")).to_be_disabled()
    expect(page.locator("#examples-hint")).to_have_text("Press + on at least one picture.")


def test_a_chip_can_be_removed(page: Page) -> None:
    show_result(page)
    chosen = ids(page)[0]
    page.get_by_role("button", name=f"More like picture {chosen}", exact=True).click()
    page.get_by_role("button", name=f"Remove red #{chosen}").click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".example-toggle[aria-pressed=true]")).to_have_count(0)
