"""Live recall: a share of the searches is answered exactly as well, by the table of the run, and compared."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from imgsearch.stores import Neighbour
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vector
from searcher.recall.exact_search import recall
from searcher.search.metrics import Metrics
from searcher.search.threads import Threads
from searcher.table.reader import RunTable

log = logging.getLogger(__name__)

RECALL_KS = (10, 100)
TIME_SHARE = 0.02
"""The most of the time in which one process checks searches. In a large index, a check takes all cores for a second."""


class LiveRecall:
    """Checks searches in the background, one at a time, and counts what they found of the nearest images.

    All methods are for the event loop."""

    def __init__(
        self,
        *,
        share: float,
        threads: Threads,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` of the searches are checked, fewer where that takes more than TIME_SHARE."""
        self._share = share
        self._threads = threads
        self._metrics = metrics
        self._chance = chance
        self._clock = clock
        self._next = -math.inf
        """No check starts before, in seconds of the clock."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_checking(self) -> bool:
        return self._task is not None

    def offer(
        self, index: str, table: RunTable | None, vector: Vector, where: Filter | None, ranked: Sequence[Neighbour]
    ) -> None:
        """Checks this search, if it is its turn. Returns at once. `ranked`: its first results, more than
        max(RECALL_KS) unless there are no more. Searches that have no table with their fields are never checked."""
        if self.is_checking or self._clock() < self._next or self._chance() >= self._share:
            return
        if table is None or (where is not None and not table.has_fields(where)):
            return
        self._task = asyncio.create_task(self._check(index, table, vector, where, ranked))

    def close(self) -> None:
        """Drops the check. Its thread ends by itself."""
        if self._task is not None:
            self._task.cancel()

    async def _check(
        self, index: str, table: RunTable, vector: Vector, where: Filter | None, ranked: Sequence[Neighbour]
    ) -> None:
        start = self._clock()
        try:
            found = await self._threads.checks(found_of, table, vector, where, ranked)
            for k, (matches, number) in found.items():
                self._metrics.checked_neighbours.labels(index, str(k)).inc(number)
                self._metrics.found_neighbours.labels(index, str(k)).inc(matches)
        except Exception as error:  # a check fails no search
            log.warning("the recall of a search of index %s was not measured: %s", index, error, exc_info=error)
        finally:
            end = self._clock()
            self._next = end + (end - start) / TIME_SHARE
            self._task = None


def found_of(
    table: RunTable, vector: Vector, where: Filter | None, ranked: Sequence[Neighbour]
) -> dict[int, tuple[int, int]]:
    """For each k: how many of the k nearest images are among the first k of `ranked`, and k; or the number of images
    that pass the filter, if there are fewer. No entry where none passes it.

    A result as near as the last of the k nearest is one of them (exact_search.recall)."""
    rows = np.arange(table.rows) if where is None else np.flatnonzero(table.matching(where))
    if not rows.size:
        return {}
    queries = vector[np.newaxis]
    best = np.array([neighbour.score for neighbour in table.exact(queries, rows, k=max(RECALL_KS))[0]], np.float32)
    # Scored again, because the scores of the store are rounded in another way than those of the table.
    known = sorted(row for row in table.rows_of([neighbour.id for neighbour in ranked]) if row is not None)
    exact = {n.id: n.score for n in table.exact(queries, np.array(known, np.int64), k=len(known))[0]}
    scores = [exact.get(neighbour.id, -np.inf) for neighbour in ranked]
    return {k: (round(recall(scores, best, count) * count), count) for k in RECALL_KS for count in (min(k, len(best)),)}
