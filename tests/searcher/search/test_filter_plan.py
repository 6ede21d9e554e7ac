from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from searcher.search.filter_plan import candidates
from searcher.table.costs import of_rows, of_store

MILLION = 1_000_000


def planned(
    *, matches: int, wanted: int = 101, rows: int = MILLION, dim: int = 512, effort: Callable[[int], int] = int
) -> int | None:
    """The plan with a store."""
    return candidates(
        rows=rows,
        matches=matches,
        wanted=wanted,
        exact=of_rows(matches, dim),
        cost=lambda number: of_store(min(rows, effort(number))),
    )


@pytest.mark.parametrize("share", [0.0001, 0.0005, 0.01])
def test_a_narrow_filter_is_answered_exactly(share: float) -> None:
    assert planned(matches=int(MILLION * share)) is None


@pytest.mark.parametrize("share", [0.12, 0.5, 1.0])
def test_a_broad_filter_is_answered_from_enough_of_the_nearest_images(share: float) -> None:
    number = planned(matches=int(MILLION * share))
    assert number is not None
    deviation = math.sqrt(number * share * (1 - share))
    assert number * share - 3 * deviation >= 101
    assert number * share <= 2 * 101


def test_all_images_of_a_small_index_are_compared() -> None:
    assert planned(rows=5_000, matches=5_000) is None


def test_a_store_that_needs_many_candidates_is_asked_for_broader_filters_only() -> None:
    """The figures of a million images, of which a tenth pass: 1 362 of the nearest are looked at."""
    assert planned(matches=100_000) == 1_362
    assert planned(matches=100_000, effort=lambda number: 11 * number) is None


@pytest.mark.parametrize("wanted", [1, 101, 404, 10_201])
@pytest.mark.parametrize("matches", [1, 20_000, 150_000, 999_999, MILLION])
def test_never_more_than_all_images_are_requested(wanted: int, matches: int) -> None:
    number = planned(matches=matches, wanted=wanted)
    assert number is None or min(wanted, matches) <= number <= MILLION


def test_longer_vectors_make_exact_search_dearer() -> None:
    plans = [planned(matches=60_000, dim=dim) for dim in (256, 4096)]
    assert plans[0] is None
    assert plans[1] is not None
