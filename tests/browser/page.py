"""The page in the browser: opens it, searches, and reads its results and its address."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

from playwright.sync_api import Page, expect

TILES = "#results .tile"


def names(page: Page) -> list[str]:
    """The file names of the results, best first."""
    labels = page.locator(f"{TILES} .open").evaluate_all("tiles => tiles.map((tile) => tile.ariaLabel)")
    return [label.split(",")[0] for label in labels]


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.url).query)


def search(page: Page, text: str) -> None:
    """Types the text and waits for its results."""
    with page.expect_response(
        lambda response: response.url.endswith("/v1/search") and text in (response.request.post_data or "")
    ):
        page.locator("#text").press_sequentially(text)
    wait_for_results(page)


def wait_for_results(page: Page) -> None:
    expect(page.locator("#results.stale")).to_have_count(0)
    expect(page.locator(f"{TILES} img.loaded").first).to_be_visible()


def open_page(page: Page, address: str = "/") -> Page:
    page.goto(address)
    wait_for_results(page)
    return page
