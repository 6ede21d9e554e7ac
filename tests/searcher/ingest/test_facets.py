"""What is counted of the metadata, and what it may not cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from imgsearch.runs.documents import Facet
from searcher.ingest.facets import DISTINCT, FIELDS, MAX_CHARS, VALUES, FacetCounts


def counted(*images: Mapping[str, Any]) -> dict[str, Facet]:
    counts = FacetCounts()
    counts.add(images)
    return {facet["field"]: facet for facet in counts.most_frequent()}


def values(facet: Facet) -> list[tuple[Any, int]]:
    return [(one["value"], one["count"]) for one in facet["values"]]


def test_values_are_counted_the_most_frequent_first() -> None:
    found = counted({"camera": "a"}, {"camera": "b"}, {"other": 1}, {"camera": "b"})["camera"]
    assert found == {
        "field": "camera",
        "type": "text",
        "images": 3,
        "distinct": 2,
        "values": [{"value": "b", "count": 2}, {"value": "a", "count": 1}],
        "min": None,
        "max": None,
    }


def test_equally_frequent_values_have_the_same_order_each_time() -> None:
    assert [value for value, _ in values(counted(*({"x": letter} for letter in "cab"))["x"])] == ["a", "b", "c"]


def test_numbers_have_a_range() -> None:
    found = counted({"n": 3}, {"n": -1.5}, {"n": 0})["n"]
    assert (found["type"], found["min"], found["max"]) == ("number", -1.5, 3)


def test_a_list_counts_each_of_its_values_once_for_an_image() -> None:
    found = counted({"labels": ["cat", "dog", "cat"]}, {"labels": ["dog"]})["labels"]
    assert (found["type"], found["images"], values(found)) == ("list", 2, [("dog", 2), ("cat", 1)])


def test_true_is_not_one() -> None:
    found = counted({"x": True}, {"x": 1}, {"x": True}, {"y": False})
    assert found["x"]["type"] == "text"
    assert [(type(value), count) for value, count in values(found["x"])] == [(bool, 2), (int, 1)]
    assert (found["y"]["type"], found["y"]["min"]) == ("bool", None)


@pytest.mark.parametrize(("mixed", "type"), [([1, 2.5], "number"), ([1, "a"], "text"), (["a", ["a"]], "list")])
def test_a_field_of_several_types_is_of_the_one_that_fits_all(mixed: list[Any], type: str) -> None:
    found = counted(*({"x": value} for value in mixed))["x"]
    assert found["type"] == type
    assert (found["max"] is not None) == (type == "number")


def test_what_the_searcher_added_is_no_field() -> None:
    assert list(counted({"_key": "a.jpg", "_width": 3, "b": 1, "a": 1})) == ["a", "b"]


def test_a_field_of_too_many_values_has_none_but_its_range() -> None:
    few, many = (counted(*({"n": number} for number in range(size)))["n"] for size in (DISTINCT, DISTINCT + 1))
    assert (few["distinct"], len(few["values"])) == (DISTINCT, VALUES)
    assert (many["distinct"], many["values"], many["images"]) == (None, [], DISTINCT + 1)
    assert (many["min"], many["max"]) == (0, DISTINCT)


def test_a_field_with_prose_is_nothing_to_choose_from() -> None:
    found = counted({"x": "a"}, {"x": "a" * (MAX_CHARS + 1)}, {"x": "a"}, {"y": "a" * MAX_CHARS})
    assert (found["x"]["distinct"], found["x"]["images"]) == (None, 3)
    assert found["y"]["distinct"] == 1


def test_field_names_do_not_fill_the_memory() -> None:
    found = counted(*({f"f{number}": 1} for number in range(FIELDS + 5)), {"f0": 1})
    assert len(found) == FIELDS
    assert found["f0"]["images"] == 2
