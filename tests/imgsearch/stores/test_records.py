"""Metadata that every store can hold and filter."""

from __future__ import annotations

from typing import Any

import pytest

from imgsearch.stores import filters
from imgsearch.stores.records import filterable


@pytest.mark.parametrize("name", ["_key", "$price", "#id", "_", "$_#", "chroma:x", "ü", ""])
def test_every_name_stays_and_can_be_used_in_a_filter(name: str) -> None:
    assert filterable({name: 1}) == {name: 1}
    assert filters.parse({name: 1}) == filters.Condition(name, "eq", (1,))


def test_names_that_were_once_stripped_do_not_collide() -> None:
    names = ["a", "_a", "#a", "$a", "__a", ""]
    assert filterable({name: number for number, name in enumerate(names)}) == dict(zip(names, range(6), strict=True))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"a": None, "b": []}, {}),
        ({"n": float("nan")}, {}),
        ({"labels": ["cat", None, "dog"]}, {"labels": ["cat", "dog"]}),
        ({"mixed": [1, "a", True]}, {"mixed": ["1", "a", "True"]}),
        ({"numbers": [1, 2.5]}, {"numbers": [1.0, 2.5]}),
        ({"box": {"x": 1}}, {"box": '{"x": 1}'}),
        ({"boxes": [{"x": 1}]}, {"boxes": ['{"x": 1}']}),
        ({"huge": 2**70}, {"huge": str(2**70)}),
        ({"_key": "theirs"}, {"_key": "theirs"}),
        ({"$price": 1}, {"$price": 1}),
        ({"yes": True, "n": 3, "x": 0.5, "s": "ü"}, {"yes": True, "n": 3, "x": 0.5, "s": "ü"}),
    ],
)
def test_metadata_becomes_what_a_store_can_filter(metadata: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filterable(metadata) == expected
