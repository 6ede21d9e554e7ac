"""Scores of results: for one query, and for many queries with a confidence interval. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from imgsearch.vectors import Vectors

TIES = 1e-5
"""Cosines that differ by less are equal: the order of its terms changes a float32 sum by up to this much."""
Z = 1.959964
"""The quantile of the standard normal distribution for a two-sided interval of 95 %."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its 95 % confidence interval."""

    queries: int
    value: float
    low: float
    high: float


def recall(scores: Sequence[float], best: NDArray[np.float32], k: int) -> float:
    """Recall@k: the share of the first k results whose exact score (cosine) reaches that of the exact k-th neighbour.
    `best` are the exact scores, best first, at least k of them.

    As ann-benchmarks defines it (https://github.com/erikbern/ann-benchmarks, plotting/metrics.py: knn): by distance
    and not by id, so that one of two equal neighbours is as good as the other."""
    return sum(score >= float(best[k - 1]) - TIES for score in scores[:k]) / k


def any_relevant(relevant: Sequence[bool], k: int) -> float:
    """1 if one of the first k results is relevant, else 0. Its mean over queries is R@k, as image-text retrieval
    reports it (Karpathy & Fei-Fei 2015, https://arxiv.org/abs/1412.2306, 4.1)."""
    return float(any(relevant[:k]))


def precision(relevant: Sequence[bool], k: int) -> float:
    """Precision@k: the share of the first k results that is relevant (Manning, Raghavan & Schütze 2008, Introduction to
    Information Retrieval, 8.4)."""
    return sum(relevant[:k]) / k


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values from 0 to 1, at least one, with Wilson's score interval (Wilson 1927, JASA 22:209, (3)).

    The interval is made for values that are 0 or 1. Of all values from 0 to 1 with the same mean, these have the
    largest variance, so for other values the interval is wider than necessary. It has a width even if all values are
    1. Not scipy's (binomtest): that takes a whole number of successes."""
    n, mean = len(values), float(np.mean(values))
    middle = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
    return Estimate(n, mean, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> Estimate | None:
    """The mean difference of `after` to `before` on the queries that both have, by name; None without such queries.

    The interval is the percentile bootstrap over the pairs (Efron & Tibshirani 1993, An Introduction to the Bootstrap,
    13.3): a query that is hard for both does not widen it."""
    common = sorted(before.keys() & after.keys())
    if not common:
        return None
    pairs = np.array([after[name] - before[name] for name in common])
    mean = float(pairs.mean())
    if len(pairs) == 1:  # nothing to resample
        return Estimate(1, mean, mean, mean)
    interval = bootstrap((pairs,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return Estimate(len(pairs), mean, float(interval.low), float(interval.high))


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

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Adds the next block: `vectors` (rows, dim) of these ids."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = self._queries @ unit.T
        for column, id in enumerate(ids):
            if id in self._query_rows:
                scores[self._query_rows[id], column] = -np.inf
            for row in self._wanted.get(id, ()):
                self._scores[row][id] = float(scores[row, column])
        k = self.best.shape[1]
        candidates = np.concatenate([self.best, scores], axis=1)
        self.best = -np.sort(np.partition(-candidates, k - 1, axis=1)[:, :k], axis=1)

    def score(self, query: int, id: str) -> float:
        """The exact score of one of the results of a query; -inf for an id without a vector."""
        return self._scores[query].get(id, -np.inf)
