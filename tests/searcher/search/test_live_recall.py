"""Searches that are answered exactly as well: what they should have found, and when they are checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgsearch.runs.layout import image_id
from imgsearch.stores import Neighbour
from imgsearch.stores.filters import Filter, parse
from imgsearch.vectors import Vectors
from searcher.search.live_recall import TIME_SHARE, LiveRecall, found_of
from searcher.search.metrics import Metrics
from searcher.search.threads import Threads
from searcher.table.reader import RunTable
from searcher.table.writer import TableWriter
from tests.fakes import InMemoryStore
from tests.searcher.library import Library, search_colours, wait_until
from tests.searcher.search.test_metrics import samples
from tests.searcher.table import images

pytestmark = pytest.mark.anyio

ROWS = 300
QUERY = images.vectors(1, seed=9)[0]


class Shelf:
    """A table of images, and their exact order."""

    def __init__(self, folder: Path) -> None:
        rows = images.vectors(ROWS)
        rows[200] = rows[int(np.argmax(rows @ QUERY))]  # the best one twice
        self.table: RunTable = images.table(
            folder, images.records([{"few": number < 5, "a": number} for number in range(ROWS)], rows), file_rows=70
        )
        scores = rows @ QUERY / np.linalg.norm(rows, axis=1)
        self.order = [int(row) for row in np.argsort(-scores, kind="stable")]
        self.scores = scores

    def ranked(self, rows: list[int]) -> list[Neighbour]:
        # The scores of the store are rounded in another way.
        return [Neighbour(image_id(f"{row}.jpg"), float(self.scores[row]) + 0.01) for row in rows]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_exact_results_are_all_found(shelf: Shelf) -> None:
    assert found_of(shelf.table, QUERY, None, shelf.ranked(shelf.order[:101])) == {10: (10, 10), 100: (100, 100)}


def test_what_a_search_misses_is_not_found(shelf: Shelf) -> None:
    """Without the 2nd, 5th and 50th, others take their places."""
    found = [row for place, row in enumerate(shelf.order) if place not in (2, 5, 50)][:101]
    assert found_of(shelf.table, QUERY, None, shelf.ranked(found)) == {10: (8, 10), 100: (97, 100)}
    assert found_of(shelf.table, QUERY, None, shelf.ranked(shelf.order[:7])) == {10: (7, 10), 100: (7, 100)}
    assert found_of(shelf.table, QUERY, None, []) == {10: (0, 10), 100: (0, 100)}


def test_one_of_two_equal_images_is_as_good_as_the_other(shelf: Shelf) -> None:
    first, second, *others = shelf.order
    assert shelf.scores[first] == shelf.scores[second]
    for best in (first, second):
        assert found_of(shelf.table, QUERY, None, shelf.ranked([best, *others]))[10] == (9, 10)
    assert found_of(shelf.table, QUERY, None, shelf.ranked([second, first, *others]))[10] == (10, 10)


def test_an_image_that_the_table_does_not_have_is_not_one_of_the_nearest(shelf: Shelf) -> None:
    other = Neighbour(image_id("another.jpg"), 1.0)
    assert found_of(shelf.table, QUERY, None, [other, *shelf.ranked(shelf.order)])[10] == (9, 10)


def test_a_filtered_search_is_compared_with_the_images_that_pass(shelf: Shelf) -> None:
    passing = [row for row in shelf.order if row < 5]
    assert found_of(shelf.table, QUERY, parse({"few": True}), shelf.ranked(passing)) == {10: (5, 5), 100: (5, 5)}
    assert found_of(shelf.table, QUERY, parse({"few": True}), shelf.ranked(passing[1:])) == {10: (4, 5), 100: (4, 5)}
    assert found_of(shelf.table, QUERY, parse({"a": {"$lt": 0}}), []) == {}


class Bench:
    """A LiveRecall with a time and a chance that the test sets."""

    def __init__(self) -> None:
        self.time = 0.0
        self.chance = 0.0
        self.seconds = 0.0
        """Of one check."""
        self.metrics = Metrics()
        self.threads = Threads()
        self.live = LiveRecall(
            share=0.5, threads=self.threads, metrics=self.metrics, chance=lambda: self.chance, clock=self.clock
        )

    def clock(self) -> float:
        self.time += self.seconds
        return self.time

    def count(self, name: str, k: int = 10) -> float:
        return self.metrics_value(f"imgsearch_{name}_neighbours_total", k) or 0

    def metrics_value(self, name: str, k: int) -> float | None:
        lines = self.metrics.text().decode().splitlines()
        prefix = f'{name}{{index="photos",k="{k}"}} '
        return next((float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)), None)

    async def offer(self, shelf: Shelf, rows: list[int]) -> None:
        self.live.offer("photos", shelf.table, QUERY, None, shelf.ranked(rows))
        while self.live.is_checking:
            await asyncio.sleep(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.live.close()
    bench.threads.close()


async def test_a_check_counts_what_was_found(bench: Bench, shelf: Shelf) -> None:
    await bench.offer(shelf, shelf.order[:101])
    await bench.offer(shelf, shelf.order[1:102])
    assert (bench.count("found"), bench.count("checked")) == (19, 20)
    assert (bench.count("found", 100), bench.count("checked", 100)) == (199, 200)


async def test_its_share_of_the_searches_is_checked(bench: Bench, shelf: Shelf) -> None:
    for chance in (0.0, 0.49, 0.5, 0.9):
        bench.chance = chance
        await bench.offer(shelf, shelf.order)
    assert bench.count("checked") == 20


async def test_checks_take_a_small_share_of_the_time(bench: Bench, shelf: Shelf) -> None:
    bench.seconds = 1.0  # between two looks at the clock
    await bench.offer(shelf, shelf.order)
    bench.seconds, end = 0.0, bench.time
    for time, checked in [(end, 10), (end + 1 / TIME_SHARE - 2, 10), (end + 1 / TIME_SHARE + 2, 20)]:
        bench.time = time
        await bench.offer(shelf, shelf.order)
        assert bench.count("checked") == checked


async def test_one_search_is_checked_at_a_time(bench: Bench, shelf: Shelf) -> None:
    for _ in range(3):
        bench.live.offer("photos", shelf.table, QUERY, None, shelf.ranked(shelf.order))
    await bench.offer(shelf, shelf.order)
    assert bench.count("checked") == 10


async def test_a_search_that_the_table_cannot_answer_is_not_checked(bench: Bench, shelf: Shelf) -> None:
    bench.live.offer("photos", None, QUERY, None, shelf.ranked(shelf.order))
    assert not bench.live.is_checking


async def test_a_check_that_fails_is_logged_and_the_next_one_runs(
    bench: Bench, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    bench.live.offer("photos", shelf.table, QUERY[:3], None, shelf.ranked(shelf.order))  # the wrong dimension
    while bench.live.is_checking:
        await asyncio.sleep(0)
    assert "the recall of a search of index photos was not measured" in caplog.text
    await bench.offer(shelf, shelf.order)
    assert bench.count("checked") == 10


class ForgetfulStore(InMemoryStore):
    """A store whose searches miss the best one."""

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        return [found[1:] for found in super().nearest(collection, queries, k=k + 1, where=where)]


async def test_the_live_recall_of_an_index_is_a_metric(library: Library) -> None:
    library.store = ForgetfulStore()
    pointer = library.publish()
    ids = [image_id(f"{colour}.png") for colour in ("red", "green", "blue", "yellow")]
    writer = TableWriter(library.storage, pointer.run, dim=pointer.dim)
    writer.add(library.store.get(pointer.collection, ids, vectors=True))
    writer.finish()

    async with library.serving(checked_share=1) as client:

        async def searched() -> dict[str, float]:
            assert len(await search_colours(client, text="red")) == 3
            return await samples(client)

        values = await wait_until(searched, lambda values: values.get("imgsearch_checked_neighbours_total{photos,10}"))
        number = values["imgsearch_checked_neighbours_total{photos,10}"] / 4
        assert values["imgsearch_found_neighbours_total{photos,10}"] == 3 * number
        assert values["imgsearch_found_neighbours_total{photos,100}"] == 3 * number


async def test_no_search_is_checked_with_a_share_of_0(bench: Bench, shelf: Shelf) -> None:
    bench.live = LiveRecall(share=0, threads=bench.threads, metrics=bench.metrics, chance=lambda: 0.0)
    await bench.offer(shelf, shelf.order)
    assert bench.count("checked") == 0
