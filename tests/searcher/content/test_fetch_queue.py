"""Clients share the places for fetches."""

from __future__ import annotations

import asyncio

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
        self._ends.pop(0).set()
        await settle()

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
