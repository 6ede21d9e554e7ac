"""Exact search and recall, by examples that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from searcher.recall.exact_search import ExactSearch, recall

BEST = np.array([0.9, 0.8, 0.7, 0.6], np.float32)


@pytest.mark.parametrize(
    ("exact", "k", "expected"),
    [
        ([0.9, 0.8, 0.7], 3, 1.0),
        ([0.9, 0.8, 0.6], 3, 2 / 3),  # the fourth instead of the third
        ([0.9, 0.7], 3, 2 / 3),  # one was not found at all
        ([0.6, 0.9, 0.8], 1, 0.0),  # the best comes too late
        ([0.9, 0.8, 0.699995], 3, 1.0),  # as near as the third, but for rounding
        ([0.9, 0.8, 0.6999], 3, 2 / 3),
        ([-np.inf, -np.inf], 2, 0.0),  # ids that no vector has
        ([], 2, 0.0),
    ],
)
def test_recall_counts_what_is_as_near_as_the_kth(exact: list[float], k: int, expected: float) -> None:
    assert recall(exact, BEST, k) == pytest.approx(expected)


def test_exact_search_finds_the_best_over_all_blocks_but_not_the_image_itself() -> None:
    angles = np.radians([0, 10, 20, 40, 80])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids = ["a", "b", "c", "d", "e"]
    search = ExactSearch(vectors[[0, 3]], query_images=["a", None], k=2, results=[["e", "a", "unknown"], []])
    for start in (0, 2, 4):
        search.add(ids[start : start + 2], 3 * vectors[start : start + 2])  # length does not matter
    expected = np.cos(np.radians([[10, 20], [0, 20]]))
    np.testing.assert_allclose(search.best, expected, atol=1e-6)
    assert search.best_rows.tolist() == [[1, 2], [3, 2]]
    assert search.score(0, "e") == pytest.approx(np.cos(np.radians(80)), abs=1e-6)
    assert search.score(0, "a") == search.score(0, "unknown") == -np.inf


def test_where_there_are_fewer_vectors_than_asked_for_the_rest_is_empty() -> None:
    search = ExactSearch(np.eye(2, dtype=np.float32)[:1], query_images=[None], k=3, results=[[]])
    search.add(["a"], np.eye(2, dtype=np.float32)[:1])
    assert search.best.tolist() == [[1.0, -np.inf, -np.inf]]
    assert search.best_rows.tolist() == [[0, -1, -1]]
