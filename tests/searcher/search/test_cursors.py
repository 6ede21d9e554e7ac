"""Paging: every image once and none left out, whatever is published meanwhile."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromadb
import httpx
import numpy as np
import pytest

from imgsearch.runs.layout import collection_name
from imgsearch.stores import Pointer, Record, VectorStore, open_store
from tests.fakes import FakeEncoder
from tests.searcher.library import Library, picture, problem, wait_until

pytestmark = pytest.mark.anyio

IMAGES = 1000
TWINS = 4
"""How many images have the same vector, so that their order is not given by their scores."""

POINTER = Pointer(
    index="photos",
    run="",
    collection="",
    model="",
    fingerprint="",
    dim=FakeEncoder.dim,
    images=IMAGES,
    source="/data/photos",
    published="2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def chroma(library: Library, tmp_path: Path) -> Iterator[Library]:
    """A library whose store is a real one."""
    with closing(open_store(f"chroma+file://{tmp_path}/chroma")) as store:
        library.store = store
        yield library


def fill(library: Library, run: str, *, encoder: FakeEncoder | None = None) -> set[str]:
    """Publishes a run of many images as ingest does, with the run before as its `previous`; returns the ids."""
    encoder = encoder or library.encoder
    collection = collection_name("photos", run)
    directions = np.random.default_rng(0).normal(size=(IMAGES // TWINS, encoder.dim)).astype(np.float32)
    vectors = np.repeat(directions / np.linalg.norm(directions, axis=1, keepdims=True), TWINS, axis=0)
    records = [
        Record(f"{run}-{n}", {"run": run}, vector, {"key": f"{n}.png", "width": 4, "height": 3})
        for n, vector in enumerate(vectors)
    ]
    library.store.create(collection, dim=encoder.dim, vectors=100)
    library.store.add(collection, records)
    pointer = library.store.pointers().get("photos")
    library.store.publish(
        replace(
            POINTER,
            run=run,
            collection=collection,
            model=encoder.model,
            fingerprint=encoder.fingerprint,
            previous=pointer and replace(pointer, previous=None),
        )
    )
    return {record.id for record in records}


async def pages(client: httpx.AsyncClient, search: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The pages of a search, each when it is asked for."""
    while True:
        page = (await client.post("/v1/search", json=search)).raise_for_status().json()
        yield page
        if page["next_cursor"] is None:
            return
        search = {**search, "cursor": page["next_cursor"]}


async def wait_for_run(client: httpx.AsyncClient, run: str) -> None:
    """Until that run answers."""

    async def search() -> httpx.Response:
        return await client.post("/v1/search", json={"text": "red", "k": 1})

    await wait_until(search, lambda response: response.json().get("run") == run)


@pytest.mark.parametrize("another_model", [False, True])
@pytest.mark.parametrize("k", [37, 101])
async def test_pages_have_every_image_once_though_another_run_is_published(
    chroma: Library, k: int, another_model: bool
) -> None:
    ids = fill(chroma, "r1")
    other_encoder = FakeEncoder("fake/other") if another_model else chroma.encoder
    chroma.encoders[other_encoder.model] = other_encoder
    counts: Counter[str] = Counter()
    async with chroma.serving() as client:
        async for page in pages(client, {"text": "red", "k": k, "include": []}):
            assert page["run"] == "r1"
            if not counts:
                fill(chroma, "r2", encoder=other_encoder)
                await wait_for_run(client, "r2")
            counts.update(result["id"] for result in page["results"])
            assert len(page["results"]) == k or page["next_cursor"] is None
    assert counts == Counter(ids)


async def test_folded_pages_have_one_of_all_twins_and_name_the_others(chroma: Library) -> None:
    ids = fill(chroma, "r1")
    counts: Counter[str] = Counter()
    async with chroma.serving() as client:
        async for page in pages(client, {"text": "red", "k": 30, "dedupe": 1.0, "include": []}):
            for result in page["results"]:
                family = [result["id"], *result["duplicates"]]
                assert len({int(id.removeprefix("r1-")) // TWINS for id in family}) == 1
                counts.update(family)
    assert counts.keys() <= ids
    assert len({int(id.removeprefix("r1-")) // TWINS for id in counts}) == IMAGES // TWINS
    assert set(counts.values()) == {1}


async def test_offsets_have_every_image_once_too(chroma: Library) -> None:
    ids = fill(chroma, "r1")
    all_ids: list[str] = []
    offset: int | None = 0
    async with chroma.serving() as client:
        while offset is not None:
            search = {"text": "red", "k": 101, "include": [], "offset": offset}
            page = (await client.post("/v1/search", json=search)).json()
            all_ids += [result["id"] for result in page["results"]]
            offset = page["next_offset"]
    assert Counter(all_ids) == Counter(ids)


APPROXIMATE_IMAGES = 4_000
BAD_GRAPH = {"space": "cosine", "max_neighbors": 4, "ef_construction": 10, "ef_search": 10}
"""With it, Chroma misses many of the nearest, and finds others with each larger search."""


@pytest.fixture(scope="module")
def approximate_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    """A real one with a bad graph, in which an index is published."""
    folder, encoder, random = tmp_path_factory.mktemp("chroma"), FakeEncoder(), np.random.default_rng(0)
    client = chromadb.PersistentClient(folder)
    client.create_collection("photos-bad", configuration={"hnsw": BAD_GRAPH}, embedding_function=None)
    client.close()
    vectors = random.normal(size=(APPROXIMATE_IMAGES, encoder.dim)).astype(np.float32)
    with closing(open_store(f"chroma+file://{folder}")) as store:
        store.add(
            "photos-bad",
            [
                Record(str(number), {"odd": number % 2}, vector, {"key": f"{number}.png", "width": 4, "height": 3})
                for number, vector in enumerate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
            ],
        )
        model = {"model": encoder.model, "fingerprint": encoder.fingerprint}
        store.publish(replace(POINTER, run="bad", collection="photos-bad", images=APPROXIMATE_IMAGES, **model))
        yield store


async def first_results(client: httpx.AsyncClient, search: dict[str, Any], count: int) -> list[str]:
    """The first results of a search, with the pages that its k makes."""
    ids: list[str] = []
    async for page in pages(client, {"include": [], **search}):
        ids += [result["id"] for result in page["results"]]
        if len(ids) >= count:
            break
    return ids[:count]


@pytest.mark.parametrize("options", [{}, {"filter": {"odd": 1}}, {"min_score": 0.3}, {"dedupe": 0.9}])
async def test_pages_joined_are_the_one_large_query_though_the_store_is_approximate(
    library: Library, approximate_store: VectorStore, options: dict[str, Any]
) -> None:
    library.store = approximate_store
    search: dict[str, Any] = {"text": "red", **options}
    async with library.serving(max_k=1_000) as client:
        whole = (await client.post("/v1/search", json={**search, "k": 1_000, "include": []})).json()["results"]
        ids = [result["id"] for result in whole]
        assert len(ids) == len(set(ids)) > 300
        for k, count in ((7, 140), (90, 450)):
            assert await first_results(client, {**search, "k": k}, count) == ids[:count]


async def test_a_searcher_that_starts_later_serves_pages_of_the_previous_run(chroma: Library) -> None:
    fill(chroma, "r1")
    async with chroma.serving() as client:
        first = (await client.post("/v1/search", json={"text": "red"})).json()
    fill(chroma, "r2")
    search = {"text": "red", "cursor": first["next_cursor"]}
    async with chroma.serving() as client:
        assert (await client.post("/v1/search", json={"text": "red"})).json()["run"] == "r2"
        assert (await client.post("/v1/search", json=search)).json()["run"] == "r1"


SEARCH: dict[str, Any] = {"text": "red", "k": 1, "filter": {"colour": {"$ne": "black"}}, "min_score": 0.1}


def fields(response: httpx.Response) -> list[str]:
    """The fields that a problem names."""
    problem(response, 422)
    return [error["field"] for error in response.json()["errors"]]


async def first_cursor(client: httpx.AsyncClient, **fields: Any) -> str:
    page = (await client.post("/v1/search", json={**SEARCH, **fields})).raise_for_status().json()
    return str(page["next_cursor"])


async def test_a_searcher_without_the_model_of_the_previous_run_answers_410(gallery: Library) -> None:
    async with gallery.serving() as client:
        cursor = await first_cursor(client)
    other_encoder = FakeEncoder("fake/other")
    gallery.encoders[other_encoder.model] = other_encoder
    gallery.publish(run="r2", encoder=other_encoder, previous=gallery.store.pointers()["photos"])
    gallery.loaded.clear()
    async with gallery.serving() as client:
        assert "search again" in problem(await client.post("/v1/search", json={**SEARCH, "cursor": cursor}), 410)
    assert gallery.loaded == [other_encoder.model], "no model is loaded for a run that is not current"


async def test_a_run_that_was_published_over_twice_is_gone(gallery: Library) -> None:
    async with gallery.serving() as client:
        cursor = await first_cursor(client)
        for run in ("r2", "r3"):
            gallery.publish(run=run, previous=replace(gallery.store.pointers()["photos"], previous=None))
        await wait_for_run(client, "r3")
        sentence = problem(await client.post("/v1/search", json={**SEARCH, "cursor": cursor}), 410)
        assert '"r1"' in sentence
        assert "search again" in sentence


async def test_a_run_whose_collection_was_dropped_is_gone(gallery: Library) -> None:
    async with gallery.serving() as client:
        cursor = await first_cursor(client)
        gallery.publish(run="r2", previous=gallery.store.pointers()["photos"])
        gallery.store.drop("photos-r1")
        await wait_for_run(client, "r2")
        problem(await client.post("/v1/search", json={**SEARCH, "cursor": cursor}), 410)


async def test_a_cursor_of_a_run_that_this_searcher_has_not_seen_yet_is_answered(gallery: Library) -> None:
    """Of several searchers, each reads the pointers at a time of its own."""
    async with gallery.serving(refresh_seconds=3600) as late_client:
        gallery.publish(run="r2", previous=gallery.store.pointers()["photos"])
        async with gallery.serving() as client:
            cursor = await first_cursor(client)
        page = (await late_client.post("/v1/search", json={**SEARCH, "cursor": cursor})).json()
        assert page["run"] == "r2"
        other_encoder = FakeEncoder("fake/other")
        gallery.encoders[other_encoder.model] = other_encoder
        gallery.publish(run="r3", encoder=other_encoder)
        async with gallery.serving() as client:
            cursor = await first_cursor(client)
        response = await late_client.post("/v1/search", json={**SEARCH, "cursor": cursor})
        sentence = problem(response, 503)
        assert '"r3"' in sentence
        assert '"photos"' in sentence


async def test_a_cursor_names_its_index_when_others_have_come(gallery: Library) -> None:
    async with gallery.serving() as client:
        cursor = await first_cursor(client)
        gallery.publish(index="paintings")
        await wait_until(lambda: client.get("/v1/indexes"), lambda response: len(response.json()["indexes"]) == 2)
        assert (await client.post("/v1/search", json={**SEARCH, "cursor": cursor})).json()["index"] == "photos"
        invalid = await client.post("/v1/search", json={**SEARCH, "cursor": cursor, "index": "paintings"})
        assert fields(invalid) == ["cursor"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"k": 2}, 200),
        ({"include": ["embedding"]}, 200),
        ({"index": "photos"}, 200),
        ({"filter": {"colour": {"$ne": "white"}}}, 422),
        ({"filter": None}, 422),
        ({"min_score": 0.2}, 422),
        ({"dedupe": 0.9}, 422),
        ({"text": "blue"}, 422),
        ({"text": None, "parts": [{"text": "red"}]}, 200),
        ({"text": None, "parts": [{"text": "red", "weight": 2}]}, 422),
        ({"offset": 1}, 422),
    ],
)
async def test_a_cursor_continues_only_the_same_search(gallery: Library, changes: dict[str, Any], status: int) -> None:
    async with gallery.serving() as client:
        search = {**SEARCH, "cursor": await first_cursor(client), **changes}
        assert (await client.post("/v1/search", json=search)).status_code == status


async def test_an_uploaded_image_has_pages_too(gallery: Library) -> None:
    async with gallery.serving() as client:

        async def page(colour: str = "red", **options: str) -> httpx.Response:
            files = {"file": picture(colour)}
            return await client.post("/v1/search/image", files=files, data={"k": "1", **options})

        cursor = (await page()).json()["next_cursor"]
        (second,) = (await page(cursor=cursor)).json()["results"]
        assert second["metadata"] == {"colour": "yellow"}
        assert fields(await page("blue", cursor=cursor)) == ["cursor"]


@pytest.mark.parametrize("cursor", ["", "a", "?", "é", "e30", "bnVsbA", "AAAA" * 100, "a" * 1025, "=" * 8])
async def test_an_invalid_cursor_is_refused(gallery: Library, cursor: str) -> None:
    async with gallery.serving() as client:
        assert fields(await client.post("/v1/search", json={**SEARCH, "cursor": cursor})) == ["cursor"]


@pytest.mark.parametrize(
    ("changes", "field", "phrase"),
    [
        ({"offset": 10_001}, "offset", "10000"),
        ({"offset": -1}, "cursor", "invalid"),
        ({"offset": 1.5}, "cursor", "invalid"),
        ({"pool": 11}, "cursor", "search again"),  # that of an earlier version
        ({"run": 5}, "cursor", "invalid"),
    ],
)
async def test_a_forged_cursor_stays_within_the_limits(
    gallery: Library, changes: dict[str, Any], field: str, phrase: str
) -> None:
    async with gallery.serving() as client:
        cursor = await first_cursor(client)
        document = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        forged = base64.urlsafe_b64encode(json.dumps({**document, **changes}).encode()).decode()
        response = await client.post("/v1/search", json={**SEARCH, "cursor": forged})
        assert fields(response) == [field]
        assert phrase in problem(response, 422)
