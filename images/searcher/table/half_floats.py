"""Products of float16 vectors with a float32 vector, several times faster than with numpy's conversion. No I/O."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imgsearch.vectors import Vector

BLOCK = 256
"""Rows that are converted at a time: they fit into the cache of a core."""
SHIFT = 13
"""The mantissa of a float16 has 13 bits fewer than that of a float32."""
FIELDS = np.int32(-0x70002000)
"""The bits of the sign, of 5 bits of the exponent, and of 10 bits of the mantissa (0x8FFFE000)."""
SCALE = np.float32(2.0**112)
"""The exponents of a float16 and of a float32 have the biases 15 and 127."""


def products(vectors: NDArray[np.float16], rows: NDArray[np.int64], queries: NDArray[np.float32]) -> Vector:
    """The dot products (queries, rows) of `vectors[rows]` with each of `queries` (queries, dim).

    The bits of a finite float16, moved to their places in a float32, are the number times 2**-112. The product of a row
    with a query is the same for any other rows and queries."""
    bits = vectors.view(np.int16)
    scaled = queries * SCALE
    result = np.empty((len(queries), len(rows)), np.float32)
    block = np.empty((BLOCK, vectors.shape[1]), np.int32)
    for start in range(0, len(rows), BLOCK):
        chosen = rows[start : start + BLOCK]
        converted = block[: len(chosen)]
        np.left_shift(bits[chosen], SHIFT, out=converted, dtype=np.int32)
        np.bitwise_and(converted, FIELDS, out=converted)
        for query, products in zip(scaled, result, strict=True):
            # Not by `@`, whose sum for a row depends on the other rows: equal vectors would have different scores.
            products[start : start + len(chosen)] = np.vecdot(converted.view(np.float32), query)
    return result
