"""Width, names, keyboard and contrast: the page works for everyone."""

import re

import pytest

from tests.search_api.web.browser import Page, expect, ids, show_result


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
