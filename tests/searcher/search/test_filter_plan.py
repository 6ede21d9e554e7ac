from __future__ import annotations

import math

import pytest

from searcher.search.filter_plan import candidates

MILLION = 1_000_000


@pytest.mark.parametrize("share", [0.0001, 0.0005, 0.01])
def test_a_narrow_filter_is_answered_exactly(share: float) -> None:
    assert candidates(rows=MILLION, matches=int(MILLION * share), wanted=101, dim=512, effort=int) is None


@pytest.mark.parametrize("share", [0.12, 0.5, 1.0])
def test_a_broad_filter_is_answered_from_enough_of_the_nearest_images(share: float) -> None:
    number = candidates(rows=MILLION, matches=int(MILLION * share), wanted=101, dim=512, effort=int)
    assert number is not None
    deviation = math.sqrt(number * share * (1 - share))
    assert number * share - 3 * deviation >= 101
    assert number * share <= 2 * 101


def test_all_images_of_a_small_index_are_compared() -> None:
    assert candidates(rows=5_000, matches=5_000, wanted=101, dim=512, effort=int) is None


def test_a_store_that_needs_many_candidates_is_asked_for_broader_filters_only() -> None:
    """The figures of a million images, of which a tenth pass: 1 362 of the nearest are looked at."""
    index = {"rows": MILLION, "matches": 100_000, "wanted": 101, "dim": 512}
    assert candidates(**index, effort=int) == 1_362
    assert candidates(**index, effort=lambda number: 11 * number) is None


@pytest.mark.parametrize("wanted", [1, 101, 404, 10_201])
@pytest.mark.parametrize("matches", [1, 20_000, 150_000, 999_999, MILLION])
def test_never_more_than_all_images_are_requested(wanted: int, matches: int) -> None:
    number = candidates(rows=MILLION, matches=matches, wanted=wanted, dim=512, effort=int)
    assert number is None or min(wanted, matches) <= number <= MILLION


def test_longer_vectors_make_exact_search_dearer() -> None:
    plans = [candidates(rows=MILLION, matches=60_000, wanted=101, dim=dim, effort=int) for dim in (256, 4096)]
    assert plans[0] is None
    assert plans[1] is not None
