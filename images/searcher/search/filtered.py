"""Filtered searches by the table of a run: exactly, or from the nearest images without the filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from imgsearch.stores import Neighbour
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors
from searcher.search import filter_plan, ranking
from searcher.table.costs import of_rows, of_store
from searcher.table.matching import Mask
from searcher.table.reader import RunTable, sample_step

Search = Callable[[Vectors, int], list[list[Neighbour]]]
"""The nearest images without a filter: for each row of the queries at least so many, best first."""


class Nearest(Protocol):
    """A search for the nearest images, of which those that pass a filter are the results."""

    def passing(self, queries: Vectors, number: int, passing: Mask, *, k: int) -> list[list[Neighbour] | None]:
        """For each of the queries (n, dim) its k nearest images that pass; None: fewer of the `number` nearest pass."""
        ...

    def cost(self, number: int, share: float, k: int) -> float:
        """Of a search for k results among so many images, of which this share passes, in rows (see costs.py)."""
        ...


class NearestOfStore:
    """By the store, which is asked for `effort` images to find so many of the nearest."""

    def __init__(self, table: RunTable, search: Search, effort: Callable[[int], int]) -> None:
        self._table = table
        self._search = search
        self._effort = effort

    def passing(self, queries: Vectors, number: int, passing: Mask, *, k: int) -> list[list[Neighbour] | None]:
        found = [self._passing(neighbours, passing)[:k] for neighbours in self._search(queries, self._effort(number))]
        return [neighbours if len(neighbours) == k else None for neighbours in found]

    def cost(self, number: int, share: float, k: int) -> float:
        return of_store(min(self._table.rows, self._effort(number)))

    def _passing(self, neighbours: list[Neighbour], passing: Mask) -> list[Neighbour]:
        rows = self._table.rows_of([neighbour.id for neighbour in neighbours])
        return [neighbour for neighbour, row in zip(neighbours, rows, strict=True) if row is not None and passing[row]]


class NearestOfClusters:
    """By the clusters of the table, of which `effort` rows are compared to find so many of the nearest."""

    def __init__(self, table: RunTable, effort: Callable[[int], int]) -> None:
        self._table = table
        self._effort = effort

    def passing(self, queries: Vectors, number: int, passing: Mask, *, k: int) -> list[list[Neighbour] | None]:
        compared = self._effort(number)
        return [self._table.nearest_passing(query, k, passing, compared=compared, number=number) for query in queries]

    def cost(self, number: int, share: float, k: int) -> float:
        compared = share + (1 - share) / sample_step(number, k)
        return of_rows(round(self._effort(number) * compared), self._table.dim)


def nearest_of(table: RunTable, search: Search, *, candidates: int) -> Nearest:
    """By the clusters of the table, if it has some, or by the store. `candidates`: Pointer.candidates."""
    if table.compared:
        return NearestOfClusters(table, partial(ranking.candidates, first=table.compared))
    return NearestOfStore(table, search, partial(ranking.candidates, first=candidates))


def filtered(table: RunTable, queries: Vectors, where: Filter, nearest: Nearest, *, k: int) -> list[list[Neighbour]]:
    """For each row of `queries` (n, dim; of length 1) its k nearest images that pass the filter, best first: fewer only
    if fewer pass it. `where` is a valid filter, and the table has its fields.

    The kind of search depends on the table, the filter and k only, not on the other queries."""
    passing = table.matching(where)
    matches = int(np.count_nonzero(passing))
    if not matches:
        return [[] for _ in queries]
    exact = of_rows(matches, table.dim)
    cost = partial(nearest.cost, share=matches / table.rows, k=k)
    number = filter_plan.candidates(rows=table.rows, matches=matches, wanted=k, exact=exact, cost=cost)
    found: list[list[Neighbour] | None] = [None] * len(queries)
    if number is not None:
        found = nearest.passing(queries, number, passing, k=min(k, matches))
    exact_rows = [row for row, neighbours in enumerate(found) if neighbours is None]
    if exact_rows:
        results = table.exact(queries[exact_rows], np.flatnonzero(passing), k=k)
        for row, neighbours in zip(exact_rows, results, strict=True):
            found[row] = neighbours
    return [neighbours or [] for neighbours in found]
