"""The plan of a filtered search, by the exact number of rows that the filter keeps. Pure.

A filter that keeps few rows is answered exactly: all of them are compared with the query. A filter that keeps many rows
is answered from the store's nearest images without the filter. These are as many that enough of them match, unless the
filter and the query are correlated. Where too few match, the exact search answers after all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from searcher.table.costs import MEASURED, Costs

SLACK = 3.0
"""Standard deviations above the expected number of matches: 999 of 1 000 uncorrelated searches find enough."""
SPARE = 5
"""Further matches, for small numbers, whose distribution is not normal."""


def candidates(
    *, rows: int, matches: int, wanted: int, dim: int, effort: Callable[[int], int], costs: Costs = MEASURED
) -> int | None:
    """The number of the nearest images to look at without the filter; None: exact search costs less.

    `rows`: of the table. `matches`: the rows that pass the filter, at least 1. `wanted`: the number of results.
    `effort`: the number of images that the store is asked for, in order to find so many of the nearest."""
    number = _enough(rows, matches, wanted)
    exact = costs.of_rows(matches, dim)
    return None if exact <= costs.of_store(min(rows, effort(number))) else number


def compared(
    *, rows: int, matches: int, wanted: int, dim: int, effort: Callable[[int], int], costs: Costs = MEASURED
) -> int | None:
    """The number of rows in the nearest clusters, of which those that pass the filter are compared; None: all rows that
    pass are compared, because they are few, or because the clusters would be all.

    `effort`: the number of rows to compare, in order to find so many of the nearest. The others: see `candidates`."""
    number = effort(_enough(rows, matches, wanted))
    return None if number >= rows or costs.of_rows(matches, dim) <= costs.search else number


def _enough(rows: int, matches: int, wanted: int) -> int:
    """The number of the nearest images of which `wanted` pass the filter, if it is not correlated with the query."""
    found = min(wanted, matches)
    expected = found + SLACK * math.sqrt(found) + SPARE
    return min(rows, math.ceil(expected * rows / matches))
