"""What every test is given: a clean environment, and builders of photos."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch.storage import Storage
from tests.fakes import COLOURS

ROOT = Path(__file__).resolve().parent.parent
COCO128 = ROOT.parent / "shared" / "data" / "coco128" / "images"
S3 = os.environ.get("IMGSEARCH_TEST_S3", "")
"""`s3://bucket` of an S3 server to test with; AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on say where it is."""
DEMO_MODEL = f"local-dir:{ROOT / 'demo' / 'model'}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a test that would be skipped fails")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def clean_environ() -> Iterator[None]:
    """Settings of whoever runs the tests do not reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("IMGSEARCH_") or name == "JOB_COMPLETION_INDEX":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def demo_model() -> str:
    return DEMO_MODEL


@pytest.fixture(scope="session")
def coco128() -> Path:
    if not COCO128.is_dir():
        pytest.skip("COCO128 is not part of this repository; it is looked for in ../shared/data")
    return COCO128


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Fills a folder once for all processes that run the tests: `once(name, fill)`. Nobody may change what is in it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def fill_once(name: str, fill: Callable[[Path], None]) -> Path:
        folder, marker = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                marker.touch()
        return folder

    return fill_once


@pytest.fixture
def file_storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "with space").as_uri())


@pytest.fixture
def s3_storage() -> Iterator[Storage]:
    """A prefix of its own on a real S3 server."""
    if not S3:
        pytest.skip("IMGSEARCH_TEST_S3 names no bucket of an S3 server")
    storage = Storage(f"{S3}/with%20space-{uuid.uuid4().hex}")
    yield storage
    storage.delete("")


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """An empty one, on the disk and on a real S3 server."""
    fixture: Storage = request.getfixturevalue(f"{request.param}_storage")
    return fixture


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], Path]:
    """A folder of so many photos, each of one colour with a mark of its own."""

    def make(count: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        names = list(COLOURS)
        for number in range(count):
            colour = names[number % len(names)]
            pixels = np.full((40, 60, 3), COLOURS[colour], np.uint8)
            pixels[:4, : 1 + number % 60] = number % 256
            Image.fromarray(pixels).save(folder / f"{colour}-{number:04d}.png")
        return folder

    return make
