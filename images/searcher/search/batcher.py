"""A model and a store that many requests share: what comes while they are busy waits, and enters the next call
together."""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from imgsearch.encoder import Encoder, Pixels
from imgsearch.pictures import decode
from imgsearch.settings import SearchSettings
from imgsearch.stores import Filter, Hit, VectorStore
from searcher.search.errors import Problem
from searcher.search.metrics import Metrics
from searcher.search.threads import Pool, Threads

Query = TypeVar("Query")
Answer = TypeVar("Answer")

Vector = NDArray[np.float32]
"""(dim,), of length 1."""

STORE_ROWS = 32
"""The most searches in one call of the store. Shared calls gave between as many searches a second and a third more."""
LONGEST_RETRY = 60
"""Seconds that Retry-After says at most."""
NEWEST = 0.2
"""The weight of the last call in what a query is said to take."""


class Line(Generic[Query, Answer]):
    """Calls of a function of many, for callers who have one query each. Those that come while it is busy share the
    next call, and equal queries share an answer. Lives on one event loop; has nothing to close."""

    def __init__(self, pool: Pool, call: Callable[[list[Query]], Sequence[Answer]], *, most: int) -> None:
        """`call` gives the answers in the order of the queries, of which it gets up to `most`. It runs in the pool,
        and takes turns with everything else that waits for it."""
        self._pool = pool
        self._call = call
        self._most = most
        self._waiting: deque[Query] = deque()
        self._askers: dict[Query, list[asyncio.Future[Answer]]] = {}
        """Of what waits or is in a call."""
        self._servers: set[asyncio.Task[None]] = set()
        """Held, since the event loop itself holds tasks only weakly."""
        self._serving = 0
        """Those of them that look for queries once more before they end."""
        self._busy = 0

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._askers

    async def ask(self, query: Query) -> Answer:
        """The answer; what the call raises, everyone gets whose query is in it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if query in self._askers:
            self._askers[query].append(future)
        else:
            self._askers[query] = [future]
            self._waiting.append(query)
            if self._serving < self._pool.size:
                self._serving += 1
                # Of no request's context: a call is of many, and its log lines are of none.
                task = asyncio.create_task(self._serve(), context=Context())
                self._servers.add(task)
                task.add_done_callback(self._servers.discard)
        return await future

    async def _serve(self) -> None:
        try:
            while self._waiting:
                # Who is in the call is settled when its turn comes: until then, more may come.
                async with self._pool.turn:
                    if queries := self._next():
                        self._busy += 1
                        await self._answer(queries)
                        self._busy -= 1
        finally:
            # In the same step as the last look: a query that comes after it gets a server of its own.
            self._serving -= 1

    def _next(self) -> list[Query]:
        """Those who have waited longest, as many as leave a share for each call that could run beside this one."""
        share = math.ceil(len(self._waiting) / (self._pool.size - self._busy))
        queries: list[Query] = []
        while self._waiting and len(queries) < min(share, self._most):
            query = self._waiting.popleft()
            if all(future.cancelled() for future in self._askers[query]):
                del self._askers[query]  # whoever asked is gone
            else:
                queries.append(query)
        return queries

    async def _answer(self, queries: list[Query]) -> None:
        try:
            answers = dict(zip(queries, await self._pool(self._call, queries), strict=True))
        except Exception as error:  # whatever it was, those who wait must hear of it
            for query in queries:
                for future in self._left(query):
                    future.set_exception(error)
        else:
            for query, answer in answers.items():
                for future in self._left(query):
                    future.set_result(answer)

    def _left(self, query: Query) -> list[asyncio.Future[Answer]]:
        return [future for future in self._askers.pop(query) if not future.cancelled()]


class Places:
    """The places of queries in front of the models, of all indexes together. Who finds none is sent away at once:
    an answer that comes when its client has given up is of no use, and keeps the others waiting."""

    def __init__(self, most: int, *, metrics: Metrics) -> None:
        self._most = most
        self._metrics = metrics
        self._taken = 0
        self._seconds = 0.0
        """Of a query, lately."""

    @contextmanager
    def kept(self, queries: int) -> Iterator[None]:
        """Keeps a place for each query of a request, or for none: raises Problem 429 then, which says when those who
        wait now will have been served. Where nobody waits there is room for any request, so that none is refused for
        ever."""
        if self._taken and self._taken + queries > self._most:
            seconds = min(max(1, math.ceil(self._taken * self._seconds)), LONGEST_RETRY)
            raise Problem(
                429,
                "too many searches wait for the model; try again in a moment",
                headers={"Retry-After": str(seconds)},
            )
        self._take(queries)
        try:
            yield
        finally:
            self._take(-queries)

    def _take(self, queries: int) -> None:
        self._taken += queries
        self._metrics.queue.inc(queries)

    def served(self, queries: int, seconds: float) -> None:
        """A call of a model with so many queries has taken so long."""
        each = seconds / queries
        self._seconds += NEWEST * (each - self._seconds) if self._seconds else each


class VectorCache:
    """Vectors of text queries by (fingerprint of the model, text); the least recently used goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    def get(self, fingerprint: str, text: str) -> Vector | None:
        vector = self._vectors.get((fingerprint, text))
        if vector is not None:
            self._vectors.move_to_end((fingerprint, text))
        return vector

    def put(self, fingerprint: str, text: str, vector: Vector) -> None:
        self._vectors[fingerprint, text] = vector
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


async def together(answers: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """In their order; what one raises, after which nobody waits for the others."""
    if len(answers) == 1:  # as most are: no task for it
        return [await answers[0]]
    tasks = [asyncio.create_task(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


@dataclass(frozen=True, eq=False)
class _Picture:
    pixels: Pixels


class Model:
    """A loaded encoder as coroutines. Texts and images wait in a line each, and these take turns. Lives on one event
    loop; has nothing to close."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        threads: Threads,
        cache: VectorCache,
        places: Places,
        limits: SearchSettings,
        metrics: Metrics,
    ) -> None:
        self.name = encoder.model
        self.fingerprint = encoder.fingerprint
        self.dim = encoder.dim
        self._encoder = encoder
        self._threads = threads
        self._cache = cache
        self._places = places
        self._limits = limits
        self._metrics = metrics
        self._texts = Line(threads.model, self._encode_texts, most=limits.batch_texts)
        self._images = Line(threads.model, self._encode_images, most=limits.batch_images)

    async def vectors(self, items: Sequence[str | bytes]) -> list[Vector]:
        """The vectors of texts and of encoded images, in their order. Raises what the encoder raises, BadImage where
        one is none, and Problem 429 where too many wait: then nothing of it is encoded."""
        known = [self._known(item) for item in items]
        unknown = [item for item, vector in zip(items, known, strict=True) if vector is None]
        if unknown:
            with self._places.kept(len(unknown)):  # before they are decoded: that takes memory and time, too
                found = iter(await together([self._encoded(item) for item in unknown]))
            known = [next(found) if vector is None else vector for vector in known]
        return [vector for vector in known if vector is not None]

    def _known(self, item: str | bytes) -> Vector | None:
        if isinstance(item, bytes):
            return None
        vector = self._cache.get(self.fingerprint, item)
        (self._metrics.cache_misses if vector is None else self._metrics.cache_hits).inc()
        return vector

    async def _encoded(self, item: str | bytes) -> Vector:
        if isinstance(item, bytes):
            return await self._images.ask(_Picture(await self._threads.decode(self._pixels, item)))
        vector = await self._texts.ask(item)
        self._cache.put(self.fingerprint, item, vector)
        return vector

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        self._metrics.batch_texts.observe(len(texts))
        with self._timed("text", len(texts)):
            vectors = self._encoder.encode_texts(texts)
        return [vector.copy() for vector in vectors]  # a view would keep the whole batch in the cache

    def _encode_images(self, pictures: list[_Picture]) -> list[Vector]:
        self._metrics.batch_images.observe(len(pictures))
        with self._timed("image", len(pictures)):
            return list(self._encoder.encode_images([picture.pixels for picture in pictures]))

    @contextmanager
    def _timed(self, kind: str, queries: int) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds = perf_counter() - start
        self._metrics.encode_seconds.labels(kind).observe(seconds)
        self._places.served(queries, seconds)

    def _pixels(self, data: bytes) -> Pixels:
        picture = decode(data, max_pixels=self._limits.max_pixels, target=self._encoder.size)
        return self._encoder.prepare(picture.image)


@dataclass(frozen=True, eq=False)
class _Row:
    vector: Vector


class Neighbours:
    """Searches of the store as coroutines: those that differ in nothing but their vector share a call."""

    def __init__(self, store: VectorStore, *, threads: Threads, metrics: Metrics) -> None:
        self._store = store
        self._threads = threads
        self._metrics = metrics
        self._lines: dict[tuple[str, int, str, bool], Line[_Row, list[Hit]]] = {}

    async def __call__(
        self, collection: str, vector: Vector, *, k: int, where: Filter | None, vectors: bool
    ) -> list[Hit]:
        """The hits of VectorStore.search for that one vector; raises what it raises."""

        def search(rows: list[_Row]) -> list[list[Hit]]:
            queries = np.stack([row.vector for row in rows])
            with self._metrics.store_seconds.time():
                return self._store.search(collection, queries, k=k, where=where, vectors=vectors)

        kind = (collection, k, json.dumps(where, sort_keys=True), vectors)
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = Line(self._threads.search, search, most=STORE_ROWS)
        try:
            return await line.ask(_Row(vector))
        finally:
            if line.idle:
                self._lines.pop(kind, None)
