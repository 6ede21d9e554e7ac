"""Finds the images of a search: encodes the query, asks the store, and makes the page of results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from time import perf_counter

from imgsearch.settings import SearchSettings
from imgsearch.stores import Hit, VectorStore
from searcher.search import vectors as queries
from searcher.search.batcher import Neighbours, Vector, together
from searcher.search.catalog import Catalog, Index
from searcher.search.cursors import Cursor
from searcher.search.errors import Problem, of_error
from searcher.search.metrics import Metrics
from searcher.search.requests import BatchResponse, Embed, EmbedResponse, Failure, Part, Search, SearchResponse, Took
from searcher.search.threads import Threads
from searcher.search.vectors import Group

logger = logging.getLogger(__name__)


class Finder:
    """Answers searches. Each sees one index from its start to its end, whatever is published meanwhile."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        *,
        threads: Threads,
        limits: SearchSettings,
        metrics: Metrics,
        fetch: Callable[[str], AbstractAsyncContextManager[bytes]],
    ) -> None:
        """`fetch` holds the bytes behind a URL or raises Problem; whatever guards it is its own."""
        self._catalog = catalog
        self._store = store
        self._threads = threads
        self._limits = limits
        self._metrics = metrics
        self._fetch = fetch
        self._neighbours = Neighbours(store, threads=threads, metrics=metrics)

    async def search(self, search: Search) -> SearchResponse:
        """Raises Problem, BadImage or ImgsearchError where there is no answer."""
        queries.check(search, self._limits)
        place = Cursor.of(search)
        queries.check_place(place, self._limits)
        return await self._catalog.using(place.index, partial(self._answer, search, place), run=place.run)

    async def batch(self, searches: Sequence[Search | Problem]) -> BatchResponse:
        """The answers in the order of the searches; one that has none has its problem."""
        # At once, so that texts enter the same call of the model.
        responses = await asyncio.gather(*map(self._attempt, searches))
        return BatchResponse.model_construct(responses=responses)

    async def embed(self, embed: Embed) -> EmbedResponse:
        """The vectors of texts or images, in their order."""
        queries.check_embed(embed, self._limits)
        model = self._catalog.pick(embed.index).model
        vectors = await model.vectors(embed.text or embed.image or [])
        return EmbedResponse.model_construct(
            model=model.name, dim=model.dim, vectors=[vector.tolist() for vector in vectors]
        )

    async def _attempt(self, search: Search | Problem) -> SearchResponse | Failure:
        try:
            if isinstance(search, Problem):
                raise search
            return await self.search(search)
        except Exception as error:  # as of a request of its own
            problem = of_error(error)
            if problem.status == 500:
                logger.error("a search of a batch: %s", problem.detail, exc_info=error)
            return Failure.model_construct(problem=problem.document())

    async def _answer(self, search: Search, place: Cursor, index: Index) -> SearchResponse:
        watch = _Stopwatch()
        vector = await self._vector(search.terms(), index, watch)
        with watch.store():
            groups = await self._nearest(search, place, index, vector)
        results, after = queries.page(groups, search, offset=place.offset, pointer=index.pointer)
        return SearchResponse.model_construct(
            results=results,
            next_offset=after,
            next_cursor=None if after is None else place.following(index.pointer, after),
            index=index.pointer.index,
            run=index.pointer.run,
            model=index.pointer.model,
            took_ms=watch.took(),
        )

    async def _vector(self, terms: Sequence[Part], index: Index, watch: _Stopwatch) -> Vector:
        stored: dict[str, Vector] = {}
        if ids := [term.id for term in terms if term.id]:
            with watch.store():
                stored = await self._threads.store(self._stored, ids, index)
        with watch.encode():
            vectors = await together([self._term(term, index, stored) for term in terms])
        return queries.combine(vectors, [term.weight for term in terms])

    async def _term(self, term: Part, index: Index, stored: dict[str, Vector]) -> Vector:
        if given := term.text or term.image:
            return (await index.model.vectors([given]))[0]
        if term.image_url:
            async with self._fetch(term.image_url) as data:
                return (await index.model.vectors([data]))[0]
        if term.id:
            if term.id not in stored:
                raise Problem(404, f'index "{index.pointer.index}" has no image with the id {term.id!r}')
            return stored[term.id]
        return queries.direction(term.embedding or [], index.pointer.dim)

    def _stored(self, ids: Sequence[str], index: Index) -> dict[str, Vector]:
        with self._metrics.store_seconds.time():
            records = self._store.get(index.pointer.collection, list(dict.fromkeys(ids)), vectors=True)
        return {record.id: record.vector for record in records if record.vector is not None}

    async def _nearest(self, search: Search, place: Cursor, index: Index, vector: Vector) -> list[Group]:
        """What there is up to the page's end, and one more where there is a next page."""
        ranked: list[Hit] = []
        groups: list[Group] = []
        for pool in queries.pools(place.pool, self._limits):
            hits = await self._neighbours(
                index.pointer.collection,
                vector,
                k=pool,
                where=search.filter,
                vectors="embedding" in search.include or search.dedupe is not None,
            )
            ranked = queries.ranked(ranked, hits)
            if search.dedupe is None:
                groups = queries.grouped(ranked, search)
            else:  # each with each
                groups = await self._threads.store(queries.grouped, ranked, search)
            if queries.enough(groups, hits, search, upto=place.offset + search.k, pool=pool):
                break
        return groups


class _Stopwatch:
    """Seconds of one search, by where they went."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._encode = 0.0
        self._store = 0.0

    @contextmanager
    def encode(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self._encode += perf_counter() - start

    @contextmanager
    def store(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self._store += perf_counter() - start

    def took(self) -> Took:
        total = perf_counter() - self._start
        return Took.model_construct(
            encode=_milliseconds(self._encode), store=_milliseconds(self._store), total=_milliseconds(total)
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
