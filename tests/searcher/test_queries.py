from __future__ import annotations

import numpy as np
import pytest

from imgsearch.settings import SearchSettings
from imgsearch.stores import Hit, Pointer
from searcher import queries
from searcher.problems import Problem
from searcher.schemas import Search

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
    return [Hit(f"id{n}", score, {"_key": f"{n}.jpg", "n": n}) for n, score in enumerate(scores)]


def test_a_weighted_sum_has_length_one() -> None:
    across, up = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert queries.combine([across, up], [3, 4]) == pytest.approx([0.6, 0.8])
    assert queries.combine([across, up], [1, -1]) == pytest.approx([0.5**0.5, -(0.5**0.5)])


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_parts_that_cancel_each_other_out_have_no_direction(noise: float) -> None:
    one = np.array([1, 0], np.float32)
    with pytest.raises(Problem, match="cancel each other out"):
        queries.combine([one, one + np.float32(noise)], [1, -1])


@pytest.mark.parametrize("size", [1e-300, 1, 1e300])
def test_an_embedding_of_any_length_is_a_direction(size: float) -> None:
    assert queries.direction([3 * size, 4 * size], 2) == pytest.approx([0.6, 0.8])


def test_an_embedding_must_have_a_direction_and_the_right_size() -> None:
    with pytest.raises(Problem, match="all its numbers are zero"):
        queries.direction([0, 0], 2)
    with pytest.raises(Problem, match="it has 3 numbers, but vectors of this index have 2"):
        queries.direction([1, 2, 3], 2)


def test_a_page_ends_where_the_next_begins() -> None:
    first, after = queries.page(hits(0.9, 0.8, 0.7), Search(text="x", k=2), pointer=POINTER)
    assert [one.id for one in first] == ["id0", "id1"]
    assert after == 2
    last, after = queries.page(hits(0.9, 0.8, 0.7), Search(text="x", k=2, offset=2), pointer=POINTER)
    assert [one.id for one in last] == ["id2"]
    assert after is None


def test_what_is_less_similar_than_asked_is_no_result_and_no_next_page() -> None:
    results, after = queries.page(hits(0.9, 0.2, 0.1), Search(text="x", k=1, min_score=0.5), pointer=POINTER)
    assert [one.score for one in results] == [0.9]
    assert after is None


def test_a_result_shows_the_sources_metadata_and_where_the_image_is() -> None:
    ((result,), _) = queries.page(hits(1.0000001), Search(text="x"), pointer=POINTER)
    assert result.model_dump(exclude_unset=True) == {
        "id": "id0",
        "score": 1.0,
        "uri": "/data/photos/0.jpg",
        "image": "/v1/images/id0?index=my%20photos",
        "thumbnail": "/v1/images/id0/thumbnail?index=my%20photos",
        "metadata": {"n": 0},
    }


@pytest.mark.parametrize(
    ("source", "key", "place"),
    [
        ("/data/photos", "a/b.jpg", "/data/photos/a/b.jpg"),
        ("s3://bucket/prefix/", "b.jpg", "s3://bucket/prefix/b.jpg"),
        ("hf://datasets/beans?split=train", "train.parquet#7", "hf://datasets/beans/train.parquet#7"),
        ("/data/one.parquet", "one.parquet#7", "/data/one.parquet#7"),
        ("/data/*/*.parquet?column=photo", "x/one.parquet#7", "/data/x/one.parquet#7"),
    ],
)
def test_the_location_is_the_source_and_the_key(source: str, key: str, place: str) -> None:
    assert queries.location(source, key) == place


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        (Search(text="x", k=201), "k: at most 200"),
        (Search(text="x", offset=10_001), "offset: paging goes to 10000"),
        (Search(text="x" * 1001), "text: at most 1000 characters"),
        (Search(parts=[{"text": "x"}] * 17), "parts: at most 16"),  # type: ignore[list-item]
        (Search(parts=[{"text": "x"}, {"text": "x" * 1001}]), "text: at most 1000"),  # type: ignore[list-item]
    ],
)
def test_more_than_is_served_is_refused_by_the_name_of_the_field(search: Search, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as refused:
        queries.check(search, SearchSettings())
    assert refused.value.status == 422
