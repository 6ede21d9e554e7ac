"""Scores, by examples that were computed by hand."""

from __future__ import annotations

import pytest

from searcher.evaluation import scores


def test_of_relevant_answers_one_is_enough_or_their_share_counts() -> None:
    relevant = [False, True, False, True, True]
    assert [scores.any_relevant(relevant, k) for k in (1, 2, 5)] == [0.0, 1.0, 1.0]
    assert [scores.precision(relevant, k) for k in (1, 2, 5, 10)] == [0.0, 0.5, 0.6, 0.3]


def test_an_interval_is_wilsons() -> None:
    # 8 of 10: p = 0.8, z² = 3.8415: middle (0.8 + 0.19207) / 1.38415, half 1.41599 × √(0.016 + 0.0096036)
    estimate = scores.estimate([1.0] * 8 + [0.0] * 2)
    assert (estimate.queries, estimate.value) == (10, pytest.approx(0.8))
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)


def test_where_all_is_right_the_interval_still_says_how_few_were_asked() -> None:
    few_queries, many_queries = scores.estimate([1.0] * 10), scores.estimate([1.0] * 1000)
    assert few_queries.low == pytest.approx(0.7225, abs=1e-4)
    assert many_queries.low == pytest.approx(0.9962, abs=1e-4)
    assert [few_queries.high, many_queries.high] == pytest.approx([1.0, 1.0])


def test_a_difference_is_of_the_queries_that_both_have() -> None:
    scores_before = {"a": 0.0, "b": 0.5, "c": 1.0, "only before": 1.0}
    estimate = scores.difference(scores_before, {"a": 0.5, "b": 1.0, "c": 1.0, "only after": 0.0})
    assert estimate is not None
    assert (estimate.queries, estimate.value) == (3, pytest.approx(1 / 3))
    assert 0.0 <= estimate.low < estimate.value < estimate.high <= 0.5
    assert scores.difference(scores_before, {"x": 1.0}) is None


def test_a_difference_that_is_the_same_everywhere_is_sure() -> None:
    estimate = scores.difference({"a": 0.1, "b": 0.9}, {"a": 0.0, "b": 0.8})
    assert estimate is not None
    assert (estimate.low, estimate.high) == (pytest.approx(-0.1), pytest.approx(-0.1))


def test_the_difference_of_a_single_query_has_no_width() -> None:
    estimate = scores.difference({"a": 0.5}, {"a": 0.75})
    assert estimate is not None
    assert (estimate.queries, estimate.value, estimate.low, estimate.high) == (1, 0.25, 0.25, 0.25)
