"""How many candidates a search gets, by the recall that was measured."""

from __future__ import annotations

import pytest

from imgsearch.runs.documents import RecallFigure
from imgsearch.stores import Neighbour
from searcher.recall import tuning


@pytest.mark.parametrize(
    ("images", "steps"),
    [
        (12, [128]),
        (128, [128]),
        (300, [128, 256, 512]),
        (10**6, [128, 256, 512, 1_024, 2_048, 4_096]),
    ],
)
def test_candidates_double_until_they_are_all_images_or_too_many(images: int, steps: list[int]) -> None:
    assert list(tuning.steps(images)) == steps


@pytest.mark.parametrize(
    ("means", "target", "candidates"),
    [
        ({128: [0.99, 1.0], 256: [1.0, 1.0]}, 0.99, 128),
        ({128: [0.98, 1.0], 256: [0.99, 1.0], 512: [1.0, 1.0]}, 0.99, 256),  # every kind of query counts
        ({128: [0.98, 0.99], 256: [1.0, 0.995]}, 1.0, 256),
        ({128: [0.5], 256: [0.6], 512: [0.6]}, 0.99, 256),  # more effort than for the best recall is of no use
    ],
)
def test_the_fewest_candidates_that_reach_the_target_are_chosen(
    means: dict[int, list[float]], target: float, candidates: int
) -> None:
    assert tuning.cheapest(means, target, float) == candidates


@pytest.mark.parametrize(
    ("rows", "dim", "steps"),
    [
        (900, 512, [900]),
        (2_000, 512, [1_000, 1_414, 2_000]),
        (4_100, 512, [1_000, 1_414, 2_000, 2_828, 4_000, 4_100]),
        (4_100, 32_768, [1_000, 1_414, 2_000]),
    ],
)
def test_the_rows_to_compare_grow_to_the_whole_table(rows: int, dim: int, steps: list[int]) -> None:
    assert list(tuning.row_steps(rows, dim)) == steps


@pytest.mark.parametrize(("dim", "most"), [(512, 128_000), (1_024, 64_000)])
def test_the_most_rows_to_compare_take_the_time_of_the_most_candidates(dim: int, most: int) -> None:
    """8 000 + 32 × 4 096 rows of 512 dimensions are 139 072."""
    assert max(tuning.row_steps(10**6, dim)) == pytest.approx(most, abs=1)


def test_the_cheapest_that_reaches_the_target_is_chosen() -> None:
    means = {"a": [1.0, 0.98], "b": [0.99, 1.0], "c": [1.0, 1.0]}
    cost = {"a": 1.0, "b": 3.0, "c": 2.0}.__getitem__
    assert tuning.cheapest(means, 0.99, cost) == "c"
    assert tuning.cheapest(means, 0.98, cost) == "a"


def found(*rows: str) -> list[list[Neighbour]]:
    return [[Neighbour(id, 0.5) for id in row] for row in rows]


@pytest.mark.parametrize(
    ("fewer", "more", "target", "expected"),
    [
        (found("abcd", "abcd"), found("abcd", "dcba"), 1.0, True),
        (found("abcd", "abcd"), found("abcd", "abce"), 1.0, False),
        (found("abcd", "abcd"), found("abcd", "abce"), 0.5, True),  # 1 of 8 differs: a quarter of the half
        (found("abcd", "abcd"), found("abcd", "abef"), 0.5, False),
        (found("ab"), found("abcd"), 0.9, False),  # fewer were found before
    ],
)
def test_searches_agree_if_more_candidates_change_almost_nothing(
    fewer: list[list[Neighbour]], more: list[list[Neighbour]], target: float, expected: bool
) -> None:
    assert tuning.agree(fewer, more, target) is expected


def figure(k: int, mean: float) -> RecallFigure:
    return {"queries": "images", "k": k, "mean": mean, "worst": 0.0}


def test_a_recall_below_the_target_is_a_warning_with_the_difference_and_what_to_do() -> None:
    text = tuning.warning([figure(10, 0.995), figure(100, 0.9)], 0.99, "4,096 candidates")
    assert text.startswith("recall@100 of images is 0.9000, 0.0900 below the target 0.99 (index.recall)")
    assert "4,096 candidates" in text
    assert "controller restore" in text


@pytest.mark.parametrize("figures", [[], [figure(10, 0.99), figure(100, 1.0)]])
def test_a_recall_that_reaches_the_target_is_none(figures: list[RecallFigure]) -> None:
    assert tuning.warning(figures, 0.99, "128 candidates") == ""
