"""Too many queries at once are refused with 429."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from searcher.search.admission import Admission
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics
from tests.searcher.library import Library, picture, problem, search_colours, uploads, wait_for_event, wait_for_queue

pytestmark = pytest.mark.anyio


async def test_over_the_limit_a_search_gets_429_with_retry_after(gallery: Library) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving(max_waiting=3) as client:
        async with asyncio.TaskGroup() as tasks:
            waiters = [
                tasks.create_task(search_colours(client, text="red", k=1)),
                tasks.create_task(search_colours(client, text="green", k=1)),
                tasks.create_task(search_colours(client, image=base64.b64encode(picture("blue")).decode(), k=1)),
            ]
            await wait_for_queue(client, 3)
            for response in (
                await client.post("/v1/search", json={"text": "yellow"}),
                await client.post("/v1/search/image", files={"file": picture()}),
            ):
                assert "model" in problem(response, 429)
                assert int(response.headers["retry-after"]) >= 1
            gallery.encoder.unblocked.set()
        assert [waiter.result() for waiter in waiters] == [["red"], ["green"], ["blue"]]
        assert await search_colours(client, text="yellow", k=1) == ["yellow"]


@pytest.mark.parametrize(
    "embed", [{"text": ["red", "blue", "yellow"]}, {"image": uploads("red", "blue", "yellow")}], ids=["text", "image"]
)
async def test_a_request_is_admitted_completely_or_not_at_all(gallery: Library, embed: dict[str, Any]) -> None:
    gallery.encoder.unblocked.clear()
    async with gallery.serving(max_waiting=3) as client:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(search_colours(client, text="green"))
            await wait_for_event(gallery.encoder.call_started)
            problem(await client.post("/v1/embed", json=embed), 429)
            await wait_for_queue(client, 1)
            fewer = {kind: items[1:] for kind, items in embed.items()}
            fitting = tasks.create_task(client.post("/v1/embed", json=fewer))
            await wait_for_queue(client, 3)
            problem(await client.post("/v1/embed", json={"text": ["one more"]}), 429)
            gallery.encoder.unblocked.set()
        assert len(fitting.result().json()["vectors"]) == 2
        await wait_for_queue(client, 0)
    encoded = [text for call in gallery.encoder.text_calls for text in call]
    assert encoded == ["green", *fewer.get("text", [])]
    assert sum(gallery.encoder.image_calls) == len(fewer.get("image", []))


async def test_a_request_of_any_size_is_admitted_while_no_query_waits(gallery: Library) -> None:
    async with gallery.serving(max_waiting=2) as client:
        texts = ["red", "green", "blue", "red"]
        vectors = (await client.post("/v1/embed", json={"text": texts})).json()["vectors"]
        for text, vector in zip(texts, vectors, strict=True):
            response = await client.post("/v1/search", json={"embedding": vector, "k": 1})
            assert response.json()["results"][0]["metadata"]["colour"] == text


async def test_a_cached_text_needs_no_admission(gallery: Library) -> None:
    async with gallery.serving(max_waiting=1) as client:
        await search_colours(client, text="red")
        gallery.encoder.call_started.clear()
        gallery.encoder.unblocked.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(search_colours(client, text="green"))
            await wait_for_event(gallery.encoder.call_started)
            assert await search_colours(client, text="red", k=1) == ["red"]
            assert (await client.post("/v1/embed", json={"text": ["red", "red"]})).status_code == 200
            problem(await client.post("/v1/embed", json={"text": ["red", "blue"]}), 429)
            gallery.encoder.unblocked.set()


@pytest.mark.parametrize(
    ("queries", "seconds", "retry_after"), [(10, 0.01, "1"), (10, 5.0, "2"), (1, 2.5, "10"), (1, 1000.0, "60")]
)
def test_retry_after_is_the_time_that_the_waiting_queries_take(queries: int, seconds: float, retry_after: str) -> None:
    admission = Admission(4, metrics=Metrics())
    with admission.admit(1), admission.admit(3):
        admission.observe(queries, seconds)
        with pytest.raises(Problem) as error, admission.admit(1):
            pass
    assert error.value.headers == {"Retry-After": retry_after}
