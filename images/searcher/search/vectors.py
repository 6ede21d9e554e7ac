"""Query vectors, of length 1: a client's embedding, and the weighted sum of several vectors. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgsearch.vectors import Vector
from searcher.search.errors import invalid

NEARLY_ZERO = 1e-6
"""A weighted sum that is shorter consists of rounding errors: its direction means nothing."""


def unit_vector(embedding: Sequence[float], dim: int) -> Vector:
    """A client's embedding, normalised. Raises Problem where it cannot be a vector of this index."""
    if len(embedding) != dim:
        raise invalid("embedding", f"it has {len(embedding)} numbers, but the vectors of this index have {dim}")
    values = np.asarray(embedding, np.float64)
    peak = np.abs(values).max()
    if peak == 0:
        raise invalid("embedding", "all its numbers are zero, so it has no direction")
    return _normalised(values / peak)  # the square of 1e300 is infinite


def weighted_sum(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """The normalised sum of unit vectors, each times its weight. Raises Problem where the sum is zero."""
    total = np.asarray(weights, np.float64) @ np.stack(vectors)
    if np.linalg.norm(total) <= NEARLY_ZERO * np.abs(weights).sum():
        raise invalid("parts", "their weighted sum is zero, so it has no direction; change a weight")
    return _normalised(total)


def _normalised(vector: NDArray[np.float64]) -> Vector:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
