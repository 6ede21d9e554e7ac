"""Clients share the places for fetches."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from searcher.content.fetch_queue import FetchQueue
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics

pytestmark = pytest.mark.anyio

FAR = 1e9
"""A deadline that does not come."""


class Fetches:
    """Fetches that hold their place until they are finished one by one."""

    def __init__(self, places: int, *, client_places: int = 100, client_entries: int = 100) -> None:
        self.queue = FetchQueue(places, client_places=client_places, client_entries=client_entries, metrics=Metrics())
        self.held: list[str] = []
        """The clients of the fetches with a place, in the order in which they got it."""
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, *clients: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._fetch(client)) for client in clients]
        self._tasks += tasks
        await settle()
        return tasks

    async def end_first(self) -> None:
        """Ends the fetch that got its place first, of those that hold one."""
        self.let_first_end()
        await settle()

    def let_first_end(self) -> None:
        """The same, once the event loop runs."""
        self._ends.pop(0).set()

    async def _fetch(self, client: str) -> None:
        async with self.queue.place(client, deadline=FAR):
            self.held.append(client)
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()


async def settle() -> None:
    """Lets all that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_client_never_holds_all_places() -> None:
    fetches = Fetches(4, client_places=3)
    await fetches.add(*["a"] * 20)
    assert fetches.held == ["a"] * 3
    await fetches.add("b")
    assert fetches.held == ["a"] * 3 + ["b"]


async def test_a_free_place_is_for_the_client_with_the_fewest_and_equals_take_turns() -> None:
    fetches = Fetches(2)
    await fetches.add(*["a"] * 6)
    await fetches.add(*["b"] * 2, *["c"] * 2)
    for _ in range(8):
        await fetches.end_first()
    assert fetches.held == ["a", "a", "b", "a", "c", "b", "a", "c", "a", "a"]


async def test_who_is_cancelled_leaves_the_middle_of_the_queue() -> None:
    fetches = Fetches(1, client_entries=4)
    first, second, third, fourth = await fetches.add("a", "a", "a", "a")
    second.cancel()
    third.cancel()
    await settle()
    await fetches.add("a", "a")
    await fetches.end_first()
    assert fetches.held == ["a", "a"]
    fourth.cancel()
    await settle()
    assert fetches.held == ["a", "a", "a"]
    assert first.done()


async def test_who_is_cancelled_as_it_gets_a_place_gives_it_to_the_next() -> None:
    fetches = Fetches(1)
    async with fetches.queue.place("a", deadline=FAR):
        second, _ = await fetches.add("b", "c")
    second.cancel()  # the place is its own already
    await settle()
    assert fetches.held == ["c"]
    await fetches.add("d")
    await fetches.end_first()
    assert fetches.held == ["c", "d"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])  # the event loop of the server
async def test_fetches_whose_deadline_comes_together_are_all_refused_and_no_place_is_lost() -> None:
    """The first ones that end give their places back before the waiting ones have run."""
    queue = FetchQueue(16, client_places=4, client_entries=64, metrics=Metrics())
    deadline = asyncio.get_running_loop().time() + 0.02

    async def fetch(client: str) -> str:
        try:
            async with queue.place(client, deadline=deadline), asyncio.timeout_at(deadline):
                await asyncio.Event().wait()
        except TimeoutError:
            return "no answer"
        except Problem as error:
            return str(error.status)
        return "an answer"

    outcomes = await asyncio.gather(*(fetch(client) for client in ["a"] * 64 + ["b"] * 2), return_exceptions=True)
    assert Counter(map(repr, outcomes)) == {"'no answer'": 4 + 2, "'429'": 60}
    async with AsyncExitStack() as places:
        for client in "abcd":
            for _ in range(4):
                await places.enter_async_context(queue.place(client, deadline=FAR))


async def test_a_cancelled_fetch_takes_no_turn_of_its_client_and_its_place_goes_to_the_next() -> None:
    fetches = Fetches(1)
    await fetches.add("a")
    waiting = await fetches.add("b", "b", "c")
    fetches.let_first_end()
    waiting[0].cancel()  # it is not out of the queue when the place becomes free
    await settle()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await fetches.end_first()
    assert fetches.held == ["a", "b", "c"]


async def test_more_than_one_client_may_have_is_refused_and_others_are_not() -> None:
    fetches = Fetches(1, client_entries=2)
    await fetches.add("a", "a")
    with pytest.raises(Problem, match="2 images of this client") as error:
        async with fetches.queue.place("a", deadline=FAR):
            pass
    assert error.value.status == 429
    assert error.value.headers == {"Retry-After": "2"}
    await fetches.add("b")
    await fetches.end_first()
    await fetches.end_first()
    assert fetches.held == ["a", "a", "b"]


async def test_the_time_in_the_queue_counts() -> None:
    fetches = Fetches(1)
    await fetches.add("a")
    with pytest.raises(Problem, match="too many images are being fetched") as error:
        async with fetches.queue.place("b", deadline=asyncio.get_running_loop().time()):
            pass
    assert error.value.status == 429
    await fetches.add("c")
    await fetches.end_first()
    assert fetches.held == ["a", "c"]
