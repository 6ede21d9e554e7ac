"""Measures the recall of a collection, and finds the candidates that a search needs for it. The queries are a sample of
its own images, changed ones, and texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imgsearch.runs.documents import QueryKind, RecallFigure
from imgsearch.stage import check_stopping
from imgsearch.stores import Neighbour, VectorStore
from imgsearch.vectors import Vectors, unit
from searcher.recall import tuning
from searcher.recall.exact_search import ExactSearch, recall
from searcher.recall.results import search
from searcher.recall.tuning import Effort
from searcher.table import clusters
from searcher.table.clusters import Numbers
from searcher.table.costs import of_rows, of_store

CUTOFFS = (10, 100)
"""The numbers of results for which recall@k is measured."""
COSINE = 0.9
"""Of a changed image and its original: a photo of the same thing, or a good crop."""
WORST = 0.05
"""The share of the queries whose mean is the worst recall."""


@dataclass(frozen=True)
class Measured:
    """The recall of a collection."""

    candidates: int
    """Pointer.candidates: the fewest with which the recall reaches its target, or else is best."""
    compared: int
    """Table.compared: as `candidates`, of rows. 0: the store reaches the target at less cost, or is better."""
    clusters: Numbers | None
    """The cluster of each image, in the order of the blocks. None where `compared` is 0."""
    figures: list[RecallFigure]
    """With these rows, if `compared` is not 0, or else with these candidates. A kind of queries for which fewer
    candidates found the same has the figures of those. Empty where every search returns all images."""


def measure(
    store: VectorStore,
    collection: str,
    sample: Vectors,
    ids: Sequence[str],
    texts: Vectors,
    blocks: Iterable[tuple[Sequence[str], Vectors]],
    *,
    centroids: Vectors | None,
    images: int,
    target: float,
    stopping: threading.Event,
) -> Measured:
    """Recall@k for `sample` (n, dim), the vectors of the images `ids`, for changed ones, and for `texts` (m, dim), if
    there are any. With `centroids` (clusters, dim), searches of the clusters are measured, too. `blocks`: ids and
    vectors of all `images`, which are read once, a block at a time. Raises Interrupted between two blocks, and between
    two calls of the store."""
    cutoffs = [k for k in CUTOFFS if k < images - 1]
    if not cutoffs:
        return Measured(tuning.FEWEST, 0, None, [])
    stored = unit(sample)
    queries = np.concatenate([stored, changed(stored), unit(texts)])
    query_images = [*ids, *[None] * (len(queries) - len(ids))]
    count = len(stored)
    kinds: dict[QueryKind, slice] = {"images": slice(0, count), "changed images": slice(count, 2 * count)}
    if len(texts):
        kinds["texts"] = slice(2 * count, len(queries))
    results = _searched(
        store,
        collection,
        queries,
        query_images,
        [*kinds.values()],
        k=max(cutoffs),
        images=images,
        target=target,
        stopping=stopping,
    )
    exact = ExactSearch(
        queries,
        query_images=query_images,
        k=max(cutoffs),
        results=[{n.id for found in results.values() for n in found[row]} for row in range(len(queries))],
    )
    numbers: list[Numbers] = []
    for block_ids, vectors in blocks:
        check_stopping(stopping)
        exact.add(block_ids, vectors)
        if centroids is not None:
            numbers.append(clusters.nearest(vectors, centroids))
    by_candidates = {
        candidates: _figures(_found(found, exact), kinds, cutoffs) for candidates, found in results.items()
    }
    chosen = tuning.cheapest(_means(by_candidates), target, float)
    if centroids is None:
        return Measured(chosen, 0, None, by_candidates[chosen])
    row_clusters = np.concatenate(numbers)
    rows_before = clusters.rows_before(queries, centroids, row_clusters, exact.best_rows)
    dim = queries.shape[1]
    by_rows = {
        compared: _figures(partial(_covered, rows_before, compared), kinds, cutoffs)
        for compared in tuning.row_steps(images, dim)
    }
    efforts = {(0, candidates): figures for candidates, figures in by_candidates.items()}
    efforts |= {(compared, chosen): figures for compared, figures in by_rows.items()}
    compared, _ = best = tuning.cheapest(
        _means(efforts), target, lambda effort: _cost(*effort, clusters=len(centroids), dim=dim)
    )
    return Measured(chosen, compared, row_clusters if compared else None, efforts[best])


def _searched(
    store: VectorStore,
    collection: str,
    queries: Vectors,
    query_images: Sequence[str | None],
    kinds: Sequence[slice],
    *,
    k: int,
    images: int,
    target: float,
    stopping: threading.Event,
) -> dict[int, list[list[Neighbour]]]:
    """The results of the store by the candidates of a search, until more candidates change nothing. Only the kinds of
    queries that they change are searched again."""
    results: dict[int, list[list[Neighbour]]] = {}
    found: list[list[Neighbour]] = [[] for _ in queries]
    for candidates in tuning.steps(images):
        rows = [row for kind in kinds for row in range(kind.start, kind.stop)]
        images_of_rows = [query_images[row] for row in rows]
        nearest = partial(_nearest, store, collection, candidates)
        new = search(nearest, queries[rows], query_images=images_of_rows, k=k, stopping=stopping)
        by_row = dict(zip(rows, new, strict=True))
        before, found = found, [by_row.get(row, neighbours) for row, neighbours in enumerate(found)]
        if results:
            kinds = [kind for kind in kinds if not tuning.agree(before[kind], found[kind], target)]
        results[candidates] = found
        if not kinds:
            break
    return results


def _nearest(store: VectorStore, collection: str, candidates: int, queries: Vectors, k: int) -> list[list[Neighbour]]:
    return store.nearest(collection, queries, k=max(candidates, k))


def _cost(compared: int, candidates: int, *, clusters: int, dim: int) -> float:
    return of_rows(compared + clusters, dim) if compared else of_store(candidates)


Recall = Callable[[int, int], float]
"""The recall@k of a query, by its number and k."""


def _found(results: Sequence[Sequence[Neighbour]], exact: ExactSearch) -> Recall:
    """Of the results of a store."""

    def of(row: int, k: int) -> float:
        return recall([exact.score(row, neighbour.id) for neighbour in results[row][:k]], exact.best[row], k)

    return of


def _covered(rows_before: NDArray[np.int64], compared: int, row: int, k: int) -> float:
    """Of a search that compares so many rows, and finds all of them. `rows_before`: see clusters.rows_before."""
    return float(np.mean(rows_before[row, :k] < compared))


def _figures(of: Recall, kinds: Mapping[QueryKind, slice], cutoffs: Sequence[int]) -> list[RecallFigure]:
    figures: list[RecallFigure] = []
    for kind, rows in kinds.items():
        for k in cutoffs:
            values = [of(row, k) for row in range(rows.start, rows.stop)]
            figures.append({"queries": kind, "k": k, "mean": _mean(values), "worst": _mean(worst(values))})
    return figures


def _means(figures: Mapping[Effort, list[RecallFigure]]) -> dict[Effort, list[float]]:
    return {effort: [figure["mean"] for figure in found] for effort, found in figures.items()}


def changed(vectors: Vectors) -> Vectors:
    """For each of `vectors` (n, dim; of length 1) one of length 1 at COSINE to it, in a random direction. Always the
    same."""
    noise = np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    noise -= np.sum(noise * vectors, axis=1, keepdims=True) * vectors
    return np.asarray(COSINE * vectors + np.sqrt(1 - COSINE**2) * unit(noise), np.float32)


def worst(values: Sequence[float]) -> list[float]:
    """The worst twentieth, at least one."""
    return sorted(values)[: max(1, round(WORST * len(values)))]


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
