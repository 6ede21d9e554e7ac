"""Hits become pages of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from imgsearch.settings import SearchSettings
from imgsearch.stores import Neighbour, Pointer, Record
from imgsearch.vectors import Vector
from searcher.search import ranking
from searcher.search.requests import Search

POINTER = Pointer(
    index="my photos",
    run="r1",
    collection="c",
    model="m",
    fingerprint="f",
    dim=2,
    images=9,
    source="/data/photos/",
    published="2026-01-01T00:00:00+00:00",
)


def neighbours(*scores: float) -> list[Neighbour]:
    return [Neighbour(f"id{n}", score) for n, score in enumerate(scores)]


def records(count: int) -> list[Record]:
    return [Record(f"id{n}", {"n": n}, internal={"key": f"{n}.jpg", "width": 4, "height": 3}) for n in range(count)]


def test_results_below_the_minimum_score_are_left_out() -> None:
    assert ranking.reaching(neighbours(0.9, 0.5, 0.1), 0.5) == neighbours(0.9, 0.5)
    assert ranking.reaching(neighbours(0.9, -0.5), None) == neighbours(0.9, -0.5)


def test_a_result_shows_the_sources_metadata_and_where_the_image_is() -> None:
    groups = [ranking.Group(neighbour) for neighbour in neighbours(1.0000001)]
    (result,) = ranking.page(groups, records(1), Search(text="x"), pointer=POINTER)
    assert result == {
        "id": "id0",
        "score": 1.0,
        "uri": "/data/photos/0.jpg",
        "image": "/v1/images/id0?index=my%20photos&run=r1",
        "thumbnail": "/v1/images/id0/thumbnail?index=my%20photos&run=r1",
        "width": 4,
        "height": 3,
        "metadata": {"n": 0},
    }


def test_levels_end_at_the_same_ranks_up_to_the_last_page_and_one_more() -> None:
    assert list(ranking.levels(SearchSettings(max_k=10, max_offset=1_000))) == [101, 404, 1_011]
    assert list(ranking.levels(SearchSettings(max_k=10, max_offset=50))) == [61]


def test_a_level_has_the_measured_candidates_and_more_for_more_results() -> None:
    assert [ranking.candidates(level, 128) for level in (101, 404, 1_616)] == [128, 505, 2_020]
    assert [ranking.candidates(level, 1_024) for level in (61, 101, 404, 1_616)] == [1_024, 1_024, 2_048, 4_096]


def test_a_further_level_does_not_change_earlier_ranks() -> None:
    first = ranking.level([], neighbours(0.9, 0.5, 0.5), 3)
    assert [neighbour.id for neighbour in first.ranked] == ["id0", "id1", "id2"]
    late = Neighbour("better but missed before", 1.0)
    second = ranking.level(first.ranked, [late, *neighbours(0.9, 0.5, 0.5, 0.4, 0.3)], 5)
    assert [neighbour.id for neighbour in second.ranked] == ["id0", "id1", "id2", late.id, "id3"]


def test_equally_near_neighbours_are_in_the_order_of_their_ids() -> None:
    found = [Neighbour("c", 0.9), Neighbour("b", 0.5), Neighbour("a", 0.5)]
    assert [neighbour.id for neighbour in ranking.level([], found, 3).ranked] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("found", "ranked", "is_last", "lowest"),
    [
        (neighbours(0.9, 0.8, 0.7), neighbours(0.9, 0.8), False, 0.7),
        (neighbours(0.9, 0.8), neighbours(0.9, 0.8), False, 0.8),
        (neighbours(0.9), neighbours(0.9), True, 0.9),
        ([], [], True, -1.0),
    ],
)
def test_a_level_ends_at_its_rank_and_is_the_last_where_the_store_has_fewer(
    found: list[Neighbour], ranked: list[Neighbour], is_last: bool, lowest: float
) -> None:
    assert ranking.level([], found, 2) == ranking.Level(ranked, is_last, lowest)


@pytest.mark.parametrize("first", [100, 128, 1_024, 4_096])
@pytest.mark.parametrize("count", [50, 101, 102, 110, 404, 405, 1_000])
def test_all_that_reach_the_minimum_score_are_in_a_level(first: int, count: int) -> None:
    """Also where a search finds more of them than its level takes."""
    stored = [Neighbour(str(number), 1 - number / 5_000) for number in range(5_000)]
    min_score = stored[count - 1].score
    ranked: Sequence[Neighbour] = []
    for end in ranking.levels(SearchSettings()):
        level = ranking.level(ranked, stored[: ranking.candidates(end, first)], end)
        ranked = level.ranked
        if level.is_last or level.lowest < min_score:
            break
    assert len(ranking.reaching(ranked, min_score)) == count


def named(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[list[Neighbour], dict[str, Vector]]:
    """Neighbours with these vectors; their names are the rows."""
    return [Neighbour(str(row), 0.5) for row in range(len(vectors))], {str(row): v for row, v in enumerate(vectors)}


def folded(degrees: list[float], at_most: float) -> dict[str, list[str]]:
    """The groups of neighbours in these directions, by their degrees; the vectors have different lengths."""
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (1 + np.arange(len(degrees)))[:, None]
    by_name = {str(angle): vector.astype(np.float32) for angle, vector in zip(degrees, vectors, strict=True)}
    found = [Neighbour(name, 0.5) for name in by_name]
    groups = ranking.folded(found, by_name, float(np.cos(np.radians(at_most))))
    return {group.best.id: group.duplicates for group in groups}


def test_a_near_duplicate_is_folded_into_the_best_similar_result() -> None:
    assert folded([0, 50, 10, 45, 90], 15) == {"0": ["10"], "50": ["45"], "90": []}


def test_an_image_that_is_only_similar_to_a_folded_one_is_a_result() -> None:
    """Else a chain of small steps would fold a whole index into one result."""
    assert folded([0, 10, 20, 30], 15) == {"0": ["10"], "20": ["30"]}


def test_a_copy_is_folded_at_the_strictest_setting() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 512)).astype(np.float32)
    groups = ranking.folded(*named(np.concatenate([vectors, vectors])), 1)
    assert [(group.best.id, group.duplicates) for group in groups] == [(f"{n}", [f"{n + 500}"]) for n in range(500)]


def test_folding_is_the_same_however_much_comes_after() -> None:
    """In blocks, of which the last one may be cut anywhere; the slow way says what must come out."""
    vectors = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, by_name = named(vectors)
    for size in (0, 1, 255, 256, 257, 512, 700):
        expected: dict[int, list[str]] = {}
        for n in range(size):
            leader = next((candidate for candidate in expected if vectors[candidate] @ vectors[n] >= 0.9), None)
            if leader is None:
                expected[n] = []
            else:
                expected[leader].append(str(n))
        groups = ranking.folded(found[:size], by_name, 0.9)
        assert [(group.best.id, group.duplicates) for group in groups] == [
            (str(n), duplicates) for n, duplicates in expected.items()
        ]
