"""Hits become pages of results."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.settings import SearchSettings
from imgsearch.stores import Hit, Pointer
from searcher.search import ranking
from searcher.search.requests import Search
from searcher.search.responses import Result

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


def hits(*scores: float) -> list[Hit]:
    return [
        Hit(f"id{n}", score, {"n": n}, internal={"key": f"{n}.jpg", "width": 4, "height": 3})
        for n, score in enumerate(scores)
    ]


def page(pool: list[Hit], search: Search) -> tuple[list[Result], int | None]:
    return ranking.page(ranking.grouped(pool, search), search, offset=search.offset, pointer=POINTER)


def test_a_page_ends_where_the_next_begins() -> None:
    first, next_offset = page(hits(0.9, 0.8, 0.7), Search(text="x", k=2))
    assert [result["id"] for result in first] == ["id0", "id1"]
    assert next_offset == 2
    last, next_offset = page(hits(0.9, 0.8, 0.7), Search(text="x", k=2, offset=2))
    assert [result["id"] for result in last] == ["id2"]
    assert next_offset is None


def test_results_below_the_minimum_score_are_left_out() -> None:
    results, next_offset = page(hits(0.9, 0.2, 0.1), Search(text="x", k=1, min_score=0.5))
    assert [result["score"] for result in results] == [0.9]
    assert next_offset is None


def test_a_result_shows_the_sources_metadata_and_where_the_image_is() -> None:
    ((result,), _) = page(hits(1.0000001), Search(text="x"))
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


def test_pools_double_up_to_the_last_page_and_one_more() -> None:
    limits = SearchSettings(max_k=10, max_offset=50)
    assert list(ranking.pools(11, limits)) == [11, 22, 44, 61]
    assert list(ranking.pools(61, limits)) == [61]


def test_a_larger_pool_does_not_change_earlier_ranks() -> None:
    ranks = ranking.ranked([], reversed(hits(0.5, 0.9, 0.5)))
    assert [hit.id for hit in ranks] == ["id1", "id0", "id2"]
    late_hit = Hit("better but missed before", 1.0, {})
    larger_ranks = ranking.ranked(ranks, [late_hit, *hits(0.5, 0.9, 0.5, 0.4)])
    assert [hit.id for hit in larger_ranks] == ["id1", "id0", "id2", late_hit.id, "id3"]


@pytest.mark.parametrize(
    ("candidates", "pool", "end", "expected"),
    [
        (hits(0.9, 0.8), 2, 1, True),  # one more than the page has
        (hits(0.9, 0.8), 2, 2, False),
        (hits(0.9, 0.8), 3, 2, True),  # the store has no more
        (hits(0.9, 0.4), 2, 2, True),  # what comes now is not similar enough
    ],
)
def test_the_pool_grows_only_while_that_helps(candidates: list[Hit], pool: int, end: int, expected: bool) -> None:
    search = Search(text="x", min_score=0.5)
    groups = [ranking.Group(hit) for hit in candidates]
    assert ranking.enough(groups, candidates, search, end=end, pool=pool) is expected


def hits_at(*degrees: float) -> list[Hit]:
    """Hits whose vectors have these directions; lengths differ."""
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (1 + np.arange(len(degrees)))[:, None]
    return [Hit(str(angle), 0.5, {}, vector.astype(np.float32)) for angle, vector in zip(degrees, vectors, strict=True)]


def folded(candidates: list[Hit], degrees: float) -> dict[str, list[str]]:
    return {group.best.id: group.duplicates for group in ranking.folded(candidates, float(np.cos(np.radians(degrees))))}


def test_a_near_duplicate_is_folded_into_the_best_similar_result() -> None:
    assert folded(hits_at(0, 50, 10, 45, 90), 15) == {"0": ["10"], "50": ["45"], "90": []}


def test_an_image_that_is_only_similar_to_a_folded_one_is_a_result() -> None:
    """Else a chain of small steps would fold a whole index into one result."""
    assert folded(hits_at(0, 10, 20, 30), 15) == {"0": ["10"], "20": ["30"]}


def test_a_copy_is_folded_at_the_strictest_setting() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 512)).astype(np.float32)
    candidates = [Hit(f"{name}{n}", 0.5, {}, vector) for name in "ab" for n, vector in enumerate(vectors)]
    assert [(group.best.id, group.duplicates) for group in ranking.folded(candidates, 1)] == [
        (f"a{n}", [f"b{n}"]) for n in range(500)
    ]


def test_folding_is_the_same_however_much_comes_after() -> None:
    """In blocks, of which the last one may be cut anywhere; the slow way says what must come out."""
    vectors = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    candidates = [Hit(str(n), 0.5, {}, vector) for n, vector in enumerate(vectors)]
    for size in (0, 1, 255, 256, 257, 512, 700):
        expected: dict[int, list[str]] = {}
        for n in range(size):
            leader = next((candidate for candidate in expected if vectors[candidate] @ vectors[n] >= 0.9), None)
            if leader is None:
                expected[n] = []
            else:
                expected[leader].append(str(n))
        groups = ranking.folded(candidates[:size], 0.9)
        assert [(group.best.id, group.duplicates) for group in groups] == [
            (str(n), duplicates) for n, duplicates in expected.items()
        ]
