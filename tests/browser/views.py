"""The views of the page: each function of `VIEWS` opens one."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.page import TILES, open_page


def home(page: Page) -> None:
    open_page(page, "/?index=photos")


def text(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")


def weighted(page: Page) -> None:
    open_page(page, "/?index=photos&q=an+animal")
    first = page.locator(TILES).first.get_attribute("data-id")
    sixth = page.locator(TILES).nth(5).get_attribute("data-id")
    open_page(page, f"/?index=photos&q=an+animal&part=id:0.5:{first}&part=id:-0.5:{sixth}")


def filters(page: Page) -> None:
    open_page(page, '/?index=photos&q=a+meal&where={"year":{"min":2006}}')
    page.locator("#filters summary").first.click()
    expect(page.locator(".menu[open] .panel")).to_be_visible()


def detail(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    page.locator(f"{TILES} .open").first.click()
    expect(page.locator(".frame.loaded")).to_be_visible()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)


def map_view(page: Page) -> None:
    page.goto("/?index=photos&view=map")
    expect(page.locator("#status")).to_contain_text("near each other")


def zoomed(page: Page) -> None:
    page.goto("/?index=photos&view=map&at=0.42,0.48,3")
    expect(page.locator("#status")).to_contain_text("near each other")
    page.wait_for_load_state("networkidle")


def no_results(page: Page) -> None:
    page.goto('/?index=photos&q=a+giraffe&where={"year":{"min":9999}}')
    expect(page.locator("#notice h2")).to_have_text("No image matches")


VIEWS = {
    "home": home,
    "text": text,
    "weighted": weighted,
    "filters": filters,
    "detail": detail,
    "map": map_view,
    "zoomed": zoomed,
    "no-results": no_results,
}
