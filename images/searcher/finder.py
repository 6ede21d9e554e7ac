"""Finds the images of a search: encodes the query, asks the store, and makes the page of results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from imgsearch.settings import SearchSettings
from imgsearch.stores import Hit, VectorStore
from searcher import queries
from searcher.batching import Vector
from searcher.catalog import Catalog, Index
from searcher.metrics import Metrics
from searcher.problems import Problem
from searcher.schemas import Embed, EmbedResponse, Part, Search, SearchResponse, Took
from searcher.threads import Threads


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
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._threads = threads
        self._limits = limits
        self._metrics = metrics

    async def search(self, search: Search) -> SearchResponse:
        """Raises Problem, BadImage or ImgsearchError where there is no answer."""
        queries.check(search, self._limits)
        return await self._catalog.using(search.index, partial(self._answer, search))

    async def embed(self, embed: Embed) -> EmbedResponse:
        """The vectors of texts or images, in their order."""
        queries.check_embed(embed, self._limits)
        model = self._catalog.pick(embed.index).model
        encoding = [model.text(text) for text in embed.text or []] + [model.image(data) for data in embed.image or []]
        vectors = await asyncio.gather(*encoding)
        return EmbedResponse.model_construct(
            model=model.name, dim=model.dim, vectors=[vector.tolist() for vector in vectors]
        )

    async def _answer(self, search: Search, index: Index) -> SearchResponse:
        watch = _Stopwatch()
        vector = await self._vector(search.terms(), index, watch)
        with watch.store():
            hits = await self._threads.store(self._nearest, search, index, vector)
        results, next_offset = queries.page(hits, search, pointer=index.pointer)
        return SearchResponse.model_construct(
            results=results,
            next_offset=next_offset,
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
            vectors = await asyncio.gather(*(self._term(term, index, stored) for term in terms))
        return queries.combine(vectors, [term.weight for term in terms])

    async def _term(self, term: Part, index: Index, stored: dict[str, Vector]) -> Vector:
        if term.text:
            return await index.model.text(term.text)
        if term.image:
            return await index.model.image(term.image)
        if term.id:
            if term.id not in stored:
                raise Problem(404, f'index "{index.pointer.index}" has no image with the id {term.id!r}')
            return stored[term.id]
        return queries.direction(term.embedding or [], index.pointer.dim)

    def _stored(self, ids: Sequence[str], index: Index) -> dict[str, Vector]:
        with self._metrics.store_seconds.time():
            records = self._store.get(index.pointer.collection, list(dict.fromkeys(ids)), vectors=True)
        return {record.id: record.vector for record in records if record.vector is not None}

    def _nearest(self, search: Search, index: Index, vector: Vector) -> list[Hit]:
        with self._metrics.store_seconds.time():
            (hits,) = self._store.search(
                index.pointer.collection,
                vector[None],
                k=search.offset + search.k + 1,  # one more says whether there is a next page
                where=search.filter,
                vectors="embedding" in search.include,
            )
        return hits


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
