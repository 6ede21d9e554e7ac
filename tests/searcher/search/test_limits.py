"""Requests that exceed the limits in the settings."""

from __future__ import annotations

import pytest

from imgsearch.settings import SearchSettings
from searcher.search.errors import Problem
from searcher.search.limits import check_search
from searcher.search.requests import Search


@pytest.mark.parametrize(
    ("search", "field", "limit"),
    [
        (Search(text="x", k=201), "k", "200"),
        (Search(text="x" * 1001), "text", "1000 characters"),
        (Search(parts=[{"text": "x"}] * 17), "parts", "16"),  # type: ignore[list-item]
        (Search(parts=[{"text": "x"}, {"text": "x" * 1001}]), "text", "1000"),  # type: ignore[list-item]
    ],
)
def test_more_than_is_served_is_refused_by_the_name_of_the_field(search: Search, field: str, limit: str) -> None:
    with pytest.raises(Problem, match=f"^{field}: .*{limit}") as caught:
        check_search(search, SearchSettings())
    assert caught.value.status == 422
    assert [error["field"] for error in caught.value.errors] == [field]
