"""Searches share calls of the store, and the next pages of a search need none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from imgsearch.errors import TemporaryError
from imgsearch.runs.layout import image_id
from imgsearch.stores import Neighbour, Record
from imgsearch.stores.filters import Filter, parse
from imgsearch.vectors import Vector, Vectors
from searcher.ingest.samples import vector_of
from searcher.search.metrics import Metrics
from searcher.search.neighbours import LEVEL_COST, Neighbours
from searcher.search.threads import Threads
from searcher.table.reader import RunTable
from tests.fakes import COLOURS, InMemoryStore
from tests.searcher.library import Library, search_colours
from tests.searcher.table import images

pytestmark = pytest.mark.anyio


class CountingStore(InMemoryStore):
    """Notes the searches of each call with their filter, and the ids of each call for records."""

    def __init__(self) -> None:
        super().__init__()
        self.searches: list[tuple[int, Filter | None]] = []
        self.ids: list[list[str]] = []

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        self.searches.append((len(queries), where))
        return super().nearest(collection, queries, k=k, where=where)

    def get(self, collection: str, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        self.ids.append([*ids])
        return super().get(collection, ids, vectors=vectors)


@pytest.fixture
def store(library: Library) -> CountingStore:
    library.store = store = CountingStore()
    library.publish()
    return store


def embedding(library: Library, colour: str) -> list[float]:
    return [float(number) for number in library.encoder.encode_texts([colour])[0]]


async def test_simultaneous_searches_share_a_call_of_the_store(library: Library, store: CountingStore) -> None:
    async with library.serving() as client:
        colours = ["red", "green", "blue", "yellow"]
        searches = [search_colours(client, embedding=embedding(library, colour), k=1) for colour in colours]
        assert await asyncio.gather(*searches) == [[colour] for colour in colours]
        assert store.searches == [(2, None), (2, None)]
        assert sum(map(len, store.ids)) == 4


async def test_searches_with_different_filters_share_none(library: Library, store: CountingStore) -> None:
    async with library.serving() as client:
        filters: list[dict[str, Any]] = [{"colour": "red"}, {"colour": "blue"}]
        searches = [
            search_colours(client, embedding=embedding(library, "red"), filter=condition) for condition in filters
        ]
        assert await asyncio.gather(*searches) == [["red"], ["blue"]]
        assert sorted(store.searches, key=str) == [(1, parse(condition)) for condition in reversed(filters)]


async def test_a_page_reads_only_its_own_records_and_the_next_one_does_not_search(
    library: Library, store: CountingStore
) -> None:
    async with library.serving() as client:
        search = {"embedding": embedding(library, "red"), "k": 1}
        pages = [await search_colours(client, **search, offset=offset) for offset in range(4)]
        assert pages[:2] == [["red"], ["yellow"]]
        assert sorted(pages[2:]) == [["blue"], ["green"]]  # equally near
        assert store.searches == [(1, None)]
        assert [len(ids) for ids in store.ids] == [1, 1, 1, 1]


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads()
    yield threads
    threads.close()


async def test_simultaneous_pages_share_a_call_for_their_records(store: CountingStore, threads: Threads) -> None:
    neighbours = Neighbours(store, threads=threads, metrics=Metrics())
    ids = sorted(record.id for record in store.get("photos-r1", [image_id(f"{c}.png") for c in COLOURS]))
    store.ids.clear()
    pages = [ids[:2], ids[1:], [], [ids[3]], [ids[0], ids[3]]]
    found = await asyncio.gather(*(neighbours.records("photos-r1", page, vectors=False) for page in pages))
    assert [[record.id for record in records] for records in found] == pages
    assert [sorted(called) for called in store.ids] == [ids, sorted({ids[0], ids[3]})]


async def test_images_that_a_restore_has_dropped_are_a_temporary_error(store: CountingStore, threads: Threads) -> None:
    neighbours = Neighbours(store, threads=threads, metrics=Metrics())
    with pytest.raises(TemporaryError, match="collection photos-r1 is being filled again"):
        await neighbours.records("photos-r1", [image_id("red.png"), "dropped"], vectors=False)


class CountedTable:
    """A table with clusters that notes the levels of each search."""

    def __init__(self, folder: Path) -> None:
        records = images.records([{}] * 600)
        vectors = np.stack([vector_of(record) for record in records])
        self._table = images.table(folder, records, clusters=images.clustered(vectors, 20))
        self.compared = 40
        self.searches: list[list[int]] = []

    def levels(self, query: Vector, compared: Mapping[int, int]) -> list[list[Neighbour]]:
        self.searches.append(list(compared))
        return self._table.levels(query, compared)


async def test_the_levels_of_a_deep_page_are_one_search_of_the_clusters(
    store: CountingStore, threads: Threads, tmp_path: Path
) -> None:
    counted, ends = CountedTable(tmp_path), [20, 80, 320]
    (query,) = images.vectors(1, seed=5)

    async def searched(neighbours: Neighbours, *, together: bool) -> list[list[str]]:
        levels, earlier = [], list[Neighbour]()
        for number in range(len(ends)):
            level = await neighbours.level(
                "photos-r1",
                query,
                ends=ends[number:] if together else ends[number : number + 1],
                first=9,
                where=None,
                earlier=earlier,
                table=cast(RunTable, counted),
            )
            earlier = [*level.ranked]
            levels.append([neighbour.id for neighbour in earlier])
        return levels

    def new() -> Neighbours:
        return Neighbours(store, threads=threads, metrics=Metrics())

    one_by_one = await searched(new(), together=False)
    assert [len(set(level)) for level in one_by_one] == ends
    assert counted.searches == [[21], [81], [321]]
    counted.searches.clear()
    assert await searched(new(), together=True) == one_by_one
    assert counted.searches == [[21, 81, 321]]
    assert store.searches == []


async def test_the_last_searches_are_kept_for_a_minute(store: CountingStore, threads: Threads) -> None:
    now = [0.0]
    neighbours = Neighbours(
        store, threads=threads, metrics=Metrics(), max_cached=2 * (LEVEL_COST + 4), clock=lambda: now[0]
    )
    vectors = np.eye(16, dtype=np.float32)

    async def search(row: int) -> int:
        """Returns the number of all calls of the store."""
        level = await neighbours.level("photos-r1", vectors[row], ends=[9], first=9, where=None, earlier=[])
        assert len(level.ranked) == 4
        return len(store.searches)

    # Each has 4 neighbours, and two searches are kept.
    assert [await search(row) for row in (0, 1, 0, 2, 0, 1, 2)] == [1, 2, 2, 3, 4, 5, 6]
    now[0] = 59.0
    assert await search(2) == 6
    now[0] = 60.0
    assert await search(2) == 7
