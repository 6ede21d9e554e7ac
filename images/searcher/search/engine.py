"""The search engine: encodes the query, searches the store, and makes the page of results."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from time import perf_counter

from imgsearch.settings import SearchSettings
from imgsearch.stores import Neighbour, VectorStore
from imgsearch.vectors import Vector
from searcher.search import ranking
from searcher.search.catalog import Catalog, ServedIndex
from searcher.search.clients import Client
from searcher.search.cursors import Cursor
from searcher.search.errors import Problem, problem_of_error
from searcher.search.limits import check_cursor, check_embed, check_search, check_texts, check_urls
from searcher.search.live_recall import LiveRecall
from searcher.search.metrics import Metrics
from searcher.search.neighbours import Neighbours, being_filled
from searcher.search.ranking import Group
from searcher.search.requests import Embed, Search, SingleQuery, Term
from searcher.search.responses import BatchResponse, EmbedResponse, Failure, SearchResponse, Took
from searcher.search.threads import Threads, gather
from searcher.search.vectors import unit_vector, weighted_sum

log = logging.getLogger(__name__)


class SearchEngine:
    """Runs searches. A search uses one index from start to end, even if another run is published meanwhile."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        *,
        threads: Threads,
        limits: SearchSettings,
        metrics: Metrics,
        live_recall: LiveRecall,
        fetch: Callable[[str, str], AbstractAsyncContextManager[bytes]],
    ) -> None:
        """`fetch` downloads a URL for the client of this name and holds its bytes, or raises Problem. It also checks
        the URL."""
        self._catalog = catalog
        self._store = store
        self._threads = threads
        self._limits = limits
        self._metrics = metrics
        self._live_recall = live_recall
        self._fetch = fetch
        self._neighbours = Neighbours(store, threads=threads, metrics=metrics)

    async def search(self, search: Search, client: Client) -> SearchResponse:
        """One page of results. Raises Problem, BadImage or ImgsearchError."""
        self.charge(search.queries(), client)
        return await self._search(search, client)

    async def batch(self, searches: Sequence[Search | Problem], client: Client) -> BatchResponse:
        """The responses in the order of the searches. A search that fails has its problem there. Raises Problem where
        the searches together exceed a limit."""
        valid = [search for search in searches if isinstance(search, Search)]
        self.charge([query for search in valid for query in search.queries()], client)
        # All at once, so that their texts enter the same call of the model.
        responses = await asyncio.gather(*(self._attempt(search, client) for search in searches))
        return BatchResponse.model_construct(responses=responses)

    async def embed(self, embed: Embed, client: Client) -> EmbedResponse:
        """The vectors of texts or images, in their order."""
        check_embed(embed, self._limits)
        items = embed.text or embed.image or []
        client.charge(len(items))
        model = self._catalog.pick(embed.index).model
        vectors = await model.vectors(items)
        return EmbedResponse.model_construct(
            model=model.name, dim=model.dim, vectors=[vector.tolist() for vector in vectors]
        )

    async def vectors(self, terms: Sequence[Term], client: Client, *, index: str | None) -> list[list[float]]:
        """The vectors of texts, images and images at URLs, in their order. `charge` has to come before it."""
        check_texts([term.text for term in terms if term.text], self._limits)
        served = self._catalog.pick(index)
        vectors = await gather([self._term_vector(term, served, client, {}) for term in terms])
        return [vector.tolist() for vector in vectors]

    def charge(self, queries: Sequence[SingleQuery], client: Client) -> None:
        """Counts all queries of a request against the limits of its client. Raises Problem where they exceed one."""
        check_urls(queries, self._limits)
        if queries:
            client.charge(len(queries))

    async def _attempt(self, search: Search | Problem, client: Client) -> SearchResponse | Failure:
        try:
            if isinstance(search, Problem):
                raise search
            return await self._search(search, client)
        except Exception as error:  # it fails this search, not the others of the batch
            problem = problem_of_error(error)
            if problem.status == 500:
                log.error("a search of a batch failed: %s", problem.detail, exc_info=error)
            return Failure.model_construct(problem=problem.document())

    async def _search(self, search: Search, client: Client) -> SearchResponse:
        check_search(search, self._limits)
        cursor = Cursor.of(search)
        check_cursor(cursor, self._limits)
        run = partial(self._search_index, search, cursor, client)
        return await self._catalog.using(cursor.index, run, run=cursor.run)

    async def _search_index(self, search: Search, cursor: Cursor, client: Client, index: ServedIndex) -> SearchResponse:
        watch = _Stopwatch()
        vector = await self._query_vector(search.terms(), index, client, watch)
        with watch.store():
            groups, has_more = await self._groups(search, cursor, index, vector)
            records = await self._neighbours.records(
                index.pointer.collection,
                [group.best.id for group in groups],
                vectors="embedding" in search.include,
                table=index.table,
            )
        next_offset = cursor.offset + search.k if has_more else None
        return SearchResponse.model_construct(
            results=ranking.page(groups, records, search, pointer=index.pointer),
            next_offset=next_offset,
            next_cursor=None if next_offset is None else cursor.next(index.pointer, next_offset),
            index=index.pointer.index,
            run=index.pointer.run,
            model=index.pointer.model,
            took_ms=watch.times(),
        )

    async def _query_vector(
        self, terms: Sequence[Term], index: ServedIndex, client: Client, watch: _Stopwatch
    ) -> Vector:
        stored: dict[str, Vector] = {}
        if ids := [term.id for term in terms if term.id]:
            with watch.store():
                stored = await self._threads.store(self._stored_vectors, ids, index)
        with watch.encode():
            vectors = await gather([self._term_vector(term, index, client, stored) for term in terms])
        return weighted_sum(vectors, [term.weight for term in terms])

    async def _term_vector(
        self, term: Term, index: ServedIndex, client: Client, stored: Mapping[str, Vector]
    ) -> Vector:
        if item := term.text or term.image:
            return (await index.model.vectors([item]))[0]
        if term.image_url:
            async with self._fetch(term.image_url, client.name) as data:
                return (await index.model.vectors([data]))[0]
        if term.id:
            if term.id not in stored:
                raise Problem(404, f'index "{index.pointer.index}" has no image with the id {term.id!r}')
            return stored[term.id]
        return unit_vector(term.embedding or [], index.pointer.dim)

    def _stored_vectors(self, ids: Sequence[str], index: ServedIndex) -> dict[str, Vector]:
        """By id: from the table, and what it does not have from the store."""
        vectors = index.table.vectors(ids) if index.table else {}
        if missing := [id for id in dict.fromkeys(ids) if id not in vectors]:
            with self._metrics.store_seconds.time():
                records = self._store.get(index.pointer.collection, missing, vectors=True)
            vectors |= {record.id: record.vector for record in records if record.vector is not None}
        return vectors

    async def _groups(
        self, search: Search, cursor: Cursor, index: ServedIndex, vector: Vector
    ) -> tuple[list[Group], bool]:
        """The groups of the page, and whether there are more behind it."""
        page = slice(cursor.offset, cursor.offset + search.k)
        collection, vectors, where = index.pointer.collection, dict[str, Vector](), search.where
        ranked: Sequence[Neighbour] = []
        groups: list[Group] = []
        has_more = False
        ends = [*ranking.levels(self._limits)]
        enough = bisect_right(ends, page.stop) + 1
        for number in range(len(ends)):
            level = await self._neighbours.level(
                collection,
                vector,
                ends=ends[number : max(enough, number + 1)],
                first=index.pointer.candidates,
                where=where,
                earlier=ranked,
                table=index.table,
            )
            if not ranked:
                self._live_recall.offer(index.pointer.index, index.table, vector, where, level.ranked)
            ranked = level.ranked
            shown = ranking.reaching(ranked, search.min_score)
            if search.dedupe is None:
                groups, has_more = [Group(neighbour) for neighbour in shown[page]], len(shown) > page.stop
            else:  # compares all pairs, which takes time
                new = [neighbour.id for neighbour in shown if neighbour.id not in vectors]
                vectors |= await self._threads.store(self._stored_vectors, new, index)
                if any(neighbour.id not in vectors for neighbour in shown):
                    raise being_filled(collection)
                folded = await self._threads.store(ranking.folded, shown, vectors, search.dedupe)
                groups, has_more = folded[page], len(folded) > page.stop
            if has_more or level.is_last or (search.min_score is not None and level.lowest < search.min_score):
                break
        return groups, has_more


class _Stopwatch:
    """Measures one search: the seconds in the model, in the store, and in total."""

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

    def times(self) -> Took:
        total = perf_counter() - self._start
        return Took.model_construct(
            encode=_milliseconds(self._encode), store=_milliseconds(self._store), total=_milliseconds(total)
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
