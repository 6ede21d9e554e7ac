"""The types of vectors: the encoder computes them, a run folder keeps them, and a store searches them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""(dim,)."""
Vectors = NDArray[np.float32]
"""(n, dim): one vector a row."""
