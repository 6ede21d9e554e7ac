"""Which run a search sees, while runs are published, deleted and cannot be served."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from imgsearch.errors import TemporaryError
from imgsearch.stores import Pointer
from tests.fakes import FakeEncoder, InMemoryStore
from tests.searcher.library import TIMEOUT, FailingStore, Library, problem, search_colours, wait_until

pytestmark = pytest.mark.anyio


async def search(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/search", json={"text": "red", **fields})


async def wait_for_run(client: httpx.AsyncClient, run: str, **fields: Any) -> None:
    """Until that run answers."""
    await wait_until(lambda: search(client, **fields), lambda response: response.json().get("run") == run)


async def test_without_an_index_it_is_ready_and_says_how_to_make_one(library: Library) -> None:
    async with library.serving() as client:
        assert (await client.get("/readyz")).json()["serving"] == {}
        sentence = problem(await search(client), 404)
        assert "controller run-pipeline SOURCE (on one machine: --local)" in sentence
        assert "controller run-pipeline" in problem(await client.post("/v1/embed", json={"text": ["a"]}), 404)
        library.publish()
        await wait_for_run(client, "r1")


async def test_of_several_indexes_one_must_be_named(gallery: Library) -> None:
    recall = [{"queries": "changed images", "k": 10, "mean": 0.9876, "worst": 0.9}]
    gallery.publish({"dark.png": "black"}, index="paintings", recall=recall)
    async with gallery.serving() as client:
        assert problem(await search(client), 400).endswith("paintings, photos")
        assert await search_colours(client, text="red", index="paintings") == ["black"]
        sentence = problem(await search(client, index="sketches"), 404)
        assert '"sketches"' in sentence
        assert sentence.endswith("paintings, photos")
        indexes = (await client.get("/v1/indexes")).json()["indexes"]
        assert [(index["index"], index["images"]) for index in indexes] == [("paintings", 1), ("photos", 4)]
        assert [index["recall"] for index in indexes] == [recall, []]


async def test_indexes_with_the_same_weights_share_one_model(gallery: Library) -> None:
    gallery.publish(index="paintings")
    async with gallery.serving():
        assert gallery.loaded == [gallery.encoder.model]


async def test_no_search_fails_or_mixes_runs_while_new_ones_are_published(library: Library) -> None:
    """Each old collection is deleted as soon as the next is published, which is sooner than in life."""

    def publish(run: str) -> Pointer:
        return library.publish({f"{n}.png": {"colour": "red", "run": run} for n in range(5)}, run=run)

    responses: list[httpx.Response] = []
    publish("r0")
    async with library.serving(refresh_seconds=0.001) as client:

        async def keep_searching() -> None:
            while not stop:
                responses.append(await search(client, k=5))

        stop = False
        searchers = [asyncio.create_task(keep_searching()) for _ in range(8)]
        for n in range(1, 20):
            publish(f"r{n}")
            library.store.drop(f"photos-r{n - 1}")
            await wait_for_run(client, f"r{n}")
        stop = True
        await asyncio.gather(*searchers)
    assert {response.status_code for response in responses} == {200}
    for document in (response.json() for response in responses):
        assert [result["metadata"]["run"] for result in document["results"]] == [document["run"]] * 5
    assert len({response.json()["run"] for response in responses}) > 5


async def test_a_search_on_a_deleted_collection_uses_its_successor(gallery: Library) -> None:
    async with gallery.serving(refresh_seconds=3600) as client:
        gallery.publish({"new.png": "white"}, run="r2")
        gallery.store.drop("photos-r1")
        assert await search_colours(client, text="red") == ["white"]


async def test_a_search_that_is_cancelled_leaves_the_refresh_that_it_began_to_the_others(gallery: Library) -> None:
    encoder = gallery.encoders["fake/new"] = FakeEncoder("fake/new")
    async with gallery.serving(refresh_seconds=3600) as client:
        gallery.publish({"new.png": "white"}, run="r2", encoder=encoder)
        gallery.store.drop("photos-r1")
        gallery.loading.clear()
        cancelled = asyncio.create_task(search(client))
        async with asyncio.timeout(TIMEOUT):
            while gallery.loaded[-1] != "fake/new":
                await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gallery.loading.set()
        assert await search_colours(client, text="red") == ["white"]
    assert gallery.loaded == [gallery.encoder.model, "fake/new"]


async def test_a_collection_that_is_gone_without_a_successor_is_not_found(gallery: Library) -> None:
    async with gallery.serving() as client:
        gallery.store.drop("photos-r1")
        assert "photos-r1" in problem(await search(client), 404)
        assert "photos-r1" in problem(await client.get("/readyz"), 503)


async def test_another_model_is_loaded_before_its_run_is_served(gallery: Library) -> None:
    other_encoder = FakeEncoder("fake/other")
    gallery.encoders[other_encoder.model] = other_encoder
    async with gallery.serving() as client:
        gallery.loading.clear()
        gallery.publish({"new.png": "white"}, run="r2", encoder=other_encoder)
        loading = lambda response: "being loaded" in response.json()["problems"].get("photos", "")  # noqa: E731
        await wait_until(lambda: client.get("/readyz"), loading)
        assert (await search(client)).json()["run"] == "r1"
        gallery.loading.set()
        await wait_for_run(client, "r2")
        assert (await client.get("/readyz")).json()["problems"] == {}
    assert gallery.loaded == [gallery.encoder.model, other_encoder.model]


async def test_a_model_is_kept_while_the_previous_run_needs_it(gallery: Library) -> None:
    other_encoder = FakeEncoder("fake/other")
    gallery.encoders[other_encoder.model] = other_encoder
    first = gallery.store.pointers()["photos"]
    async with gallery.serving() as client:
        second = gallery.publish({"new.png": "white"}, run="r2", encoder=other_encoder, previous=first)
        await wait_for_run(client, "r2")
        gallery.store.publish(replace(first, previous=replace(second, previous=None)))
        await wait_for_run(client, "r1")
        assert gallery.loaded == [gallery.encoder.model, other_encoder.model], "a rollback loads nothing"
        third = gallery.publish(run="r3", previous=first)
        await wait_for_run(client, "r3")
        gallery.publish(run="r4", encoder=other_encoder, previous=replace(third, previous=None))
        await wait_for_run(client, "r4")
    assert gallery.loaded == [gallery.encoder.model, other_encoder.model, other_encoder.model]


async def test_an_index_that_is_ready_does_not_wait_for_another_ones_model(gallery: Library) -> None:
    other_encoder = FakeEncoder("fake/other")
    gallery.encoders[other_encoder.model] = other_encoder
    async with gallery.serving() as client:
        gallery.loading.clear()
        gallery.publish(index="a-new-one", encoder=other_encoder)
        gallery.publish(run="r2")
        await wait_for_run(client, "r2", index="photos")
        response = await wait_until(
            lambda: search(client, index="a-new-one"), lambda response: response.status_code == 503
        )
        assert "its model is being loaded" in problem(response, 503)
        gallery.loading.set()
        await wait_for_run(client, "r1", index="a-new-one")


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), TemporaryError("the hub is down")])
async def test_a_model_that_cannot_be_loaded_leaves_the_old_run_serving(
    gallery: Library, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    broken_encoder = FakeEncoder("fake/broken")
    gallery.encoders[broken_encoder.model] = error
    async with gallery.serving() as client:
        gallery.publish(run="r2", encoder=broken_encoder)
        is_reported = lambda response: str(error) in response.json()["problems"].get("photos", "")  # noqa: E731
        response = await wait_until(lambda: client.get("/readyz"), is_reported)
        assert response.status_code == 200
        assert (await search(client)).json()["run"] == "r1"
        assert str(error) in (await client.get("/v1/indexes")).json()["problems"]["photos"]
    assert str(error) in caplog.text
    assert gallery.loaded == [gallery.encoder.model, broken_encoder.model], "it was not tried again at once"


async def test_a_run_made_with_other_weights_is_not_served(library: Library) -> None:
    library.publish(fingerprint="0123456789abcdef")
    async with library.serving(ready=False) as client:
        is_reported = lambda response: "0123456789ab" in response.text  # noqa: E731
        sentence = problem(await wait_until(lambda: client.get("/readyz"), is_reported), 503)
        assert library.encoder.fingerprint[:12] in sentence
        response = await search(client)
        assert "0123456789ab" in problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        library.publish(run="r2")
        await wait_for_run(client, "r2")


async def test_one_index_that_cannot_be_served_leaves_the_others_ready(gallery: Library) -> None:
    gallery.publish(index="broken", fingerprint="0123456789abcdef")
    async with gallery.serving() as client:
        assert "weights" in (await client.get("/readyz")).json()["problems"]["broken"]
        assert await search_colours(client, text="red", index="photos", k=1) == ["red"]


async def test_until_the_first_model_is_loaded_it_is_alive_but_not_ready(gallery: Library) -> None:
    gallery.loading.clear()
    async with gallery.serving(ready=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        problem(await client.get("/readyz"), 503)
        assert (await search(client)).headers["Retry-After"]
        await wait_until(lambda: search(client), lambda response: "its model is being loaded" in response.text)
        gallery.loading.set()
        await wait_for_run(client, "r1")


async def test_a_removed_index_is_no_longer_served(gallery: Library) -> None:
    store = Unpublishing()
    gallery.store = store
    gallery.publish()
    async with gallery.serving() as client:
        store.unpublish("photos")
        await wait_until(lambda: search(client), lambda response: response.status_code == 404)


async def test_the_searcher_is_not_ready_while_the_store_does_not_answer_and_recovers(gallery: Library) -> None:
    store = FailingStore()
    gallery.store = store
    gallery.publish()
    async with gallery.serving() as client:
        store.down = True
        response = await wait_until(lambda: client.get("/readyz"), lambda response: response.status_code == 503)
        assert "the store is down" in problem(response, 503)
        assert "the store is down" in problem(await search(client), 503)
        store.down = False
        await wait_until(lambda: client.get("/readyz"), lambda response: response.status_code == 200)
        await wait_for_run(client, "r1")


async def test_a_store_that_is_down_at_the_start_is_waited_for(gallery: Library) -> None:
    store = FailingStore()
    gallery.store = store
    gallery.publish()
    store.down = True
    async with gallery.serving(ready=False) as client:
        store_down = lambda response: "the store is down" in response.text  # noqa: E731
        problem(await wait_until(lambda: client.get("/readyz"), store_down), 503)
        assert "the store is down" in problem(await search(client), 503)
        assert "the store is down" in problem(await client.get("/v1/indexes"), 503)
        store.down = False
        await wait_for_run(client, "r1")


class Unpublishing(InMemoryStore):
    """A store of which somebody deletes a pointer."""

    def unpublish(self, index: str) -> None:
        with self._lock:
            del self._pointers[index]
