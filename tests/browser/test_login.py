"""The page of a searcher that wants a key."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from imgsearch.settings import SearchSettings, Settings, StorageSettings, StoreSettings
from tests.browser.conftest import Console
from tests.browser.test_gestures import shown
from tests.programs import await_ready, free_port, program_env

KEY = "of-the-team"


@pytest.fixture
def locked(home: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a searcher over the same indexes."""
    port = free_port()
    settings = Settings(
        storage=StorageSettings((home / "storage").as_uri()),
        store=StoreSettings(f"chroma+{(home / 'chroma').as_uri()}"),
        search=SearchSettings(port=port, api_keys=f"team:{hashlib.sha256(KEY.encode()).hexdigest()}"),
    )
    log = tmp_path / "log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "searcher", "serve"]
        server = subprocess.Popen(command, env=program_env(settings.to_env()), stdout=sink, stderr=sink)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await_ready(client, server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def test_the_page_asks_for_the_key_once(browser: Browser, locked: str) -> None:
    context = browser.new_context(base_url=locked)
    console = Console(context)
    console.refusals = True
    page = context.new_page()
    page.goto("/?index=photos&q=a+giraffe")
    expect(page.locator("#notice h2")).to_have_text("API key required")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    key.fill("another")
    key.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("API key")
    key.fill(KEY)
    key.press("Enter")
    shown(page)
    page.reload()
    shown(page)
    assert console.complaints == []
    context.close()
