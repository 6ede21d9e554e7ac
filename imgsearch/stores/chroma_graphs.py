"""The parameters of Chroma's HNSW graphs, by the number of vectors. No I/O."""

from __future__ import annotations

GRAPHS = (
    (50_000, {"max_neighbors": 16, "ef_construction": 100}),
    (None, {"max_neighbors": 32, "ef_construction": 100}),
)
"""The largest number of vectors, and the graph for it. The first is Chroma's default. `python -m bench graphs` measures
them (docs/benchmarks.md); the border is an estimate (docs/adr/0016-candidates-are-the-effort.md)."""


def parameters(vectors: int) -> dict[str, int]:
    """`max_neighbors` (M) and `ef_construction` for a collection of this size. They cannot be changed later.

    Chroma's `ef_search` stays as it is: `VectorStore.nearest` chooses the effort of each search."""
    return next(graph for largest, graph in GRAPHS if largest is None or vectors <= largest)
