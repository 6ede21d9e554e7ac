"""Verifies a filled collection before it is published: its count, and a search for each vector of a sample."""

from __future__ import annotations

import numpy as np

from imgsearch.errors import PermanentError
from imgsearch.stores import VectorStore
from searcher.ingest.samples import Samples, vector_of

SAMPLES = 64
"""Vectors to search for."""
TOLERANCE = 1e-3
"""Two vectors whose numbers differ by less are equal: parts store them as float16."""


def verify(store: VectorStore, collection: str, *, run: str, rows: int, samples: Samples) -> int:
    """Returns the number of samples that are their own nearest neighbour. For the others, it has the same vector.

    Raises PermanentError where the collection does not have `rows` vectors, or a sample does not find its vector."""
    stored = store.count(collection)
    if stored != rows:
        raise PermanentError(
            f"collection {collection} has {stored} vectors, but run {run} has {rows}; delete the collection with "
            f"`controller cleanup {run}`, then repeat the command"
        )
    found = 0
    results = store.search(collection, samples.vectors(), k=3, vectors=True)
    for sample, hits in zip(samples.records, results, strict=True):
        best = hits[0]
        if best.id == sample.id:
            found += 1
        elif best.vector is None or not np.allclose(best.vector, vector_of(sample), atol=TOLERANCE):
            raise PermanentError(
                f"a search for image {sample.id} does not find it in {collection}; nothing was published"
            )
    return found
