"""How requests share the model."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.searcher.library import Library, event, found, picture, problem, until

pytestmark = pytest.mark.anyio


async def waiting(client: httpx.AsyncClient, number: int) -> None:
    """Until so many queries wait for the model."""
    line = f"imgsearch_encode_queue {float(number)}"
    await until(lambda: client.get("/metrics"), lambda answer: line in answer.text.splitlines())


async def test_texts_that_come_while_the_model_is_busy_share_its_next_call(gallery: Library) -> None:
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


async def test_a_call_of_the_model_takes_no_more_texts_than_the_setting_says(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving(batch_texts=4) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(found(client, text="red"))
        await event(gallery.encoder.entered)
        for n in range(10):
            tasks.create_task(found(client, text=f"word {n}"))
        await waiting(client, 11)
        gallery.encoder.gate.set()
    assert [len(call) for call in gallery.encoder.text_calls] == [1, 4, 4, 2]


async def test_the_event_loop_is_free_while_the_model_works(gallery: Library) -> None:
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


async def test_the_least_recently_used_vector_is_forgotten_first(gallery: Library) -> None:
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
            tasks.create_task(client.post("/v1/search/image", files={"file": picture()}))
    assert len(gallery.encoder.image_calls) == 10
    assert len(gallery.encoder.threads) == 1


async def test_a_client_that_leaves_takes_nothing_from_the_others(gallery: Library) -> None:
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


async def test_a_model_that_fails_fails_those_who_wait_and_nobody_after_them(gallery: Library) -> None:
    async with gallery.serving() as client:
        gallery.encoder.failure = RuntimeError("out of memory")
        answers = await asyncio.gather(*(client.post("/v1/search", json={"text": "red"}) for _ in range(3)))
        for answer in answers:
            assert "out of memory" not in problem(answer, 500)
        gallery.encoder.failure = None
        assert await found(client, text="red", k=1) == ["red"]
