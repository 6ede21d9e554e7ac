"""Searches of the store share calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from imgsearch.stores import Hit
from imgsearch.vectors import Vectors
from tests.fakes import InMemoryStore
from tests.searcher.library import Library, search_colours

pytestmark = pytest.mark.anyio


class CountingStore(InMemoryStore):
    """Notes the searches of each call, and how many results it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []

    def search(self, collection: str, queries: Vectors, *, k: int, **options: Any) -> list[list[Hit]]:
        self.calls.append((len(queries), k))
        return super().search(collection, queries, k=k, **options)


async def test_simultaneous_searches_share_a_call_of_the_store(library: Library) -> None:
    library.store = store = CountingStore()
    library.publish()
    async with library.serving() as client:
        colours = ["red", "green", "blue", "yellow"]
        await asyncio.gather(
            *(search_colours(client, text=colour) for colour in colours)
        )  # now their vectors are known
        store.calls.clear()
        results = await asyncio.gather(*(search_colours(client, text=colour, k=1) for colour in colours))
        assert results == [[colour] for colour in colours]
        assert store.calls == [(2, 2), (2, 2)]
        store.calls.clear()
        await asyncio.gather(*(search_colours(client, text="red", k=k) for k in (1, 2)))
        await asyncio.gather(
            search_colours(client, text="red", filter={"colour": "red"}),
            search_colours(client, text="red", filter={"colour": "blue"}),
        )
        assert sorted(store.calls) == [(1, 2), (1, 3), (1, 11), (1, 11)]
