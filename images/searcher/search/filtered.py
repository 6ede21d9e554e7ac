"""Filtered searches by the table of a run: exactly, or from the nearest images without the filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imgsearch.stores import Neighbour
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors
from searcher.search.filter_plan import candidates
from searcher.table.costs import of_rows, of_store
from searcher.table.matching import Mask
from searcher.table.reader import RunTable

Nearest = Callable[[Vectors, int], list[list[Neighbour]]]
"""The nearest images without a filter: for each row of the queries at least so many, best first."""


@dataclass(frozen=True)
class Unfiltered:
    """A way to search without a filter."""

    nearest: Nearest
    cost: Callable[[int], float]
    """Of one search for so many images, in rows (see costs.py)."""


def by_store(search: Nearest, effort: Callable[[int], int], *, rows: int) -> Unfiltered:
    """By the store, which is asked for `effort` images to find so many of the nearest. `rows`: of the table."""
    return Unfiltered(
        lambda queries, number: search(queries, effort(number)), lambda number: of_store(min(rows, effort(number)))
    )


def by_clusters(table: RunTable, effort: Callable[[int], int], *, dim: int) -> Unfiltered:
    """By the clusters of the table, of which `effort` rows are compared to find so many of the nearest."""
    return Unfiltered(
        lambda queries, number: table.nearest(queries, number, compared=effort(number)),
        lambda number: of_rows(effort(number), dim),
    )


def filtered(
    table: RunTable,
    queries: Vectors,
    where: Filter,
    unfiltered: Unfiltered,
    *,
    k: int,
) -> list[list[Neighbour]]:
    """For each row of `queries` (n, dim; of length 1) its k nearest images that pass the filter, best first: fewer only
    if fewer pass it. `where` is a valid filter, and the table has its fields.

    The kind of search depends on the table, the filter and k only, not on the other queries."""
    passing = table.matching(where)
    matches = int(np.count_nonzero(passing))
    if not matches:
        return [[] for _ in queries]
    exact = of_rows(matches, queries.shape[1])
    number = candidates(rows=table.rows, matches=matches, wanted=k, exact=exact, cost=unfiltered.cost)
    if number is None:
        return table.exact(queries, np.flatnonzero(passing), k=k)
    results = [_passing(table, passing, row)[:k] for row in unfiltered.nearest(queries, number)]
    if few := [row for row, found in enumerate(results) if len(found) < min(k, matches)]:
        for row, found in zip(few, table.exact(queries[few], np.flatnonzero(passing), k=k), strict=True):
            results[row] = found
    return results


def _passing(table: RunTable, passing: Mask, neighbours: list[Neighbour]) -> list[Neighbour]:
    rows = table.rows_of([neighbour.id for neighbour in neighbours])
    return [neighbour for neighbour, row in zip(neighbours, rows, strict=True) if row is not None and passing[row]]
