"""How good answers are, in numbers: of one query, and of many with what chance leaves open. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgsearch.stores import Vectors

TIES = 1e-5
"""Cosines that differ by less are equal: float32 sums of some hundred products differ that much by their order."""
Z = 1.959964
"""The standard normal's two-sided 95 %."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its 95 % confidence interval."""

    queries: int
    value: float
    low: float
    high: float


def recall(scores: Sequence[float], best: NDArray[np.float32], k: int) -> float:
    """How much of the k nearest was found: the share of the first k answers whose exact score (cosine) reaches that of
    the exact k-th. `best` are the exact scores, best first, at least k of them.

    As ann-benchmarks defines it (https://github.com/erikbern/ann-benchmarks, plotting/metrics.py: knn): by distance
    and not by id, so that one of two equal neighbours is as good as the other."""
    return sum(score >= float(best[k - 1]) - TIES for score in scores[:k]) / k


def found(relevant: Sequence[bool], k: int) -> float:
    """Whether anything relevant is among the first k answers. Its mean over queries is R@k, as image-text retrieval
    reports it (Karpathy & Fei-Fei 2015, https://arxiv.org/abs/1412.2306, 4.1)."""
    return float(any(relevant[:k]))


def precision(relevant: Sequence[bool], k: int) -> float:
    """The share of relevant ones among the first k answers (Manning, Raghavan & Schütze 2008, Introduction to
    Information Retrieval, 8.4)."""
    return sum(relevant[:k]) / k


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values from 0 to 1, at least one, with Wilson's score interval (Wilson 1927, JASA 22:209, (3)).

    It is made for values that are 0 or 1. Of all that have the same mean and lie between them these vary the most, so
    for the others it is rather too wide than too narrow; and it stays honest where every value is 1."""
    n, mean = len(values), float(np.mean(values))
    middle = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
    return Estimate(n, mean, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> Estimate | None:
    """How much higher `after` is on the queries that both have, by their names; None where there is none.

    The interval is the percentile bootstrap's over the pairs (Efron & Tibshirani 1993, An Introduction to the
    Bootstrap, 13.3): what is hard for both does not blur the difference."""
    common = sorted(before.keys() & after.keys())
    if not common:
        return None
    pairs = np.array([after[name] - before[name] for name in common])
    random = np.random.default_rng(0)
    means = [random.choice(pairs, len(pairs)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(len(pairs), float(pairs.mean()), float(low), float(high))


class ExactSearch:
    """The exact nearest of some queries, from all vectors, block after block: only a block is in memory."""

    def __init__(
        self, queries: Vectors, *, own: Sequence[str | None], k: int, answers: Sequence[Iterable[str]]
    ) -> None:
        """`queries` are (n, dim) of length 1. `own` is the id of the image that a query is made of, which does not
        count as its neighbour; `answers` are ids whose exact scores are wanted, for each query."""
        self._queries = queries
        self._own = {id: row for row, id in enumerate(own) if id is not None}
        self._wanted: dict[str, list[int]] = {}
        for row, ids in enumerate(answers):
            for id in ids:
                self._wanted.setdefault(id, []).append(row)
        self._scores: list[dict[str, float]] = [{} for _ in answers]
        self.best = np.full((len(queries), k), -np.inf, np.float32)
        """(n, k) exact scores, best first; -inf where there are fewer vectors."""

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Compares with `vectors` (rows, dim) of these ids."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = self._queries @ unit.T
        for column, id in enumerate(ids):
            if id in self._own:
                scores[self._own[id], column] = -np.inf
            for row in self._wanted.get(id, ()):
                self._scores[row][id] = float(scores[row, column])
        k = self.best.shape[1]
        both = np.concatenate([self.best, scores], axis=1)
        self.best = -np.sort(np.partition(-both, k - 1, axis=1)[:, :k], axis=1)

    def score(self, query: int, id: str) -> float:
        """The exact score of one of its answers; -inf for an id that no vector had."""
        return self._scores[query].get(id, -np.inf)
