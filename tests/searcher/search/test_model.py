"""Requests share the model, and the vectors of texts are cached."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from tests.searcher.library import (
    Library,
    picture,
    problem,
    search_colours,
    uploads,
    wait_for_event,
    wait_for_queue,
    wait_until,
)

pytestmark = pytest.mark.anyio


async def by_image(client: httpx.AsyncClient, colour: str = "red") -> str:
    """The colour that is most like an uploaded picture."""
    response = await client.post("/v1/search/image", files={"file": picture(colour)})
    assert response.status_code == 200, response.text
    return str(response.json()["results"][0]["metadata"]["colour"])


async def test_texts_that_arrive_while_the_model_is_busy_share_its_next_call(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(search_colours(client, text="red", k=1))
        await wait_for_event(gallery.encoder.call_started)
        texts = ["green", "blue", "yellow", *(f"word {n}" for n in range(9))]
        searches = [tasks.create_task(search_colours(client, text=text, k=1)) for text in texts]
        await wait_for_queue(client, 13)
        gallery.encoder.unblocked.set()
    assert gallery.encoder.text_calls == [["red"], texts]
    assert first.result() == ["red"]
    assert [task.result() for task in searches[:3]] == [["green"], ["blue"], ["yellow"]]


async def test_a_call_of_the_model_has_at_most_batch_texts_texts(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving(batch_texts=4) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(search_colours(client, text="red"))
        await wait_for_event(gallery.encoder.call_started)
        for n in range(10):
            tasks.create_task(search_colours(client, text=f"word {n}"))
        await wait_for_queue(client, 11)
        gallery.encoder.unblocked.set()
    assert [len(call) for call in gallery.encoder.text_calls] == [1, 4, 4, 2]


async def test_the_model_does_not_block_the_event_loop(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        search = tasks.create_task(search_colours(client, text="red", k=1))
        await wait_for_event(gallery.encoder.call_started)
        for path in ("/healthz", "/readyz", "/v1/indexes", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert not search.done()
        gallery.encoder.unblocked.set()


async def test_the_same_text_is_encoded_once(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving() as client:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(search_colours(client, text="red"))
            await wait_for_queue(client, 8)
            gallery.encoder.unblocked.set()
        assert await search_colours(client, text=" red ", k=1) == ["red"]
    assert gallery.encoder.text_calls == [["red"]]


async def test_the_least_recently_used_vector_is_evicted_first(gallery: Library) -> None:
    async with gallery.serving(cache_vectors=2) as client:
        for text in ("red", "green", "red", "blue", "red", "green"):
            await search_colours(client, text=text)
    assert gallery.encoder.text_calls == [["red"], ["green"], ["blue"], ["green"]]


async def test_vectors_are_kept_when_the_same_model_serves_the_next_run(gallery: Library) -> None:
    async with gallery.serving() as client:
        await search_colours(client, text="red")
        gallery.publish(run="r2")
        await wait_until(
            lambda: client.post("/v1/search", json={"text": "red"}),
            lambda response: response.json()["run"] == "r2",
        )
    assert gallery.encoder.text_calls == [["red"]]
    assert gallery.loaded == [gallery.encoder.model]


async def test_the_model_runs_in_one_thread_that_is_not_the_event_loops(gallery: Library) -> None:
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        for n in range(10):
            tasks.create_task(search_colours(client, text=f"word {n}"))
            tasks.create_task(by_image(client))
    assert sum(gallery.encoder.image_calls) == 10
    assert len(gallery.encoder.threads) == 1


async def test_images_that_arrive_while_the_model_is_busy_share_its_next_calls(gallery: Library) -> None:
    count_before = gallery.encoder.prepared_count

    async def prepared_count() -> int:
        return gallery.encoder.prepared_count

    gallery.encoder.unblocked.clear()
    async with gallery.serving(batch_images=4) as client:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(search_colours(client, text="red"))
            await wait_for_event(gallery.encoder.call_started)
            colours = ["red", "green", "blue", "yellow", "red", "red"]
            searches = [tasks.create_task(by_image(client, colour)) for colour in colours]
            await wait_until(prepared_count, lambda number: number == count_before + 6)
            gallery.encoder.unblocked.set()
        metrics = (await client.get("/metrics")).text
    assert [search.result() for search in searches] == colours
    # Two may still have been in the threads that decode.
    assert gallery.encoder.image_calls[0] == 4
    assert sum(gallery.encoder.image_calls) == 6
    assert "imgsearch_batch_images_sum 6.0" in metrics
    assert f"imgsearch_batch_images_count {len(gallery.encoder.image_calls)}.0" in metrics


async def test_a_request_with_an_invalid_image_encodes_nothing(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(search_colours(client, text="red"))
        await wait_for_event(gallery.encoder.call_started)
        body = {"image": [*uploads("red", "blue"), base64.b64encode(b"none").decode()]}
        problem(await client.post("/v1/embed", json=body), 422)
        await wait_for_queue(client, 1)
        gallery.encoder.unblocked.set()
    assert gallery.encoder.image_calls == []


async def test_nothing_is_encoded_for_clients_that_disconnect_before_their_turn(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving(max_waiting=2) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(search_colours(client, text="red"))
        await wait_for_event(gallery.encoder.call_started)
        leaving = asyncio.create_task(search_colours(client, text="green"))
        await wait_for_queue(client, 2)
        leaving.cancel()
        await wait_for_queue(client, 1)
        tasks.create_task(search_colours(client, text="blue"))  # has the place of the one that left
        await wait_for_queue(client, 2)
        gallery.encoder.unblocked.set()
    assert gallery.encoder.text_calls == [["red"], ["blue"]]


async def test_a_client_that_disconnects_does_not_affect_the_others(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving() as client:
        leaving = asyncio.create_task(search_colours(client, text="red", k=1))
        await wait_for_event(gallery.encoder.call_started)
        staying = [asyncio.create_task(search_colours(client, text=text, k=1)) for text in ("red", "blue")]
        leaving_too = asyncio.create_task(search_colours(client, text="blue", k=1))
        await wait_for_queue(client, 4)
        leaving.cancel()
        leaving_too.cancel()
        await wait_for_queue(client, 2)
        gallery.encoder.unblocked.set()
        assert await asyncio.gather(*staying) == [["red"], ["blue"]]
        assert await search_colours(client, text="green", k=1) == ["green"]


async def test_an_error_of_the_model_fails_the_waiting_searches_and_no_later_ones(gallery: Library) -> None:
    async with gallery.serving() as client:
        gallery.encoder.failure = RuntimeError("out of memory")
        responses = await asyncio.gather(*(client.post("/v1/search", json={"text": "red"}) for _ in range(3)))
        for response in responses:
            assert "out of memory" not in problem(response, 500)
        gallery.encoder.failure = None
        assert await search_colours(client, text="red", k=1) == ["red"]
