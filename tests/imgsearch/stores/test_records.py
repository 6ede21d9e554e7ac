"""Metadata that every store can hold and filter."""

from __future__ import annotations

import pytest

from imgsearch.stores import filters
from imgsearch.stores.records import filterable


@pytest.mark.parametrize("name", ["_key", "$price", "#id", "_", "$_#", "chroma:x", "ü"])
def test_every_name_can_be_used_in_a_filter(name: str) -> None:
    (kept,) = filterable({name: 1})
    assert not kept.startswith("_")
    filters.check({kept: 1})
