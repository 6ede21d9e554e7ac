"""The page below a sub-path of a real nginx: it searches and opens an image, and no request misses the path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Console
from tests.browser.page import TILES, open_page, search
from tests.nginx import KEEP, PREFIX, REMOVE, nginx
from tests.programs import serving


@pytest.fixture(scope="module", params=["removed", "kept"])
def url(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    setting, path = {
        "removed": ("search.trusted_proxies=127.0.0.1", REMOVE),
        "kept": (f"search.root_path={PREFIX}", KEEP),
    }[request.param]
    with (
        serving(home, "--set", setting) as client,
        nginx(tmp_path_factory.mktemp("nginx") / "nginx", str(client.base_url).rstrip("/"), path) as url,
    ):
        yield url


def test_the_page_works_below_a_sub_path(browser: Browser, url: str) -> None:
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    console, requested = Console(context), []
    context.on("request", lambda request: requested.append(request.url))
    page = context.new_page()

    open_page(page, f"{url}/?index=photos")
    search(page, "a giraffe")
    page.locator(f"{TILES} .open").first.click()
    expect(page.locator(".frame.loaded")).to_be_visible()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    page.reload()
    expect(page.locator(".frame.loaded")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Map", exact=True).click()
    expect(page.locator("#status")).to_contain_text("near each other")
    page.get_by_role("link", name="imgsearch").click()
    expect(page.locator(TILES).first).to_be_visible()

    page.goto(f"{url}/docs")
    operation = page.locator("#operations-default-indexes_v1_indexes_get")
    operation.locator("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    with page.expect_response(lambda response: response.url.endswith("/v1/indexes")) as response:
        operation.get_by_role("button", name="Execute").click()
    assert response.value.status == 200
    assert {index["index"] for index in response.value.json()["indexes"]} >= {"few", "photos"}

    outside = [address for address in requested if not address.startswith((f"{url}/", "data:", "blob:"))]
    assert outside == []
    assert any("/v1/map/sprite" in address for address in requested)
    assert console.errors == []
    context.close()
