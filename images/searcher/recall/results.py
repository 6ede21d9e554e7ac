"""The results of many queries, as a search gets them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from imgsearch.stage import check_stopping
from imgsearch.stores import Neighbour
from imgsearch.vectors import Vectors

MAX_BATCH = 64
"""Queries in one call of `nearest`."""
Nearest = Callable[[Vectors, int], list[list[Neighbour]]]
"""The nearest images of each row of the queries, at least so many, best first."""


def search(
    nearest: Nearest, queries: Vectors, *, query_images: Sequence[str | None], k: int, stopping: threading.Event
) -> list[list[Neighbour]]:
    """The first k for each row of `queries` (n, dim), without the image that is the query: `query_images` has its id.
    Raises Interrupted between two calls of `nearest`."""
    results: list[list[Neighbour]] = []
    for start in range(0, len(queries), MAX_BATCH):
        check_stopping(stopping)
        batch = slice(start, start + MAX_BATCH)
        rows = nearest(queries[batch], k + 1)
        for image, neighbours in zip(query_images[batch], rows, strict=True):
            by_id = {neighbour.id: neighbour for neighbour in neighbours if neighbour.id != image}
            results.append([*by_id.values()][:k])
    return results
