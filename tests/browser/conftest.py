"""Fixtures of a real browser and a real searcher: photos with metadata in an embedded Chroma, the demo model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests import index
from tests.programs import serving

SCREENSHOTS = os.environ.get("IMGSEARCH_TEST_SCREENSHOTS", "")
"""The folder for screenshots. Default: pytest's temporary folder."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DUPLICATES = 8
"""The number of photos with a second, smaller copy."""
SERIALS = [2**53 + 1, 2**53 + 3, 2**63 - 1, -(2**53) - 1]
"""Numbers of photos that a browser's Number cannot hold."""
HTTP_ERROR = "Failed to load resource"
"""The start of the browser's message about a response with an error status."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(
                pytest.mark.timeout(900)
            )  # the first test waits for the indexes: minutes, on a busy machine


# For this package, not for the session: Playwright runs an event loop in this thread, and other tests need their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is missing; on Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def photos(coco128: Path, folder: Path) -> None:
    """Copies COCO128 to a folder, with fields of every type and some near-duplicates."""
    folder.mkdir()
    rows = []
    for i, line in enumerate((coco128 / "metadata.jsonl").read_text().splitlines()):
        row = json.loads(line) | {"year": 2004 + i % 18, "rating": i % 41 / 10 + 1, "indoor": i % 3 == 0}
        name = row["file_name"]
        shutil.copy(coco128 / name, folder)
        rows.append(row)
        if i % (128 // DUPLICATES) == 0:
            with Image.open(coco128 / name) as image:
                image.resize((image.width // 2, image.height // 2)).save(folder / f"again-{name}")
            rows.append(row | {"file_name": f"again-{name}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def serials(coco128: Path, folder: Path) -> None:
    """Copies a photo for each of SERIALS to a folder."""
    folder.mkdir()
    rows = []
    for serial, photo in zip(SERIALS, sorted(coco128.glob("*.jpg")), strict=False):
        shutil.copy(photo, folder / f"{serial}.jpg")
        rows.append({"file_name": f"{serial}.jpg", "serial": serial, "serials": [serial, 7]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


FIELDS = ("#likes", "#score", "__proto__", "constructor", "")
"""Names of metadata that mean something else to a store, to the page or to JavaScript."""


def named_photos(coco128: Path, folder: Path) -> None:
    """Copies four photos to a folder. Each field of FIELDS is `a` for two of them and `b` for the others."""
    folder.mkdir()
    names = [file.name for file in sorted(coco128.glob("*.jpg"))[:4]]
    for name in names:
        shutil.copy(coco128 / name, folder)
    rows = [{"file_name": name} | dict.fromkeys(FIELDS, "ab"[i % 2]) for i, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="package")
def home(coco128: Path, shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The home of four indexes: `few` has twelve photos, `photos` has all, `serials` has four with long numbers, and
    `named` has four with odd metadata."""

    def fill(folder: Path) -> None:
        photos(coco128, folder / "photos")
        named_photos(coco128, folder / "named")
        few = folder / "few"
        few.mkdir()
        for file in sorted((folder / "photos").glob("0*.jpg"))[:12]:
            shutil.copy(file, few)
        serials(coco128, folder / "serials")
        index.fill(folder / "home", few, folder / "photos", folder / "serials", folder / "named")

    return shared_folder("page", fill) / "home"


@pytest.fixture(scope="package")
def searcher(home: Path) -> Iterator[httpx.Client]:
    with serving(home) as client:
        yield client


@pytest.fixture(scope="package")
def url(searcher: httpx.Client) -> str:
    return str(searcher.base_url)


class Console:
    """The errors and warnings in the browser's console."""

    def __init__(self, context: BrowserContext) -> None:
        self.errors: list[str] = []
        self.allows_http_errors = False
        """Whether the test expects responses with an error status."""
        context.on("console", self._record)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _record(self, message: ConsoleMessage) -> None:
        is_allowed = self.allows_http_errors and message.text.startswith(HTTP_ERROR)
        if message.type in ("error", "warning") and not is_allowed:
            self.errors.append(message.text)


@pytest.fixture
def context(browser: Browser, url: str) -> Iterator[BrowserContext]:
    context = browser.new_context(
        base_url=url, viewport={"width": 1280, "height": 900}, accept_downloads=True, reduced_motion="reduce"
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def console(context: BrowserContext) -> Iterator[Console]:
    console = Console(context)
    yield console
    assert console.errors == []


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    """An empty page. The test fails if the browser's console has an error."""
    return context.new_page()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(SCREENSHOTS or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
