"""The login on the page of a searcher that requires an API key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Console
from tests.browser.page import wait_for_results
from tests.searcher.fake_searcher import searcher
from tests.searcher.library import hashed

KEY = "of-the-team"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[str]:
    """The address of a small searcher, with the real HTTP server and a fake model."""
    with searcher(tmp_path, api_keys=hashed(KEY)) as url:
        yield url


def test_the_page_asks_for_the_key_once(browser: Browser, locked: str) -> None:
    context = browser.new_context(base_url=locked)
    console = Console(context)
    console.allows_http_errors = True
    page = context.new_page()
    page.goto("/?index=photos&q=red")
    expect(page.locator("#notice h2")).to_have_text("API key required")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    key.fill("another")
    key.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("API key")
    key.fill(KEY)
    key.press("Enter")
    wait_for_results(page)
    page.reload()
    wait_for_results(page)
    assert console.errors == []
    context.close()
