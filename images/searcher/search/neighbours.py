"""Nearest neighbours and their records, as coroutines: searches that differ only in their vector share a call of the
store, and so do the records of several pages. A table answers instead of the store where it can."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from imgsearch.stores import Filter, Neighbour, Pointer, Record, VectorStore
from imgsearch.vectors import Vector, Vectors
from searcher.search.batcher import BatchQueue
from searcher.search.filtered import filtered
from searcher.search.metrics import Metrics
from searcher.search.ranking import candidates
from searcher.search.threads import Threads
from searcher.table.reader import RunTable

MAX_BATCH = 32
"""Searches in one call of the store. Shared calls gave between the same and 1.33 times as many searches a second."""
MAX_CACHED = 200_000
"""Neighbours of recent searches that are kept, about 35 MB: the next pages of a search need them again."""

Key = tuple[str, int, int, str, bool]
"""Collection, its candidates, level and filter of a search, and whether the table answers it."""


@dataclass(frozen=True, eq=False)
class _QueryVector:
    vector: Vector


class Neighbours:
    """Searches of the store. It lives on one event loop and has nothing to close."""

    def __init__(self, store: VectorStore, *, threads: Threads, metrics: Metrics, max_cached: int = MAX_CACHED) -> None:
        self._store = store
        self._threads = threads
        self._metrics = metrics
        self._max_cached = max_cached
        self._queues: dict[Key, BatchQueue[_QueryVector, list[Neighbour]]] = {}
        self._record_queues: dict[tuple[str, bool, bool], BatchQueue[tuple[str, ...], list[Record]]] = {}
        self._cache: OrderedDict[tuple[Key, bytes], list[Neighbour]] = OrderedDict()
        """The most recent last. A collection does not change while an index serves it."""
        self._cached = 0

    async def __call__(
        self, pointer: Pointer, table: RunTable | None, vector: Vector, *, level: int, where: Filter | None
    ) -> Sequence[Neighbour]:
        """The nearest neighbours of a vector in a run, best first: at least `level` of them, if the run has so many.
        Raises what VectorStore.nearest raises."""
        by_table = table is not None and where is not None and table.has_fields(where)
        key = (pointer.collection, pointer.candidates, level, json.dumps(where, sort_keys=True), by_table)
        search = (key, vector.tobytes())
        if search in self._cache:
            self._cache.move_to_end(search)
            return self._cache[search]

        def nearest(batch: list[_QueryVector]) -> list[list[Neighbour]]:
            queries = np.stack([query.vector for query in batch])
            if table is not None and where is not None and by_table:
                return filtered(table, queries, where, k=level, nearest=partial(self._nearest, pointer))
            return self._nearest(pointer, queries, level, where)

        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = BatchQueue(self._threads.search, nearest, max_batch=MAX_BATCH)
        try:
            neighbours = await queue.submit(_QueryVector(vector))
        finally:
            if queue.idle:
                self._queues.pop(key, None)
        self._keep(search, neighbours)
        return neighbours

    async def records(
        self, pointer: Pointer, table: RunTable | None, ids: Sequence[str], *, vectors: bool
    ) -> list[Record]:
        """The records of a run among `ids`, in the order of `ids`. Raises what VectorStore.get raises."""
        if not ids:
            return []

        def get(batch: list[tuple[str, ...]]) -> list[list[Record]]:
            wanted = [*dict.fromkeys(id for page in batch for id in page)]
            if table is not None:
                records = table.get(wanted, vectors=vectors)
            else:
                with self._metrics.store_seconds.time():
                    records = self._store.get(pointer.collection, wanted, vectors=vectors)
            stored = {record.id: record for record in records}
            return [[stored[id] for id in page if id in stored] for page in batch]

        key = (pointer.collection, vectors, table is not None)
        queue = self._record_queues.get(key)
        if queue is None:
            queue = self._record_queues[key] = BatchQueue(self._threads.search, get, max_batch=MAX_BATCH)
        try:
            return await queue.submit(tuple(ids))
        finally:
            if queue.idle:
                self._record_queues.pop(key, None)

    def _nearest(
        self, pointer: Pointer, queries: Vectors, number: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        k = candidates(number, pointer.candidates)
        with self._metrics.store_seconds.time():
            return self._store.nearest(pointer.collection, queries, k=k, where=where)

    def _keep(self, search: tuple[Key, bytes], neighbours: list[Neighbour]) -> None:
        if search not in self._cache:
            self._cache[search] = neighbours
            self._cached += 1 + len(neighbours)
        while self._cached > self._max_cached:
            self._cached -= 1 + len(self._cache.popitem(last=False)[1])
