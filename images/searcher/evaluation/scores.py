"""Scores of results: for one query, and for many queries with a confidence interval. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

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
