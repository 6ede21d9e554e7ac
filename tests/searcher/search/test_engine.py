"""Searches by the URL of an image, with a web that has what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest

from imgsearch.settings import SearchSettings
from searcher.search.admission import Admission
from searcher.search.catalog import Catalog
from searcher.search.clients import Client
from searcher.search.engine import SearchEngine
from searcher.search.errors import Problem, invalid
from searcher.search.live_recall import LiveRecall
from searcher.search.metrics import Metrics
from searcher.search.model import Model
from searcher.search.requests import Search
from searcher.search.tables import Tables
from searcher.search.threads import Threads
from tests.searcher.library import Library, picture, wait_for_event

pytestmark = pytest.mark.anyio

CLIENT = Client("team", charge=lambda queries: None)


@asynccontextmanager
async def running_engine(
    library: Library, fetch: Callable[[str, str], AbstractAsyncContextManager[bytes]]
) -> AsyncIterator[SearchEngine]:
    threads, metrics, limits = Threads(), Metrics(), SearchSettings()
    admission = Admission(limits.max_waiting, metrics=metrics)
    make_model = partial(Model, threads=threads, cache={}, admission=admission, limits=limits, metrics=metrics)
    catalog = Catalog(
        library.store,
        load_encoder=library.load_encoder,
        make_model=make_model,
        tables=Tables(library.tables, threads=threads),
        threads=threads,
        metrics=metrics,
    )
    await catalog.refresh()
    yield SearchEngine(
        catalog,
        library.store,
        threads=threads,
        limits=limits,
        metrics=metrics,
        live_recall=LiveRecall(share=0, threads=threads, metrics=metrics),
        fetch=fetch,
    )
    threads.close()


@asynccontextmanager
async def fetch_fake(url: str, client: str) -> AsyncIterator[bytes]:
    """A picture of the colour that the URL ends in."""
    colour = url.rpartition("/")[2]
    if colour == "nothing":
        raise invalid("image_url", "there is nothing")
    yield picture(colour)


async def colours(engine: SearchEngine, search: Search) -> list[str]:
    return [result["metadata"]["colour"] for result in (await engine.search(search, CLIENT)).results]


async def test_the_image_behind_a_url_is_searched_for(gallery: Library) -> None:
    async with running_engine(gallery, fetch_fake) as engine:
        assert await colours(engine, Search(image_url="https://example.com/blue", k=1)) == ["blue"]
        parts = [{"image_url": "https://example.com/red"}, {"image_url": "https://example.com/green", "weight": 0.9}]
        assert await colours(engine, Search.model_validate({"parts": parts, "k": 1})) == ["yellow"]


async def test_a_url_that_cannot_be_fetched_is_its_own_problem_in_a_batch(gallery: Library) -> None:
    async with running_engine(gallery, fetch_fake) as engine:
        with pytest.raises(Problem, match="image_url: there is nothing"):
            await engine.search(Search(image_url="https://example.com/nothing"), CLIENT)
        searches = [Search(image_url=f"https://example.com/{name}", k=1) for name in ("nothing", "red")]
        failure, result = (await engine.batch(searches, CLIENT)).model_dump(exclude_unset=True)["responses"]
        assert failure["problem"]["errors"] == [{"field": "image_url", "problem": "there is nothing"}]
        assert result["results"][0]["metadata"] == {"colour": "red"}


async def test_the_image_of_a_url_is_held_until_it_is_a_vector(gallery: Library) -> None:
    open_images = 0

    @asynccontextmanager
    async def fetch_counted(url: str, client: str) -> AsyncIterator[bytes]:
        nonlocal open_images
        async with fetch_fake(url, client) as data:
            open_images += 1
            yield data
            open_images -= 1

    gallery.encoder.unblocked.clear()
    async with running_engine(gallery, fetch_counted) as engine:
        search = asyncio.create_task(colours(engine, Search(image_url="https://example.com/red", k=1)))
        await wait_for_event(gallery.encoder.call_started)
        assert open_images == 1
        gallery.encoder.unblocked.set()
        assert await search == ["red"]
    assert open_images == 0
