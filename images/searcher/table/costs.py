"""The costs of a search, in rows: the time to compare one row of 512 dimensions with a query is 1. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DIM = 512


@dataclass(frozen=True)
class Costs:
    """The costs of a search of the store."""

    search: float
    """A search for a few images."""
    candidate: float
    """Each image that the search returns."""

    def of_store(self, candidates: int) -> float:
        """A search of the store for so many images."""
        return self.search + self.candidate * candidates

    @staticmethod
    def of_rows(rows: int, dim: int) -> float:
        """A comparison with so many rows of the table."""
        return rows * dim / DIM


MEASURED = Costs(search=4_000, candidate=17)
"""By `python -m bench filters`."""
