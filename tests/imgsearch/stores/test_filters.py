from __future__ import annotations

from typing import Any

import pytest

from imgsearch.stores import filters
from imgsearch.stores.filters import Condition, Joined


@pytest.mark.parametrize(
    ("where", "tree"),
    [
        ({"label": "cat"}, Condition("label", "eq", ("cat",))),
        ({"label": {"$eq": "cat"}}, Condition("label", "eq", ("cat",))),
        ({"year": {"$gte": 2020}}, Condition("year", "gte", (2020,))),
        ({"score": {"$lt": 0.5}}, Condition("score", "lt", (0.5,))),
        ({"label": {"$in": ["cat", "dog"]}}, Condition("label", "in", ("cat", "dog"))),
        ({"flag": {"$ne": True}}, Condition("flag", "ne", (True,))),
        ({"tags": {"$not_contains": "blurred"}}, Condition("tags", "not_contains", ("blurred",))),
        ({"#likes": 5}, Condition("#likes", "eq", (5,))),
        ({"$price": {"$lt": 5}}, Condition("$price", "lt", (5,))),
        ({"_key": "theirs"}, Condition("_key", "eq", ("theirs",))),
        ({"": 1}, Condition("", "eq", (1,))),
        ({"#document": {"$contains": "a"}}, Condition("#document", "contains", ("a",))),
        ({"$and": {"$eq": 1}}, Condition("$and", "eq", (1,))),
        ({"$gte": {"$gte": 1}}, Condition("$gte", "gte", (1,))),
        (
            {"$and": [{"label": "cat"}, {"$or": [{"year": 1}, {"year": {"$nin": [2, 3]}}]}]},
            Joined(
                "and",
                (
                    Condition("label", "eq", ("cat",)),
                    Joined("or", (Condition("year", "eq", (1,)), Condition("year", "nin", (2, 3)))),
                ),
            ),
        ),
    ],
)
def test_a_filter_in_chromas_language_becomes_a_tree(where: dict[str, Any], tree: filters.Filter) -> None:
    assert filters.parse(where) == tree


@pytest.mark.parametrize(
    ("filter_", "sentence"),
    [
        ({}, "give one field or operator"),
        ({"a": 1, "b": 2}, r"join several with \$and or \$or"),
        ({"a": {"$gt": 1, "$lt": 3}}, r"join several with \$and"),
        ({"a": {}}, "one operator"),
        ({"a": {"$like": "x"}}, r"unknown operator '\$like'; known are \$eq"),
        ({"$not": {"a": 1}}, r"'\$not' is not a field"),
        ({"$contains": "a"}, r"'\$contains' is not a field"),
        ({"$gte": 3}, r"'\$gte' is not a field; give the operator to a field"),
        ({"$and": 5}, "a list of two or more"),
        ({"$likes": {"a": 1}}, r"'\$likes' is not a field"),
        ({"$and": {"a": 1}}, "a list of two or more"),
        ({"$or": [{"a": 1}]}, "a list of two or more"),
        ({"$and": [{"a": 1}, 5]}, "give one field or operator"),
        ({"a": None}, "can be compared with"),
        ({"a": ["x"]}, "can be compared with"),
        ({"a": {"$eq": {"b": 1}}}, "can be compared with"),
        ({"a": 2**63}, "at most 64 bits"),
        ({"a": float("nan")}, "can be compared with"),
        ({"a": {"$gt": "x"}}, "takes a number"),
        ({"a": {"$lte": True}}, "takes a number"),
        ({"a": {"$in": "x"}}, "a list of values of one type"),
        ({"a": {"$in": []}}, "a list of values of one type"),
        ({"a": {"$in": [1, "x"]}}, "a list of values of one type"),
        ({"a": {"$in": [[1]]}}, "can be compared with"),
        ({"a": "\ud800"}, "not valid Unicode"),
        ({"\ud800": "a"}, "not valid Unicode"),
        ({"a": {"\ud800": "a"}}, "not valid Unicode"),
        ({"a": {"$in": list(range(2000))}}, "at most 1,000 values"),
        ({"$or": [{"a": {"$in": list(range(999))}}, {"b": 1}, {"c": 1}]}, "at most 1,000 values"),
    ],
)
def test_a_mistake_gets_a_sentence_of_its_own(filter_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        filters.parse(filter_)


def test_a_filter_may_not_be_nested_without_end() -> None:
    filter_: dict[str, Any] = {"a": 1}
    for _ in range(9):
        filter_ = {"$and": [filter_, {"b": 2}]}
    with pytest.raises(ValueError, match="at most 8 deep"):
        filters.parse(filter_)
