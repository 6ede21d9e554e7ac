"""Searches with filters over HTTP: the same results by the table of a run as by the store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.stores import Neighbour, Pointer
from imgsearch.stores.filters import Filter, parse
from imgsearch.vectors import Vectors
from searcher.ingest.samples import vector_of
from searcher.table.writer import FIELDS, TableWriter
from tests.fakes import InMemoryStore
from tests.searcher.library import Library, wait_until
from tests.searcher.table import images as table_images

pytestmark = pytest.mark.anyio

IMAGES = 30
FILTERS: list[dict[str, Any]] = [
    {"year": {"$gte": 2010.5}},
    {"year": {"$in": [2003, 2004, 2020]}},
    {"colour": {"$ne": "red"}},
    {"labels": {"$contains": "even"}},
    {"labels": {"$not_contains": "even"}},
    {"flag": True},
    {"$and": [{"year": {"$lt": 2015}}, {"$or": [{"flag": True}, {"colour": "blue"}]}]},
    {"year": 1900},
]


class RecordingStore(InMemoryStore):
    """A store that records the filters of its searches."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: list[Filter | None] = []

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        self.filters.append(where)
        return super().nearest(collection, queries, k=k, where=where)


class Shelf(Library):
    """One run, with a table of all its images or of some, or without one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.recorder = RecordingStore()
        self.store = self.recorder
        colours = itertools.cycle(("red", "green", "blue", "yellow", "white"))
        self.pointer: Pointer = self.publish(
            {
                f"{number}.png": {
                    "colour": next(colours),
                    "year": 2000 + number,
                    "labels": ["even", "x"] if number % 2 == 0 else ["odd"],
                    **({"flag": number % 4 == 1} if number % 3 else {}),
                }
                for number in range(IMAGES)
            }
        )

    def write_table(self, *, images: int = IMAGES, clustered: bool = False) -> None:
        ids = [image_id(f"{number}.png") for number in range(images)]
        writer = TableWriter(self.storage, self.pointer.run, dim=self.pointer.dim, file_rows=8)
        records = self.store.get(self.pointer.collection, ids, vectors=True)
        writer.add(records)
        if clustered:
            vectors = np.stack([vector_of(record) for record in records])
            writer.finish(table_images.clustered(vectors, 4), compared=images)
        else:
            writer.finish()

    async def use_table(self, client: httpx.AsyncClient, *, field: str = "year") -> None:
        """Until searches with a filter are answered by the table, which is opened in the background."""

        numbers = itertools.count()

        async def is_used() -> bool:
            self.recorder.filters.clear()
            # Another filter each time, because the ids of a repeated search are kept.
            await results(client, filter={field: {"$gte": 2010 + next(numbers) * 1e-6}})
            return not any(self.recorder.filters)

        await wait_until(is_used, lambda is_used: is_used)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def results(client: httpx.AsyncClient, **search: Any) -> list[dict[str, Any]]:
    response = await client.post("/v1/search", json={"text": "red green", **search})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


SEARCHES: Sequence[dict[str, Any]] = [
    *({"filter": filter_, "k": IMAGES} for filter_ in FILTERS),
    {"filter": FILTERS[0], "k": 3, "offset": 4},
    {"filter": FILTERS[0], "min_score": 0.3},
    {"filter": FILTERS[0], "dedupe": 0.99},
    {"text": None, "id": image_id("7.png"), "filter": FILTERS[2], "include": ["metadata", "embedding"]},
    {"k": IMAGES},
]


@pytest.mark.parametrize("clustered", [False, True])
async def test_a_search_has_the_same_results_with_and_without_a_table(shelf: Shelf, clustered: bool) -> None:
    async with shelf.serving() as client:
        by_store = [await results(client, **search) for search in SEARCHES]
    assert [len(found) for found in by_store[:-5]] == [19, 3, 24, 15, 15, 6, 6, 0]
    assert parse(FILTERS[0]) in shelf.recorder.filters
    shelf.write_table(clustered=clustered)
    async with shelf.serving() as client:
        await shelf.use_table(client)
        shelf.recorder.filters.clear()
        by_table = [await results(client, **search) for search in SEARCHES]
    if clustered:
        assert shelf.recorder.filters == [], "the store was searched"
    else:
        assert set(map(str, shelf.recorder.filters)) == {"None"}, "the store was searched with a filter"
    for search, expected, found in zip(SEARCHES, by_store, by_table, strict=True):
        for result in expected:  # the table has float16 numbers
            result["score"] = pytest.approx(result["score"], abs=1e-3)
            if "embedding" in result:
                result["embedding"] = pytest.approx(result["embedding"], abs=1e-3)
        assert found == expected, search


async def test_the_pages_of_a_filtered_search_are_the_one_large_search(shelf: Shelf) -> None:
    shelf.write_table()
    async with shelf.serving() as client:
        await shelf.use_table(client)
        search: dict[str, Any] = {"text": "red green", "filter": FILTERS[2], "k": 5}
        pages: list[str] = []
        while True:
            response = (await client.post("/v1/search", json=search)).json()
            pages += [result["id"] for result in response["results"]]
            if response["next_cursor"] is None:
                break
            search = {**search, "cursor": response["next_cursor"]}
        assert pages == [result["id"] for result in await results(client, filter=FILTERS[2], k=100)]
        assert len(pages) == len(set(pages)) == 24


@pytest.mark.parametrize("damage", ["changed", "missing", "document", "other images"])
async def test_a_run_with_a_damaged_table_is_served_by_the_store(
    shelf: Shelf, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(shelf.pointer.run)
    async with shelf.serving() as client:
        expected = await results(client, filter=FILTERS[0], k=IMAGES)
    shelf.write_table(images=20 if damage == "other images" else IMAGES)
    file = folder.table_file(1)
    if damage == "changed":
        shelf.storage.put(file, shelf.storage.get(file)[:-9] + b"elsewhere")
    elif damage == "missing":
        shelf.storage.remove(file)
    elif damage == "document":
        shelf.storage.put(folder.table, shelf.storage.get(folder.table).replace(b"30", b"31"))
    async with shelf.serving() as client:
        await wait_until(lambda: client.get("/readyz"), lambda _: "without its table" in caplog.text)
        shelf.recorder.filters.clear()
        assert await results(client, filter=FILTERS[0], k=IMAGES) == expected
    assert parse(FILTERS[0]) in shelf.recorder.filters
    (warning,) = [record.getMessage() for record in caplog.records if "without its table" in record.getMessage()]
    assert "run r1 is served without its table, so filters are slow: " in warning


async def test_a_new_run_is_searched_by_its_own_table(shelf: Shelf) -> None:
    shelf.write_table()
    async with shelf.serving() as client:
        await shelf.use_table(client)
        assert len(await results(client, filter={"colour": "white"}, k=IMAGES)) == 6
        shelf.pointer = shelf.publish({"0.png": "white", "1.png": "white", "2.png": "red"}, run="r2", previous=None)
        search = {"text": "white", "filter": {"colour": "white"}}
        response = await wait_until(
            lambda: client.post("/v1/search", json=search), lambda response: response.json()["run"] == "r2"
        )
        assert len(response.json()["results"]) == 2


async def test_the_previous_run_is_searched_by_its_own_table(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """By a server that never served it as the current run."""
    shelf.write_table()
    search = {"text": "red green", "filter": FILTERS[0], "k": 5}
    async with shelf.serving() as client:
        cursor = (await client.post("/v1/search", json=search)).json()["next_cursor"]
    shelf.publish({"0.png": "white"}, run="r2", previous=shelf.pointer)
    caplog.clear()
    caplog.set_level("INFO")
    async with shelf.serving() as client:
        await wait_until(lambda: client.get("/readyz"), lambda _: "the table of run r1 is open" in caplog.text)
        shelf.recorder.filters.clear()
        response = (await client.post("/v1/search", json={**search, "cursor": cursor})).json()
        assert (response["run"], len(response["results"])) == ("r1", 5)
    assert parse(FILTERS[0]) not in shelf.recorder.filters


async def test_the_store_answers_for_fields_that_the_table_does_not_have(shelf: Shelf) -> None:
    fields = {f"field {number}": number for number in range(FIELDS + 5)}
    shelf.pointer = shelf.publish(
        {"0.png": {"colour": "white", **fields}, "1.png": {"colour": "red", "n": 1}}, run="r2"
    )
    shelf.write_table(images=2)
    async with shelf.serving() as client:
        last, first = f"field {FIELDS + 4}", "field 0"
        await shelf.use_table(client, field=first)
        for where, colours in [
            ({last: FIELDS + 4}, ["white"]),
            ({last: {"$ne": 3}}, ["red", "white"]),
            ({"$and": [{first: 0}, {last: {"$gt": 3}}]}, ["white"]),
            ({first: 0}, ["white"]),
        ]:
            shelf.recorder.filters.clear()
            assert sorted(result["metadata"]["colour"] for result in await results(client, filter=where)) == colours
            assert (parse(where) in shelf.recorder.filters) == (last in str(where))
