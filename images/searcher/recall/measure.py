"""Measures the recall of a collection: its searches for a sample of its own images, for changed ones, and for texts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np

from imgsearch.runs.documents import QueryKind, RecallFigure
from imgsearch.stage import check_stopping
from imgsearch.stores import VectorStore
from imgsearch.vectors import Vectors
from searcher.recall.exact_search import ExactSearch, recall
from searcher.recall.results import search

CUTOFFS = (10, 100)
"""The numbers of results for which recall@k is measured."""
COSINE = 0.9
"""Of a changed image and its original: a photo of the same thing, or a good crop."""
WORST = 0.05
"""The share of the queries whose mean is the worst recall."""


def measure(
    store: VectorStore,
    collection: str,
    sample: Vectors,
    ids: Sequence[str],
    texts: Vectors,
    blocks: Iterable[tuple[Sequence[str], Vectors]],
    *,
    images: int,
    stopping: threading.Event,
) -> list[RecallFigure]:
    """Recall@k for `sample` (n, dim), the vectors of the images `ids`, for changed ones, and for `texts` (m, dim), if
    there are any. `blocks`: ids and vectors of all `images`, which are read once, a block at a time. No figures where
    every search returns all images. Raises Interrupted between two blocks, and between two calls of the store."""
    cutoffs = [k for k in CUTOFFS if k < images - 1]
    if not cutoffs:
        return []
    unit = _unit(sample)
    queries = np.concatenate([unit, changed(unit), _unit(texts)])
    query_images = [*ids, *[None] * (len(queries) - len(ids))]
    results = {
        k: search(store, collection, queries, query_images=query_images, k=k, stopping=stopping) for k in cutoffs
    }
    exact = ExactSearch(
        queries,
        query_images=query_images,
        k=max(cutoffs),
        results=[{hit.id for hits in results.values() for hit in hits[row]} for row in range(len(queries))],
    )
    for block_ids, vectors in blocks:
        check_stopping(stopping)
        exact.add(block_ids, vectors)
    figures: list[RecallFigure] = []
    count = len(unit)
    kinds: dict[QueryKind, range] = {
        "images": range(count),
        "changed images": range(count, 2 * count),
    }
    if len(texts):
        kinds["texts"] = range(2 * count, len(queries))
    for kind, rows in kinds.items():
        for k in cutoffs:
            values = [recall([exact.score(row, hit.id) for hit in results[k][row]], exact.best[row], k) for row in rows]
            figures.append({"queries": kind, "k": k, "mean": _mean(values), "worst": _mean(worst(values))})
    return figures


def changed(unit: Vectors) -> Vectors:
    """For each row of `unit` (n, dim) a vector of length 1 at COSINE to it, in a random direction. Always the same."""
    noise = np.random.default_rng(0).normal(size=unit.shape).astype(np.float32)
    noise -= np.sum(noise * unit, axis=1, keepdims=True) * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(COSINE * unit + np.sqrt(1 - COSINE**2) * noise, np.float32)


def worst(values: Sequence[float]) -> list[float]:
    """The worst twentieth, at least one."""
    return sorted(values)[: max(1, round(WORST * len(values)))]


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
