"""The results of a store for many queries, as a search gets them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from imgsearch.stage import check_stopping
from imgsearch.stores import Hit, VectorStore
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
    stopping: threading.Event,
) -> list[list[Hit]]:
    """The first k results for each row of `queries` (n, dim), without the image that is the query: `query_images` has
    its id. Raises Interrupted between two calls of the store."""
    results: list[list[Hit]] = []
    for start in range(0, len(queries), MAX_BATCH):
        check_stopping(stopping)
        batch = slice(start, start + MAX_BATCH)
        for image, hits in zip(query_images[batch], store.search(collection, queries[batch], k=k + 1), strict=True):
            by_id = {hit.id: hit for hit in hits if hit.id != image}
            results.append([*by_id.values()][:k])
    return results
