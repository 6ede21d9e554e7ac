"""Requests share the model, and the vectors of texts are cached."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from tests.searcher.library import Library, event, found, picture, problem, until, uploads, waiting

pytestmark = pytest.mark.anyio


async def by_image(client: httpx.AsyncClient, colour: str = "red") -> str:
    """The colour that is most like an uploaded picture."""
    answer = await client.post("/v1/search/image", files={"file": picture(colour)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["metadata"]["colour"])


async def test_texts_that_arrive_while_the_model_is_busy_share_its_next_call(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(found(client, text="red", k=1))
        await event(gallery.encoder.entered)
        words = ["green", "blue", "yellow", *(f"word {n}" for n in range(9))]
        others = [tasks.create_task(found(client, text=text, k=1)) for text in words]
        await waiting(client, 13)
        gallery.encoder.gate.set()
    assert gallery.encoder.text_calls == [["red"], words]
    assert first.result() == ["red"]
    assert [task.result() for task in others[:3]] == [["green"], ["blue"], ["yellow"]]


async def test_a_call_of_the_model_has_at_most_batch_texts_texts(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving(batch_texts=4) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(found(client, text="red"))
        await event(gallery.encoder.entered)
        for n in range(10):
            tasks.create_task(found(client, text=f"word {n}"))
        await waiting(client, 11)
        gallery.encoder.gate.set()
    assert [len(call) for call in gallery.encoder.text_calls] == [1, 4, 4, 2]


async def test_the_model_does_not_block_the_event_loop(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        search = tasks.create_task(found(client, text="red", k=1))
        await event(gallery.encoder.entered)
        for path in ("/healthz", "/readyz", "/v1/indexes", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert not search.done()
        gallery.encoder.gate.set()


async def test_the_same_text_is_encoded_once(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(found(client, text="red"))
            await waiting(client, 8)
            gallery.encoder.gate.set()
        assert await found(client, text=" red ", k=1) == ["red"]
    assert gallery.encoder.text_calls == [["red"]]


async def test_the_least_recently_used_vector_is_evicted_first(gallery: Library) -> None:
    async with gallery.serving(cache_vectors=2) as client:
        for text in ("red", "green", "red", "blue", "red", "green"):
            await found(client, text=text)
    assert gallery.encoder.text_calls == [["red"], ["green"], ["blue"], ["green"]]


async def test_vectors_are_kept_when_the_same_model_serves_the_next_run(gallery: Library) -> None:
    async with gallery.serving() as client:
        await found(client, text="red")
        gallery.publish(run="r2")
        await until(
            lambda: client.post("/v1/search", json={"text": "red"}),
            lambda answer: answer.json()["run"] == "r2",
        )
    assert gallery.encoder.text_calls == [["red"]]
    assert gallery.loaded == [gallery.encoder.model]


async def test_the_model_runs_in_one_thread_that_is_not_the_event_loops(gallery: Library) -> None:
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        for n in range(10):
            tasks.create_task(found(client, text=f"word {n}"))
            tasks.create_task(by_image(client))
    assert sum(gallery.encoder.image_calls) == 10
    assert len(gallery.encoder.threads) == 1


async def test_images_that_arrive_while_the_model_is_busy_share_its_next_calls(gallery: Library) -> None:
    before = gallery.encoder.prepared

    async def prepared() -> int:
        return gallery.encoder.prepared

    gallery.encoder.gate.clear()
    async with gallery.serving(batch_images=4) as client:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found(client, text="red"))
            await event(gallery.encoder.entered)
            colours = ["red", "green", "blue", "yellow", "red", "red"]
            searches = [tasks.create_task(by_image(client, colour)) for colour in colours]
            await until(prepared, lambda number: number == before + 6)
            gallery.encoder.gate.set()
        metrics = (await client.get("/metrics")).text
    assert [search.result() for search in searches] == colours
    # Two may still have been in the threads that decode.
    assert gallery.encoder.image_calls[0] == 4
    assert sum(gallery.encoder.image_calls) == 6
    assert "imgsearch_batch_images_sum 6.0" in metrics
    assert f"imgsearch_batch_images_count {len(gallery.encoder.image_calls)}.0" in metrics


async def test_a_request_with_an_invalid_image_encodes_nothing(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(found(client, text="red"))
        await event(gallery.encoder.entered)
        broken = {"image": [*uploads("red", "blue"), base64.b64encode(b"none").decode()]}
        problem(await client.post("/v1/embed", json=broken), 422)
        await waiting(client, 1)
        gallery.encoder.gate.set()
    assert gallery.encoder.image_calls == []


async def test_nothing_is_encoded_for_clients_that_disconnect_before_their_turn(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving(max_waiting=2) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(found(client, text="red"))
        await event(gallery.encoder.entered)
        leaving = asyncio.create_task(found(client, text="green"))
        await waiting(client, 2)
        leaving.cancel()
        await waiting(client, 1)
        tasks.create_task(found(client, text="blue"))  # has the place of the one that left
        await waiting(client, 2)
        gallery.encoder.gate.set()
    assert gallery.encoder.text_calls == [["red"], ["blue"]]


async def test_a_client_that_disconnects_does_not_affect_the_others(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client:
        leaving = asyncio.create_task(found(client, text="red", k=1))
        await event(gallery.encoder.entered)
        staying = [asyncio.create_task(found(client, text=text, k=1)) for text in ("red", "blue")]
        leaving_too = asyncio.create_task(found(client, text="blue", k=1))
        await waiting(client, 4)
        leaving.cancel()
        leaving_too.cancel()
        await waiting(client, 2)
        gallery.encoder.gate.set()
        assert await asyncio.gather(*staying) == [["red"], ["blue"]]
        assert await found(client, text="green", k=1) == ["green"]


async def test_an_error_of_the_model_fails_the_waiting_searches_and_no_later_ones(gallery: Library) -> None:
    async with gallery.serving() as client:
        gallery.encoder.failure = RuntimeError("out of memory")
        answers = await asyncio.gather(*(client.post("/v1/search", json={"text": "red"}) for _ in range(3)))
        for answer in answers:
            assert "out of memory" not in problem(answer, 500)
        gallery.encoder.failure = None
        assert await found(client, text="red", k=1) == ["red"]
