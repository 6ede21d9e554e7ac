"""Measures the recall of a collection, and finds the candidates that a search needs for it. The queries are a sample of
its own images, changed ones, and texts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imgsearch.runs.documents import QueryKind, RecallFigure
from imgsearch.stage import check_stopping
from imgsearch.stores import Neighbour, VectorStore
from imgsearch.vectors import Vectors, unit
from searcher.recall import tuning
from searcher.recall.exact_search import ExactSearch, recall
from searcher.recall.results import search

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
    figures: list[RecallFigure]
    """With these candidates, or with the fewer ones after which more changed nothing. Empty where every search returns
    all images."""


def measure(
    store: VectorStore,
    collection: str,
    sample: Vectors,
    ids: Sequence[str],
    texts: Vectors,
    blocks: Iterable[tuple[Sequence[str], Vectors]],
    *,
    images: int,
    target: float,
    stopping: threading.Event,
) -> Measured:
    """Recall@k for `sample` (n, dim), the vectors of the images `ids`, for changed ones, and for `texts` (m, dim), if
    there are any. `blocks`: ids and vectors of all `images`, which are read once, a block at a time. Raises Interrupted
    between two blocks, and between two calls of the store."""
    cutoffs = [k for k in CUTOFFS if k < images - 1]
    if not cutoffs:
        return Measured(tuning.FEWEST, [])
    stored = unit(sample)
    queries = np.concatenate([stored, changed(stored), unit(texts)])
    query_images = [*ids, *[None] * (len(queries) - len(ids))]
    count = len(stored)
    kinds: dict[QueryKind, slice] = {"images": slice(0, count), "changed images": slice(count, 2 * count)}
    if len(texts):
        kinds["texts"] = slice(2 * count, len(queries))
    results: dict[int, list[list[Neighbour]]] = {}
    found: list[list[Neighbour]] = [[] for _ in queries]
    open_kinds = list(kinds.values())
    for candidates in tuning.steps(images):
        rows = [row for kind in open_kinds for row in range(kind.start, kind.stop)]
        new = search(
            store,
            collection,
            queries[rows],
            query_images=[query_images[row] for row in rows],
            k=max(cutoffs),
            candidates=candidates,
            stopping=stopping,
        )
        by_row = dict(zip(rows, new, strict=True))
        before, found = found, [by_row.get(row, neighbours) for row, neighbours in enumerate(found)]
        if results:
            open_kinds = [kind for kind in open_kinds if not tuning.agree(before[kind], found[kind], target)]
        results[candidates] = found
        if not open_kinds:
            break
    exact = ExactSearch(
        queries,
        query_images=query_images,
        k=max(cutoffs),
        results=[{n.id for found in results.values() for n in found[row]} for row in range(len(queries))],
    )
    for block_ids, vectors in blocks:
        check_stopping(stopping)
        exact.add(block_ids, vectors)
    figures = {candidates: _figures(found, exact, kinds, cutoffs) for candidates, found in results.items()}
    means = {candidates: [figure["mean"] for figure in found] for candidates, found in figures.items()}
    chosen = tuning.fewest(means, target)
    return Measured(chosen, figures[chosen])


def _figures(
    results: Sequence[Sequence[Neighbour]], exact: ExactSearch, kinds: Mapping[QueryKind, slice], cutoffs: Sequence[int]
) -> list[RecallFigure]:
    figures: list[RecallFigure] = []
    for kind, rows in kinds.items():
        for k in cutoffs:
            values = [
                recall([exact.score(row, neighbour.id) for neighbour in results[row][:k]], exact.best[row], k)
                for row in range(len(results))[rows]
            ]
            figures.append({"queries": kind, "k": k, "mean": _mean(values), "worst": _mean(worst(values))})
    return figures


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
