"""The costs of a search, in rows: the CPU time to compare one row of 512 dimensions with a query is 1. Pure.

CPU time, and not the time of one search, which is shorter on more cores: it bounds the searches a second."""

from __future__ import annotations

DIM = 512
SEARCH = 8_000
"""A search of the store for a few images, by `python -m bench filters`."""
CANDIDATE = 32
"""Each image that it returns."""


def of_store(candidates: int) -> float:
    """A search of the store for so many images."""
    return SEARCH + CANDIDATE * candidates


def of_rows(rows: int, dim: int) -> float:
    """A comparison with so many rows of the table. It is proportional to their dimensions."""
    return rows * dim / DIM
