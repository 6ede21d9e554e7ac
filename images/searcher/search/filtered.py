"""Filtered searches by the table of a run: exactly, or from the nearest images without the filter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imgsearch.stores import Neighbour
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors
from searcher.search.filter_plan import candidates, compared
from searcher.table.costs import MEASURED, Costs
from searcher.table.matching import Mask
from searcher.table.reader import RunTable

FEWEST_MATCHES = 0.5
"""Of the share of all rows that pass, in the nearest clusters. With a smaller share there, the filter keeps images that
are far from the query: then the nearest that pass may be in other clusters."""
Nearest = Callable[[Vectors, int], list[list[Neighbour]]]
"""The nearest images without a filter: for each row of the queries, so many, best first."""


def filtered(
    table: RunTable,
    queries: Vectors,
    where: Filter,
    *,
    k: int,
    nearest: Nearest,
    effort: Callable[[int], int],
    costs: Costs = MEASURED,
) -> list[list[Neighbour]]:
    """For each row of `queries` (n, dim; of length 1) its k nearest images that pass the filter, best first: fewer only
    if fewer pass it. `where` is a valid filter, and the table has its fields. `effort`: see filter_plan.candidates.

    The kind of search depends on the table, the filter and k only, not on the other queries."""
    passing = table.matching(where)
    matches = int(np.count_nonzero(passing))
    if not matches:
        return [[] for _ in queries]
    number = candidates(rows=table.rows, matches=matches, wanted=k, dim=queries.shape[1], effort=effort, costs=costs)
    if number is None:
        return table.exact(queries, np.flatnonzero(passing), k=k)
    results = [_passing(table, passing, row)[:k] for row in nearest(queries, effort(number))]
    if few := [row for row, found in enumerate(results) if len(found) < min(k, matches)]:
        exact = table.exact(queries[few], np.flatnonzero(passing), k=k)
        for row, found in zip(few, exact, strict=True):
            results[row] = found
    return results


def clustered(
    table: RunTable,
    queries: Vectors,
    where: Filter,
    *,
    k: int,
    effort: Callable[[int], int],
    costs: Costs = MEASURED,
) -> list[list[Neighbour]]:
    """As `filtered`, by a table with clusters. `effort`: see filter_plan.compared."""
    passing = table.matching(where)
    matches = int(np.count_nonzero(passing))
    if not matches:
        return [[] for _ in queries]
    number = compared(rows=table.rows, matches=matches, wanted=k, dim=queries.shape[1], effort=effort, costs=costs)
    if number is None:
        return table.exact(queries, np.flatnonzero(passing), k=k)
    results = []
    for query in queries:
        rows, near = table.near(query, number, passing)
        if len(rows) < max(min(k, matches), FEWEST_MATCHES * matches * near / table.rows):
            rows = np.flatnonzero(passing)
        results += table.exact(query[None], rows, k=k)
    return results


def _passing(table: RunTable, passing: Mask, neighbours: list[Neighbour]) -> list[Neighbour]:
    rows = table.rows_of([neighbour.id for neighbour in neighbours])
    return [neighbour for neighbour, row in zip(neighbours, rows, strict=True) if row is not None and passing[row]]
