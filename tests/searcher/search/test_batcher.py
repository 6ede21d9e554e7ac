"""How requests share the model."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from imgsearch.stores import Hit, Vectors
from searcher.search.batcher import Line, Places
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics
from searcher.search.threads import Pool
from tests.fakes import InMemoryStore
from tests.searcher.library import TIMEOUT, Library, event, found, picture, problem, until

pytestmark = pytest.mark.anyio


async def waiting(client: httpx.AsyncClient, number: int) -> None:
    """Until so many queries wait for the model."""
    line = f"imgsearch_encode_queue {float(number)}"
    await until(lambda: client.get("/metrics"), lambda answer: line in answer.text.splitlines())


async def by_image(client: httpx.AsyncClient, colour: str = "red") -> str:
    """The colour that is most like an uploaded picture."""
    answer = await client.post("/v1/search/image", files={"file": picture(colour)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["metadata"]["colour"])


@pytest.fixture
def pool() -> Iterator[Pool]:
    """One thread."""
    pool = Pool("test", 1)
    yield pool
    pool.close()


class Watched(InMemoryStore):
    """Notes the searches of each call, and how many results it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []

    def search(self, collection: str, queries: Vectors, *, k: int, **options: Any) -> list[list[Hit]]:
        self.calls.append((len(queries), k))
        return super().search(collection, queries, k=k, **options)


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
            tasks.create_task(by_image(client))
    assert sum(gallery.encoder.image_calls) == 10
    assert len(gallery.encoder.threads) == 1


async def test_images_that_come_while_the_model_is_busy_share_its_next_calls(gallery: Library) -> None:
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


async def test_lines_of_one_pool_take_turns_and_a_call_takes_who_is_there_when_it_begins(pool: Pool) -> None:
    calls: list[list[str]] = []
    entered, open_gate = threading.Event(), threading.Event()

    def answer(queries: list[str]) -> list[str]:
        entered.set()
        assert open_gate.wait(TIMEOUT)
        calls.append(queries)
        return [query.upper() for query in queries]

    texts, images = Line(pool, answer, most=2), Line(pool, answer, most=2)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(texts.ask("t0")), tasks.create_task(images.ask("i0"))]
        await event(entered)
        asked += [tasks.create_task(texts.ask(f"t{n}")) for n in range(1, 6)]
        asked += [tasks.create_task(images.ask(f"i{n}")) for n in range(1, 4)]
        await asyncio.sleep(0)
        open_gate.set()
    assert calls == [["t0"], ["i0", "i1"], ["t1", "t2"], ["i2", "i3"], ["t3", "t4"], ["t5"]]
    assert [task.result() for task in asked] == ["T0", "I0", "T1", "T2", "T3", "T4", "T5", "I1", "I2", "I3"]
    assert texts.idle
    assert images.idle


async def test_a_query_that_comes_as_the_last_call_ends_is_not_forgotten(pool: Pool) -> None:
    line = Line(pool, lambda queries: [query.upper() for query in queries], most=2)
    async with asyncio.timeout(TIMEOUT):
        for query in ("a", "b", "c"):
            assert await line.ask(query) == query.upper()


async def test_a_call_that_answers_too_little_is_an_error_and_no_silence(pool: Pool) -> None:
    line: Line[str, str] = Line(pool, lambda queries: [], most=2)
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(ValueError, match="shorter"):
            await line.ask("a")


async def test_where_too_many_wait_more_are_told_when_to_come_back(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving(max_waiting=3) as client:
        async with asyncio.TaskGroup() as tasks:
            waiters = [
                tasks.create_task(found(client, text="red", k=1)),
                tasks.create_task(found(client, text="green", k=1)),
                tasks.create_task(found(client, image=base64.b64encode(picture("blue")).decode(), k=1)),
            ]
            await waiting(client, 3)
            for refused in (
                await client.post("/v1/search", json={"text": "yellow"}),
                await client.post("/v1/search/image", files={"file": picture()}),
            ):
                assert problem(refused, 429) == "too many searches wait for the model; try again in a moment"
                assert int(refused.headers["retry-after"]) >= 1
            gallery.encoder.gate.set()
        assert [waiter.result() for waiter in waiters] == [["red"], ["green"], ["blue"]]
        assert await found(client, text="yellow", k=1) == ["yellow"]


def uploads(*colours: str) -> list[str]:
    """As /v1/embed takes images."""
    return [base64.b64encode(picture(colour)).decode() for colour in colours]


@pytest.mark.parametrize(
    "embed", [{"text": ["red", "blue", "yellow"]}, {"image": uploads("red", "blue", "yellow")}], ids=["text", "image"]
)
async def test_of_many_texts_or_images_all_find_a_place_or_none_is_encoded(
    gallery: Library, embed: dict[str, Any]
) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving(max_waiting=3) as client:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found(client, text="green"))
            await event(gallery.encoder.entered)
            problem(await client.post("/v1/embed", json=embed), 429)
            await waiting(client, 1)
            two = {kind: items[1:] for kind, items in embed.items()}
            fitting = tasks.create_task(client.post("/v1/embed", json=two))
            await waiting(client, 3)
            problem(await client.post("/v1/embed", json={"text": ["one more"]}), 429)
            gallery.encoder.gate.set()
        assert len(fitting.result().json()["vectors"]) == 2
        await waiting(client, 0)
    encoded = [text for call in gallery.encoder.text_calls for text in call]
    assert encoded == ["green", *two.get("text", [])]
    assert sum(gallery.encoder.image_calls) == len(two.get("image", []))


async def test_where_nobody_waits_there_is_room_for_any_request(gallery: Library) -> None:
    async with gallery.serving(max_waiting=2) as client:
        texts = ["red", "green", "blue", "red"]
        vectors = (await client.post("/v1/embed", json={"text": texts})).json()["vectors"]
        for text, vector in zip(texts, vectors, strict=True):
            answer = await client.post("/v1/search", json={"embedding": vector, "k": 1})
            assert answer.json()["results"][0]["metadata"]["colour"] == text


async def test_an_image_that_is_none_leaves_the_others_of_its_request_alone(gallery: Library) -> None:
    gallery.encoder.gate.clear()
    async with gallery.serving() as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(found(client, text="red"))
        await event(gallery.encoder.entered)
        broken = {"image": [*uploads("red", "blue"), base64.b64encode(b"none").decode()]}
        problem(await client.post("/v1/embed", json=broken), 422)
        await waiting(client, 1)
        gallery.encoder.gate.set()
    assert gallery.encoder.image_calls == []


async def test_a_known_text_needs_no_place(gallery: Library) -> None:
    async with gallery.serving(max_waiting=1) as client:
        await found(client, text="red")
        gallery.encoder.entered.clear()
        gallery.encoder.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(found(client, text="green"))
            await event(gallery.encoder.entered)
            assert await found(client, text="red", k=1) == ["red"]
            assert (await client.post("/v1/embed", json={"text": ["red", "red"]})).status_code == 200
            problem(await client.post("/v1/embed", json={"text": ["red", "blue"]}), 429)
            gallery.encoder.gate.set()


@pytest.mark.parametrize(
    ("queries", "seconds", "said"), [(10, 0.01, "1"), (10, 5.0, "2"), (1, 2.5, "10"), (1, 1000.0, "60")]
)
def test_retry_after_is_how_long_those_who_wait_will_take(queries: int, seconds: float, said: str) -> None:
    places = Places(4, metrics=Metrics())
    with places.kept(1), places.kept(3):
        places.served(queries, seconds)
        with pytest.raises(Problem) as refused, places.kept(1):
            pass
    assert refused.value.headers == {"Retry-After": said}


async def test_nothing_is_encoded_for_clients_that_left_before_their_turn(gallery: Library) -> None:
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


async def test_searches_that_come_together_share_a_call_of_the_store(library: Library) -> None:
    library.store = store = Watched()
    library.publish()
    async with library.serving() as client:
        colours = ["red", "green", "blue", "yellow"]
        await asyncio.gather(*(found(client, text=colour) for colour in colours))  # now their vectors are known
        store.calls.clear()
        together = await asyncio.gather(*(found(client, text=colour, k=1) for colour in colours))
        assert together == [[colour] for colour in colours]
        assert store.calls == [(2, 2), (2, 2)]
        store.calls.clear()
        await asyncio.gather(*(found(client, text="red", k=k) for k in (1, 2)))
        await asyncio.gather(
            found(client, text="red", filter={"colour": "red"}), found(client, text="red", filter={"colour": "blue"})
        )
        assert sorted(store.calls) == [(1, 2), (1, 3), (1, 11), (1, 11)]


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
