"""The results of a store for many queries, as a search gets them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from imgsearch.stage import check_stopping
from imgsearch.stores import Neighbour, VectorStore
from imgsearch.vectors import Vectors

MAX_BATCH = 64
"""Queries in one call of the store."""


def search(
    store: VectorStore,
    collection: str,
    queries: Vectors,
    *,
    query_images: Sequence[str | None],
    k: int,
    candidates: int,
    stopping: threading.Event,
) -> list[list[Neighbour]]:
    """The first k of the candidates for each row of `queries` (n, dim), without the image that is the query:
    `query_images` has its id. Raises Interrupted between two calls of the store."""
    results: list[list[Neighbour]] = []
    for start in range(0, len(queries), MAX_BATCH):
        check_stopping(stopping)
        batch = slice(start, start + MAX_BATCH)
        rows = store.nearest(collection, queries[batch], k=max(candidates, k + 1))
        for image, neighbours in zip(query_images[batch], rows, strict=True):
            by_id = {neighbour.id: neighbour for neighbour in neighbours if neighbour.id != image}
            results.append([*by_id.values()][:k])
    return results
