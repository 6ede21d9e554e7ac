"""What is counted of the metadata, and what it may not cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from imgsearch.runs.documents import Facet, Facets
from searcher.ingest.facets import DISTINCT, FIELDS, MAX_CHARS, VALUES, FacetCounts
from searcher.search.responses import FieldValues


def count_facets(*images: Mapping[str, Any]) -> dict[str, Facet]:
    counts = FacetCounts()
    counts.add(images)
    return {facet["field"]: facet for facet in counts.most_frequent()}


def values(facet: Facet) -> list[tuple[Any, int]]:
    return [(entry["value"], entry["count"]) for entry in facet["values"]]


def test_values_are_counted_the_most_frequent_first() -> None:
    facet = count_facets({"camera": "a"}, {"camera": "b"}, {"other": 1}, {"camera": "b"})["camera"]
    assert facet == {
        "field": "camera",
        "type": "text",
        "images": 3,
        "distinct": 2,
        "values": [{"value": "b", "count": 2}, {"value": "a", "count": 1}],
        "min": None,
        "max": None,
        "whole": None,
    }


def test_equally_frequent_values_have_the_same_order_each_time() -> None:
    assert [value for value, _ in values(count_facets(*({"x": letter} for letter in "cab"))["x"])] == ["a", "b", "c"]


def test_numbers_have_a_range() -> None:
    facet = count_facets({"n": 3}, {"n": -1.5}, {"n": 0})["n"]
    assert (facet["type"], facet["min"], facet["max"]) == ("number", -1.5, 3)


@pytest.mark.parametrize("numbers", [[2**53 + 1, 2**53], [-(2**63), 2**63 - 1, 0.5], [2**53 + 1, float(2**53)]])
def test_a_range_of_whole_numbers_has_every_digit(numbers: list[float]) -> None:
    facet = count_facets(*({"n": number} for number in numbers))["n"]
    document = Facets(run="r1", index="photos", images=len(numbers), fields=[facet])
    (read,) = Facets.from_json(document.to_json(), "facets.json").fields
    served = json.loads(FieldValues.model_validate(read).model_dump_json())
    for key, number in (("min", min(numbers)), ("max", max(numbers))):
        assert (type(served[key]), served[key]) == (type(number), number)


def test_numbers_are_whole_if_all_of_them_are_however_many_there_are() -> None:
    fractions = [number / DISTINCT for number in range(DISTINCT + 1)]  # from 0.0 to 1.0, with no list of values
    ranges = {"int": [1, 2], "float": [1.0, 2.0, 2**60], "mixed": [1, 1.5, 2], "fractions": fractions}
    wholes = {}
    for name, numbers in ranges.items():
        facet = count_facets(*({"n": number} for number in numbers))["n"]
        document = Facets(run="r1", index="photos", images=len(numbers), fields=[facet])
        (read,) = Facets.from_json(document.to_json(), "facets.json").fields
        wholes[name] = FieldValues.model_validate(read).whole
    assert wholes == {"int": True, "float": True, "mixed": False, "fractions": False}


def test_a_file_of_an_earlier_version_is_read() -> None:
    facet = count_facets({"n": 3})["n"]
    del facet["whole"]  # type: ignore[misc]
    document = Facets(run="r1", index="photos", images=1, fields=[facet])
    (read,) = Facets.from_json(document.to_json(), "facets.json").fields
    assert FieldValues.model_validate(read).whole is None


def test_a_list_counts_each_of_its_values_once_for_an_image() -> None:
    facet = count_facets({"labels": ["cat", "dog", "cat"]}, {"labels": ["dog"]})["labels"]
    assert (facet["type"], facet["images"], values(facet)) == ("list", 2, [("dog", 2), ("cat", 1)])


def test_true_is_not_one() -> None:
    facets = count_facets({"x": True}, {"x": 1}, {"x": True}, {"y": False})
    assert facets["x"]["type"] == "text"
    assert [(type(value), count) for value, count in values(facets["x"])] == [(bool, 2), (int, 1)]
    assert (facets["y"]["type"], facets["y"]["min"]) == ("bool", None)


@pytest.mark.parametrize(("mixed_values", "type"), [([1, 2.5], "number"), ([1, "a"], "text"), (["a", ["a"]], "list")])
def test_a_field_of_several_types_is_of_the_one_that_fits_all(mixed_values: list[Any], type: str) -> None:
    facet = count_facets(*({"x": value} for value in mixed_values))["x"]
    assert facet["type"] == type
    assert (facet["max"] is not None) == (type == "number")


def test_every_name_of_the_source_is_a_field_as_it_is() -> None:
    assert list(count_facets({"_key": "a.jpg", "#likes": 3, "": 1, "a": 1})) == ["", "#likes", "_key", "a"]


def test_a_field_of_too_many_values_has_none_but_its_range() -> None:
    at_limit, over_limit = (
        count_facets(*({"n": number} for number in range(size)))["n"] for size in (DISTINCT, DISTINCT + 1)
    )
    assert (at_limit["distinct"], len(at_limit["values"])) == (DISTINCT, VALUES)
    assert (over_limit["distinct"], over_limit["values"], over_limit["images"]) == (None, [], DISTINCT + 1)
    assert (over_limit["min"], over_limit["max"]) == (0, DISTINCT)


def test_a_field_with_prose_is_nothing_to_choose_from() -> None:
    facets = count_facets({"x": "a"}, {"x": "a" * (MAX_CHARS + 1)}, {"x": "a"}, {"y": "a" * MAX_CHARS})
    assert (facets["x"]["distinct"], facets["x"]["images"]) == (None, 3)
    assert facets["y"]["distinct"] == 1


def test_field_names_do_not_fill_the_memory() -> None:
    facets = count_facets(*({f"f{number}": 1} for number in range(FIELDS + 5)), {"f0": 1})
    assert len(facets) == FIELDS
    assert facets["f0"]["images"] == 2
