"""Nearest neighbours and their records, as coroutines: searches that differ only in their vector share a call of the
store, and so do the records of several pages. The table of the run answers instead of the store where it can."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from imgsearch.errors import TemporaryError
from imgsearch.stores import Neighbour, Record, VectorStore
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vector, Vectors
from searcher.search import ranking
from searcher.search.batcher import BatchQueue
from searcher.search.filtered import filtered, nearest_of
from searcher.search.metrics import Metrics
from searcher.search.ranking import Level
from searcher.search.threads import Threads
from searcher.table.reader import RunTable

MAX_BATCH = 32
"""Searches in one call of the store. Shared calls gave between the same and 1.33 times as many searches a second."""
MAX_BATCH_NEIGHBOURS = 131_072
"""Neighbours of all searches in one call, about 20 MB."""
CLUSTERED_BATCH = 4
"""Searches of the clusters in one call. They share only the filter, and a larger batch would keep one thread busy while
another one waits."""
MAX_CACHED = 200_000
"""Neighbours in the levels of recent searches that are kept, about 35 MB: the next pages need them again."""
LEVEL_COST = 10
"""A level with its key takes as much memory as so many neighbours more."""
CACHE_SECONDS = 60.0
"""The longest time that a level is kept: `controller restore` may fill a collection while an index serves it."""

Call = tuple[str, int, tuple[int, ...], str, int | None]
"""Of searches that share calls: the collection, Pointer.candidates, the ends of the levels, the digest of the filter,
and Table.compared, if the table answers."""
Kept = tuple[str, int, int, str, int | None, str]
"""Of a level that is kept: as Call, with its end, and the digest of the vector."""


@dataclass(frozen=True, eq=False)
class _QueryVector:
    vector: Vector


class Neighbours:
    """Searches of the store. It lives on one event loop and has nothing to close."""

    def __init__(
        self,
        store: VectorStore,
        *,
        threads: Threads,
        metrics: Metrics,
        max_cached: int = MAX_CACHED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._threads = threads
        self._metrics = metrics
        self._max_cached = max_cached
        self._clock = clock
        self._queues: dict[Call, BatchQueue[_QueryVector, list[list[Neighbour]]]] = {}
        self._record_queues: dict[tuple[str, bool, bool], BatchQueue[tuple[str, ...], list[Record]]] = {}
        self._levels: OrderedDict[Kept, tuple[Level, float]] = OrderedDict()
        """Levels, by search and the digest of its vector, and when they end, in seconds of the clock. In the order in
        which they end."""
        self._cached = 0

    async def level(
        self,
        collection: str,
        vector: Vector,
        *,
        ends: Sequence[int],
        first: int,
        where: Filter | None,
        earlier: Sequence[Neighbour],
        table: RunTable | None = None,
    ) -> Level:
        """The level up to the first of the ranks `ends`. The others are those of the next levels that the page needs: a
        search of the clusters finds them at the same time, and they are kept. `first` is Pointer.candidates, `earlier`
        the ranks of the level before, and `table` the table of the run. Raises what VectorStore.nearest raises."""
        if table is not None and not (table.compared if where is None else table.has_fields(where)):
            table = None
        if where is not None or table is None:
            ends = ends[:1]
        answering = None if table is None else table.compared
        call = (collection, first, tuple(ends), _digest(repr(where).encode()), answering)
        keys = [(*call[:2], end, *call[3:], _digest(vector.tobytes())) for end in ends]
        self._forget()
        if keys[0] in self._levels:
            return self._levels[keys[0]][0]
        levels: list[Level] = []
        for key, end, found in zip(keys, ends, await self._nearest(call, vector, where, table), strict=True):
            levels.append(ranking.level(levels[-1].ranked if levels else earlier, found, end))
            self._keep(key, levels[-1])
        return levels[0]

    async def records(
        self, collection: str, ids: Sequence[str], *, vectors: bool, table: RunTable | None = None
    ) -> list[Record]:
        """The records of `ids`, in their order: from the table, and what it does not have from the store. Raises what
        VectorStore.get raises, and TemporaryError where the store does not have all of them."""
        if not ids:
            return []

        def get(batch: list[tuple[str, ...]]) -> list[list[Record]]:
            wanted = [*dict.fromkeys(id for page in batch for id in page)]
            records = {record.id: record for record in table.get(wanted, vectors=vectors)} if table else {}
            if missing := [id for id in wanted if id not in records]:
                with self._metrics.store_seconds.time():
                    stored = self._store.get(collection, missing, vectors=vectors)
                records |= {record.id: record for record in stored}
            return [[records[id] for id in page if id in records] for page in batch]

        key = (collection, vectors, table is not None)
        queue = self._record_queues.get(key)
        if queue is None:
            queue = self._record_queues[key] = BatchQueue(self._threads.search, get, max_batch=MAX_BATCH)
        try:
            records = await queue.submit(tuple(ids))
        finally:
            if queue.idle:
                self._record_queues.pop(key, None)
        if len(records) < len(ids):
            raise being_filled(collection)
        return records

    async def _nearest(
        self, key: Call, vector: Vector, where: Filter | None, table: RunTable | None
    ) -> Sequence[Sequence[Neighbour]]:
        """The neighbours for each end."""
        collection, first, ends, *_ = key
        end = ends[0]
        effort = partial(ranking.candidates, first=first)

        def of_store(queries: Vectors, k: int, where: Filter | None = None) -> list[list[Neighbour]]:
            with self._metrics.store_seconds.time():
                return self._store.nearest(collection, queries, k=k, where=where)

        def nearest(batch: list[_QueryVector]) -> list[list[list[Neighbour]]]:
            queries = np.stack([query.vector for query in batch])
            if table is not None and where is None:
                # One neighbour more, whose score Level.lowest needs.
                compared = {end + 1: ranking.candidates(end, table.compared) for end in ends}
                return [table.levels(query, compared) for query in queries]
            return [[found] for found in first_level(queries)]

        def first_level(queries: Vectors) -> list[list[Neighbour]]:
            if table is None or where is None:
                return of_store(queries, effort(end), where)
            return filtered(table, queries, where, nearest_of(table, of_store, candidates=first), k=end)

        queue = self._queues.get(key)
        if queue is None:
            max_batch = max(1, min(MAX_BATCH, MAX_BATCH_NEIGHBOURS // effort(end)))
            if table is not None and table.compared:
                max_batch = CLUSTERED_BATCH
            queue = self._queues[key] = BatchQueue(self._threads.search, nearest, max_batch=max_batch)
        try:
            return await queue.submit(_QueryVector(vector))
        finally:
            if queue.idle:
                self._queues.pop(key, None)

    def _keep(self, key: Kept, level: Level) -> None:
        if key not in self._levels:
            self._levels[key] = level, self._clock() + CACHE_SECONDS
            self._cached += LEVEL_COST + len(level.ranked)
        self._forget()

    def _forget(self) -> None:
        """Forgets the levels that have ended, and the oldest ones where there are too many."""
        while self._levels:
            oldest, (level, end) = next(iter(self._levels.items()))
            if self._cached <= self._max_cached and self._clock() < end:
                return
            del self._levels[oldest]
            self._cached -= LEVEL_COST + len(level.ranked)


def being_filled(collection: str) -> TemporaryError:
    """The error where a level has an image that is not stored any more: `controller restore` has dropped it."""
    return TemporaryError(f"collection {collection} is being filled again; try again in a moment")


def _digest(data: bytes) -> str:
    """Of what a client may make as long as it likes."""
    return hashlib.sha256(data).hexdigest()
