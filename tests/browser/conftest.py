"""A real browser on a real searcher: photos with metadata in an embedded Chroma, the demo model, Debian's Chromium."""

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

from tests.conftest import DEMO_MODEL
from tests.programs import controller, serving

SCREENSHOTS = os.environ.get("IMGSEARCH_TEST_SCREENSHOTS", "")
"""A folder in which screenshots are kept; without it they are in pytest's own."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TWINS = 8
"""Photos that are there a second time, smaller."""
REFUSED = "Failed to load resource"
"""How a browser's console tells of a status that is an error."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))  # the first waits for two runs: minutes, on a busy machine


# Of this package, not of the session: while it runs, its thread has an event loop, which tests elsewhere have not.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is there to drive; on Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def photos(coco128: Path, folder: Path) -> None:
    """COCO128 with fields of every type, and some photos twice."""
    folder.mkdir()
    rows = []
    for number, line in enumerate((coco128 / "metadata.jsonl").read_text().splitlines()):
        row = json.loads(line) | {"year": 2004 + number % 18, "rating": number % 41 / 10 + 1, "indoor": number % 3 == 0}
        name = row["file_name"]
        shutil.copy(coco128 / name, folder)
        rows.append(row)
        if number % (128 // TWINS) == 0:
            with Image.open(coco128 / name) as image:
                image.resize((image.width // 2, image.height // 2)).save(folder / f"again-{name}")
            rows.append(row | {"file_name": f"again-{name}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="package")
def home(coco128: Path, shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Two indexes: `few` of twelve photos, and `photos`."""

    def fill(folder: Path) -> None:
        photos(coco128, folder / "photos")
        few = folder / "few"
        few.mkdir()
        for file in sorted((folder / "photos").glob("0*.jpg"))[:12]:
            shutil.copy(file, few)
        for source in (few, folder / "photos"):
            words = ("run-pipeline", source, "--index", source.name, "--local", "--home", folder / "home")
            done = controller(*words, "--model", DEMO_MODEL)
            assert done.returncode == 0, done.stderr

    return shared_folder("page", fill) / "home"


@pytest.fixture(scope="package")
def searcher(home: Path) -> Iterator[httpx.Client]:
    with serving(home) as client:
        yield client


@pytest.fixture(scope="package")
def url(searcher: httpx.Client) -> str:
    return str(searcher.base_url)


class Console:
    """What the browser complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        self.refusals = False
        """Whether answers that are errors are part of the test."""
        context.on("console", self._said)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (self.refusals and message.text.startswith(REFUSED)):
            self.complaints.append(message.text)


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
    assert console.complaints == []


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    """An empty page at the searcher's address, whose console must stay silent."""
    return context.new_page()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(SCREENSHOTS or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
