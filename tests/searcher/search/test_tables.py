"""The tables of runs are opened in the background, and opened again after they were written anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typing_extensions import Buffer

from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Pointer
from searcher.search.tables import CHECK_SECONDS, LONGEST_WAIT_SECONDS, Tables
from searcher.search.threads import Threads
from searcher.table.files import TableFiles
from tests.searcher.library import TIMEOUT, Library, wait_until
from tests.searcher.table import images

pytestmark = pytest.mark.anyio

DOCUMENT = RunFolder("r1").table


def pointer(rows: int) -> Pointer:
    return Pointer("photos", "r1", "photos-r1", "m", "f", images.DIM, rows, "/photos", "2026-01-01")


class CountingStorage(Storage):
    """A storage that counts its reads, and may fail or hang before it reads a document."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.documents = 0
        self.files: list[str] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        if key.endswith("table.json"):
            self.documents += 1
            assert self.gate.wait(TIMEOUT)
            if self.error:
                raise self.error
        return super().get(key, limit=limit)

    def chunks(self, key: str) -> Iterator[Buffer]:
        self.files.append(key)
        return super().chunks(key)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = CountingStorage(folder.as_uri())
        self.threads = Threads()
        self.time = 0.0
        self.tables = Tables(TableFiles(self.storage, folder / "cache"), threads=self.threads, clock=lambda: self.time)
        self.changes = 0

    def write(self, rows: int, *, first: int = 0) -> None:
        images.write(self.folder, images.records([{"n": first + number} for number in range(rows)]))

    async def follow(self, *pointers: Pointer, after: float = 0.0) -> None:
        """Follows the pointers some seconds later, and waits for the tasks."""
        self.time += after
        others = asyncio.all_tasks()
        self.tables.follow(pointers, self.changed)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*asyncio.all_tasks() - others)

    def changed(self) -> None:
        self.changes += 1

    def close(self) -> None:
        self.tables.close()
        self.threads.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path)) as bench:
        yield bench


def values(bench: Bench, run: Pointer) -> list[int]:
    table = bench.tables.opened(run)
    assert table is not None
    return [record.metadata["n"] for record in table.get([record.id for record in images.records([{}] * table.rows)])]


async def test_a_table_that_is_written_anew_replaces_the_open_one_within_a_minute(bench: Bench) -> None:
    bench.write(9)
    await bench.follow(pointer(9))
    assert values(bench, pointer(9)) == [*range(9)]
    bench.write(9, first=100)
    await bench.follow(pointer(9), after=CHECK_SECONDS - 1)
    assert (values(bench, pointer(9)), bench.storage.documents) == ([*range(9)], 1)
    await bench.follow(pointer(9), after=1)
    assert (values(bench, pointer(9)), bench.changes) == ([*range(100, 109)], 2)
    bench.write(10)
    await bench.follow(pointer(10))
    assert (values(bench, pointer(10)), bench.tables.opened(pointer(9))) == ([*range(10)], None)


async def test_an_unchanged_table_is_not_read_again(bench: Bench) -> None:
    bench.write(9)
    await bench.follow(pointer(9))
    bench.storage.files.clear()
    await bench.follow(pointer(9), after=CHECK_SECONDS)
    assert (bench.storage.documents, bench.storage.files, bench.changes) == (2, [], 1)


async def test_a_run_without_a_table_gets_the_one_that_is_written_later(bench: Bench) -> None:
    await bench.follow(pointer(9))
    assert bench.tables.opened(pointer(9)) is None
    bench.write(9)
    await bench.follow(pointer(9), after=CHECK_SECONDS)
    assert values(bench, pointer(9)) == [*range(9)]


async def test_a_table_with_other_rows_is_refused_and_none_of_its_files_is_read(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write(9)
    for _ in range(3):
        await bench.follow(pointer(8), after=CHECK_SECONDS)
    assert (bench.tables.opened(pointer(8)), bench.storage.files) == (None, [])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("it has 9 rows, but the run has 8 images")


async def test_damaged_files_are_read_ever_more_rarely_until_the_table_changes(bench: Bench) -> None:
    bench.write(9)
    file = RunFolder("r1").table_file(1)
    bench.storage.put(file, b"damaged")
    reads = []
    for minute in range(260):
        bench.storage.files.clear()
        await bench.follow(pointer(9), after=CHECK_SECONDS)
        if bench.storage.files:
            reads.append(minute)
    assert reads == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert LONGEST_WAIT_SECONDS == 60 * CHECK_SECONDS
    bench.write(9, first=5)
    await bench.follow(pointer(9), after=CHECK_SECONDS)
    assert values(bench, pointer(9)) == [*range(5, 14)]


@pytest.mark.parametrize("error", [TemporaryError("the bucket does not answer"), RuntimeError("a bug")])
async def test_any_error_of_a_table_is_tried_again_after_a_minute(bench: Bench, error: Exception) -> None:
    bench.write(9)
    bench.storage.error = error
    await bench.follow(pointer(9))
    bench.storage.error = None
    await bench.follow(pointer(9), after=CHECK_SECONDS - 1)
    assert bench.tables.opened(pointer(9)) is None
    await bench.follow(pointer(9), after=1)
    assert values(bench, pointer(9)) == [*range(9)]


async def test_downloads_that_were_not_deleted_are_deleted_later(bench: Bench) -> None:
    kept: list[set[str]] = []
    works = [False, True]

    class Files(TableFiles):
        def keep(self, runs: Collection[str]) -> None:
            kept.append(set(runs))
            if not works.pop(0):
                raise PermanentError("no permission")

    bench.tables = Tables(Files(bench.storage, bench.folder), threads=bench.threads, clock=lambda: bench.time)
    await bench.follow(pointer(9))
    await bench.follow(pointer(9), after=CHECK_SECONDS - 1)
    assert kept == [{"r1"}]
    await bench.follow(pointer(9), after=1)
    await bench.follow(pointer(9), after=CHECK_SECONDS)
    assert kept == [{"r1"}, {"r1"}]


async def test_a_table_whose_storage_hangs_delays_no_index(library: Library, tmp_path: Path) -> None:
    library.storage = storage = CountingStorage(tmp_path.as_uri())
    library.tables = TableFiles(storage, tmp_path / "cache")
    storage.gate.clear()
    library.publish()
    library.publish(index="paintings")
    try:
        async with library.serving() as client:
            serving = (await client.get("/readyz")).json()["serving"]
            assert serving.keys() == {"photos", "paintings"}
            library.publish(run="r2", index="paintings")
            is_new: Callable[[object], bool] = lambda response: response.json()["run"] == "r2"  # type: ignore[attr-defined]  # noqa: E731
            await wait_until(lambda: client.post("/v1/search", json={"text": "red", "index": "paintings"}), is_new)
            assert storage.documents == 1
            storage.gate.set()
    finally:
        storage.gate.set()
