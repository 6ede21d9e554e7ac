"""Vectors: the encoder computes them, a run folder keeps them, and a store searches them. No I/O."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""(dim,)."""
Vectors = NDArray[np.float32]
"""(n, dim): one vector a row."""


def unit(vectors: Vectors) -> Vectors:
    """Each row with the length 1, also where float16 made it a little longer or shorter. No row may be zero."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
