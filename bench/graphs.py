"""Recall and cost of Chroma's HNSW graphs, by their parameters and by the candidates of a search."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bench.results import Figure
from bench.worker import Worker
from imgsearch.vectors import Vectors, unit
from searcher.recall.measure import changed

TITLE = "Graphs"
METHOD = """\
Recall against exact search, and cost of an embedded Chroma, by the parameters of its HNSW graph (M is
`max_neighbors`) and by the **candidates** of a search: Chroma's `n_results`, of which the first 10, 100 or 1 000 count.
`imgsearch/stores/chroma_graphs.py` has the choices that follow.

The vectors (512 dimensions) share one direction, lie in 500 clusters whose centres differ in 48 directions, differ in
24 directions within a cluster, and by noise, as embeddings of photos do. 100 queries of each kind:

- **images**: stored vectors.
- **changed images**: vectors at a cosine of 0.9 to stored ones, in a random direction.
- **texts**: vectors near a cluster, moved by one common direction and by noise, so that the cosine to the best image is
  about 0.3. The texts of CLIP lie off its images in this way, which is the hard case for a graph.

Costs are CPU time of the process, over all its threads, so that other work on the same cores changes them little: of
`add` in calls of 2 000 vectors without metadata, and of single searches for texts, with ids and scores only."""

DIM = 512
CLUSTERS = 500
CENTRES_RANK = 48
RANK = 24
QUERIES = 100
BATCH = 2_000
CANDIDATES = (128, 256, 512, 1_024, 2_048)
DEEP_CANDIDATES = (1_001, 1_250, 2_000, 3_250, 4_000)
"""Of the searches whose first 1 000 results count."""
DEFAULTS = (16, 100)
"""Chroma's own M and ef_construction."""
GRAPHS = (DEFAULTS, (32, 200), (32, 100))


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    sizes, graphs = ((4_000,), GRAPHS[:2]) if quick else ((20_000, 100_000), GRAPHS)
    tables: dict[str, list[Figure]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=cache) as scratch, Worker(graph_of, size) as measured:
            fills: dict[tuple[int, int], float] = {}
            for graph in graphs:
                fills[graph], figures = measured(graph, scratch)
                case = f"{size:,} vectors, M {graph[0]}, ef_construction {graph[1]}"
                tables.setdefault("", []).extend(
                    [
                        Figure(case, "CPU-milliseconds to add a vector", round(fills[graph], 2)),
                        Figure(case, "fill rate ÷ that of Chroma's defaults", round(fills[DEFAULTS] / fills[graph], 3)),
                    ]
                )
                for heading, values in figures.items():
                    tables.setdefault(heading, []).extend(
                        Figure(case, f"{candidates:,}", round(value, 4)) for candidates, value in values.items()
                    )
    return tables


def graph_of(size: int) -> Callable[[tuple[int, int], str], tuple[float, Mapping[str, Mapping[int, float]]]]:
    """Returns a function that fills a collection of this size. It returns the CPU-milliseconds of a vector, and the
    other figures by heading and candidates."""
    import chromadb
    from chromadb.config import Settings

    vectors, queries = data(size)
    ids = [f"{number:032d}" for number in range(size)]
    best = {kind: _best(rows, vectors) for kind, rows in queries.items()}

    def run(graph: tuple[int, int], scratch: str) -> tuple[float, Mapping[str, Mapping[int, float]]]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
            hnsw = {"space": "cosine", "max_neighbors": graph[0], "ef_construction": graph[1]}
            collection = client.create_collection("bench", configuration={"hnsw": hnsw}, embedding_function=None)
            start = time.process_time()
            for first in range(0, size, BATCH):
                rows = slice(first, first + BATCH)
                collection.add(ids=ids[rows], embeddings=vectors[rows])
            fill = (time.process_time() - start) * 1_000 / size

            def found(rows: Vectors, candidates: int) -> list[list[int]]:
                response = collection.query(query_embeddings=rows, n_results=candidates, include=["distances"])
                return [[int(id) for id in row] for row in response["ids"]]

            figures: dict[str, dict[int, float]] = {}
            for kind, kind_queries in queries.items():
                for candidates in CANDIDATES:
                    results = found(kind_queries, candidates)
                    for k in (10, 100):
                        recalls = figures.setdefault(f"Recall@{k} of {kind}, by candidates", {})
                        recalls[candidates] = _recall(results, best[kind], k)
            texts = queries["texts"]
            figures["Recall@1000 of texts, by candidates"] = {
                candidates: _recall(found(texts, candidates), best["texts"], 1_000) for candidates in DEEP_CANDIDATES
            }
            figures["CPU-milliseconds of a search, by candidates"] = {
                candidates: float(np.median([_cpu_ms(found, row, candidates) for row in texts]))
                for candidates in CANDIDATES
            }
            client.close()
        return fill, figures

    return run


def data(size: int, dim: int = DIM) -> tuple[Vectors, dict[str, Vectors]]:
    """Vectors (size, dim) and the queries of each kind (QUERIES, dim), all of length 1. Always the same."""
    random = np.random.default_rng(0)

    def directions(*shape: int) -> Vectors:
        """(…, dim), each of length about 1."""
        return np.asarray(random.standard_normal((*shape, dim), np.float32) / np.float32(np.sqrt(dim)), np.float32)

    latent_centres = random.standard_normal((CLUSTERS, CENTRES_RANK), np.float32) / np.float32(np.sqrt(CENTRES_RANK))
    centres = directions(1) + 0.8 * latent_centres @ directions(CENTRES_RANK)
    bases = 0.6 * directions(CLUSTERS, RANK) / np.float32(np.sqrt(RANK))

    def near(count: int) -> Vectors:
        clusters = random.integers(CLUSTERS, size=count)
        points = np.empty((count, dim), np.float32)
        for cluster in range(CLUSTERS):
            (rows,) = np.nonzero(clusters == cluster)
            latent = random.standard_normal((len(rows), RANK), np.float32)
            points[rows] = centres[cluster] + latent @ bases[cluster]
        return unit(points + 0.15 * directions(count))

    vectors = near(size)
    images = vectors[random.choice(size, QUERIES, replace=False)]
    texts = unit(0.4 * near(QUERIES) + directions(1) + 0.3 * directions(QUERIES))
    return vectors, {"images": images, "changed images": changed(images), "texts": texts}


def _best(queries: Vectors, vectors: Vectors) -> list[list[int]]:
    """The rows of the 1 000 nearest vectors of each query, best first."""
    return [np.argsort(-(vectors @ query))[:1_000].tolist() for query in queries]


def _recall(results: list[list[int]], best: list[list[int]], k: int) -> float:
    shares = [len(set(row[:k]) & set(exact[:k])) / k for row, exact in zip(results, best, strict=True)]
    return float(np.mean(shares))


def _cpu_ms(search: Callable[[Vectors, int], object], row: Vectors, candidates: int) -> float:
    start = time.process_time()
    search(row[None], candidates)
    return (time.process_time() - start) * 1_000
