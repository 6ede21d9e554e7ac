"""The parameters of Chroma's HNSW graphs, by the number of vectors. No I/O."""

from __future__ import annotations

GRAPHS = (
    (50_000, {"max_neighbors": 16, "ef_construction": 100}),
    (None, {"max_neighbors": 32, "ef_construction": 100}),
)
"""The largest number of vectors, and the graph for it. The first is Chroma's default. `python -m bench graphs` measures
them with 20,000 and 100,000 vectors (docs/benchmarks.md); the border lies between
(docs/adr/0016-candidates-are-the-effort.md)."""


WRITES = 200
"""Times that a collection writes its graph to disk while it is filled, at most. By default, Chroma writes it after each
1 000 vectors, with all ids, so that the work grows with the square of the vectors
(docs/adr/0018-a-large-collection-is-written-less-often.md)."""
SYNC_THRESHOLD = 1_000
"""Chroma's default: the vectors after which a graph is written. What was not written yet is added to the graph again
when a Chroma has started."""


def parameters(vectors: int) -> dict[str, int]:
    """The parameters of a collection that will have so many vectors. `max_neighbors` (M) and `ef_construction` cannot
    be changed later.

    Chroma's `ef_search` stays as it is: `VectorStore.nearest` chooses the effort of each search."""
    graph = next(graph for largest, graph in GRAPHS if largest is None or vectors <= largest)
    return {**graph, "sync_threshold": max(SYNC_THRESHOLD, vectors // WRITES)}
