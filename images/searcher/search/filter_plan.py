"""The plan of a filtered search, by the exact number of rows that the filter keeps. Pure.

A filter that keeps few rows is answered exactly: all of them are compared with the query. A filter that keeps many rows
is answered from the store's nearest images without the filter. These are as many that enough of them match, unless the
filter and the query are correlated. Where too few match, the exact search answers after all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

DIM = 512


@dataclass(frozen=True)
class Costs:
    """The costs of a search of the store, as the number of rows with 512 dimensions that an exact search compares in
    the same time. The cost of a row is proportional to its dimensions."""

    search: float
    """A search for a few images."""
    candidate: float
    """Each image that the search returns."""


MEASURED = Costs(search=4_000, candidate=17)
"""By `python -m bench filters`."""
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
    found = min(wanted, matches)
    expected = found + SLACK * math.sqrt(found) + SPARE
    number = min(rows, math.ceil(expected * rows / matches))
    exact = matches * dim / DIM
    return None if exact <= costs.search + costs.candidate * min(rows, effort(number)) else number
