"""The plan of a filtered search, by the exact number of rows that the filter keeps. Pure.

A filter that keeps few rows is answered exactly: all of them are compared with the query. A filter that keeps many rows
is answered from the store's nearest images without the filter. These are as many that enough of them match, unless the
filter and the query are correlated. Where too few match, the exact search answers after all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SLACK = 3.0
"""Standard deviations above the expected number of matches: 999 of 1 000 uncorrelated searches find enough."""
SPARE = 5
"""Further matches, for small numbers, whose distribution is not normal."""


def candidates(*, rows: int, matches: int, wanted: int, exact: float, cost: Callable[[int], float]) -> int | None:
    """The number of the nearest images to look at without the filter; None: exact search costs less.

    `rows`: of the table. `matches`: the rows that pass the filter, at least 1. `wanted`: the number of results.
    `exact`: the cost of an exact search of the matches. `cost`: that of a search for so many of the nearest images."""
    found = min(wanted, matches)
    expected = found + SLACK * math.sqrt(found) + SPARE
    number = min(rows, math.ceil(expected * rows / matches))
    return None if exact <= cost(number) else number
