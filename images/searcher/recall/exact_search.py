"""Exact search over all vectors of a run, and recall@k against it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from imgsearch.vectors import Vectors, unit

TIES = 1e-5
"""Cosines that differ by less are equal: the order of its terms changes a float32 sum by up to this much."""


def recall(scores: Sequence[float], best: NDArray[np.float32], k: int) -> float:
    """Recall@k: the share of the first k results whose exact score (cosine) reaches that of the exact k-th neighbour.
    `best` are the exact scores, best first, at least k of them.

    As ann-benchmarks defines it (https://github.com/erikbern/ann-benchmarks, plotting/metrics.py: knn): by distance
    and not by id, so that one of two equal neighbours is as good as the other."""
    return sum(score >= float(best[k - 1]) - TIES for score in scores[:k]) / k


class ExactSearch:
    """Exact search: the nearest of all vectors for some queries. It takes the vectors in blocks, to save memory."""

    def __init__(
        self, queries: Vectors, *, query_images: Sequence[str | None], k: int, results: Sequence[Iterable[str]]
    ) -> None:
        """`queries`: (n, dim), of length 1. `query_images`: for each query that is an image, its id; an image is not
        its own neighbour. `results`: for each query, the ids whose exact scores are needed."""
        self._queries = queries
        self._query_rows = {id: row for row, id in enumerate(query_images) if id is not None}
        self._wanted: dict[str, list[int]] = {}
        for row, ids in enumerate(results):
            for id in ids:
                self._wanted.setdefault(id, []).append(row)
        self._scores: list[dict[str, float]] = [{} for _ in results]
        self.best = np.full((len(queries), k), -np.inf, np.float32)
        """(n, k) exact scores, best first; -inf if there are fewer vectors."""
        self.best_rows = np.full((len(queries), k), -1, np.int64)
        """(n, k) the numbers of these vectors, in the order in which they were added; -1 if there are fewer."""
        self._rows = 0

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Adds the next block: `vectors` (rows, dim) of these ids."""
        scores = self._queries @ unit(vectors).T
        for column, id in enumerate(ids):
            if id in self._query_rows:
                scores[self._query_rows[id], column] = -np.inf
            for row in self._wanted.get(id, ()):
                self._scores[row][id] = float(scores[row, column])
        k = self.best.shape[1]
        numbers = np.broadcast_to(np.arange(self._rows, self._rows + len(ids)), scores.shape)
        self._rows += len(ids)
        candidates = np.concatenate([self.best, scores], axis=1)
        rows = np.concatenate([self.best_rows, numbers], axis=1)
        best = np.argpartition(-candidates, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(candidates, best, axis=1), axis=1), axis=1)
        self.best = np.take_along_axis(candidates, best, axis=1)
        self.best_rows = np.take_along_axis(rows, best, axis=1)

    def score(self, query: int, id: str) -> float:
        """The exact score of one of the results of a query; -inf for an id without a vector."""
        return self._scores[query].get(id, -np.inf)
