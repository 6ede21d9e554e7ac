"""Admission control before the models: a request is admitted, or refused with 429 at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from searcher.search.errors import Problem
from searcher.search.metrics import Metrics

MAX_RETRY_SECONDS = 60
"""The upper bound of Retry-After."""
SMOOTHING = 0.2
"""The weight of the last call in the moving average of the seconds that a query takes."""


class Admission:
    """Limits how many queries wait for the models, or are in them, of all indexes together.

    A request over the limit is refused at once: a response that arrives after its client has given up is of no use,
    and delays the others."""

    def __init__(self, limit: int, *, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._admitted = 0
        self._query_seconds = 0.0

    @contextmanager
    def admit(self, queries: int) -> Iterator[None]:
        """Admits all queries of a request for the duration of the context, or none of them.

        Raises Problem 429, whose Retry-After is the time that the waiting queries will take. While no query waits, a
        request of any size is admitted: otherwise a large one would be refused forever."""
        if self._admitted and self._admitted + queries > self._limit:
            seconds = min(max(1, math.ceil(self._admitted * self._query_seconds)), MAX_RETRY_SECONDS)
            raise Problem(
                429,
                "too many searches wait for the model; try again in a moment",
                headers={"Retry-After": str(seconds)},
            )
        self._add(queries)
        try:
            yield
        finally:
            self._add(-queries)

    def observe(self, queries: int, seconds: float) -> None:
        """Records how long a call of a model with this number of queries took."""
        latest = seconds / queries
        self._query_seconds += SMOOTHING * (latest - self._query_seconds) if self._query_seconds else latest

    def _add(self, queries: int) -> None:
        self._admitted += queries
        self._metrics.queue.inc(queries)
