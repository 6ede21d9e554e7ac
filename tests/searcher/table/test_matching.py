"""Filters by the table keep what the store keeps."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgsearch.stores import Record, VectorStore, filters, open_store
from searcher.table import columns, matching
from searcher.table.reader import RunTable
from searcher.table.values import BatchValues
from tests.fakes import matches
from tests.searcher.table import images

QUERY = np.eye(1, images.DIM, dtype=np.float32)
IMAGES = 60

Filter = Mapping[str, Any]


def passing(metadata: list[dict[str, Any]], where: Filter) -> list[bool]:
    rows = columns.Rows()
    rows.add(images.records(metadata), [json.dumps(image) for image in metadata])
    batch = BatchValues(rows.batch(images.FIELDS))
    return [bool(row) for row in matching.mask(batch, filters.parse(where))]


@settings(deadline=None, max_examples=40)
@given(metadata=st.lists(images.metadata, min_size=1, max_size=6), where=images.filters)
@example(metadata=[{"a": ["x"]}, {}, {"a": "x"}], where={"a": {"$not_contains": "x"}})
@example(metadata=[{"a": True}, {"a": 1}, {"a": 1.0}, {"a": "1"}], where={"a": {"$ne": 1}})
def test_a_filter_keeps_the_rows_whose_metadata_pass(metadata: list[dict[str, Any]], where: Filter) -> None:
    assert passing(metadata, where) == [matches(filters.parse(where), image) for image in metadata]


NUMBERS = [0, 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**53) - 1, 4, 4.0, 4.5, -0.0, 1e-320, 2.0**53, 2.0**63]
BOUNDS = [*NUMBERS, -4.5, math.nextafter(4, 5), -(2.0**63), -1e300, 1e300]


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_numbers_are_compared_exactly(operator: str) -> None:
    """Python compares a whole number with a double exactly, beyond 2**53, too."""
    metadata = [{"a": number} for number in NUMBERS]
    for bound in BOUNDS:
        where = {"a": {operator: bound}}
        assert passing(metadata, where) == [matches(filters.parse(where), image) for image in metadata], where
    assert passing(metadata, {"a": {"$in": [2**53 + 1, 4]}}).count(True) == 3


@pytest.mark.parametrize("values", [[0.0, 4.5], [-0.0, 4.5], [3, 0], [0.0, -0.0], [0.0]])
def test_both_zeros_are_equal_in_a_list(values: list[float]) -> None:
    metadata: list[dict[str, Any]] = [{"a": value} for value in (0.0, -0.0, 4.5, 1.5, 0)]
    expected = [value in values for value in (0.0, -0.0, 4.5, 1.5, 0)]
    assert passing(metadata, {"a": {"$in": values}}) == expected
    assert passing(metadata, {"a": {"$nin": values}}) == [not row for row in expected]
    assert passing([{"a": [1.5, -0.0]}, {"a": [0.0]}, {"a": [1.5]}], {"a": {"$contains": 0.0}}) == [True, True, False]


def test_names_of_fields_that_a_batch_does_not_have_take_no_memory() -> None:
    rows = columns.Rows()
    rows.add(images.records([{"a": 1}]), ['{"a": 1}'])
    batch = BatchValues(rows.batch(["a"]))
    names = [columns.column_name(f"field {number}", int) for number in range(5000)]
    assert batch.get(columns.column_name("a", int)) is batch.get(columns.column_name("a", int)) is not None
    tracemalloc.start()
    try:
        for number, name in enumerate(names):
            if number == 100:
                before = tracemalloc.get_traced_memory()[0]
            assert batch.get(name) is None
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 10_000


@pytest.fixture(scope="module")
def records() -> list[Record]:
    chance = random.Random(0)
    values = [
        lambda: chance.choice(["", "a", "b", "5", "true", "K\u00f6ln"]),
        lambda: chance.randrange(-4, 5),
        lambda: chance.choice([-3.5, -1.0, -0.5, 0.0, 0.5, 2.0, 2.25, 3.0]),
        lambda: chance.choice([True, False]),
    ]

    def value() -> Any:
        kind = chance.choice(values)
        return [kind() for _ in range(chance.randrange(1, 4))] if chance.random() < 0.4 else kind()

    metadata = [{field: value() for field in images.FIELDS if chance.random() < 0.7} for _ in range(IMAGES)]
    return images.records(metadata)


@dataclass(repr=False)  # hypothesis prints it where an example fails
class Stored:
    """The same images in a table and in Chroma."""

    records: list[Record]
    table: RunTable
    chroma: VectorStore


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Iterator[Stored]:
    table = images.table(tmp_path_factory.mktemp("table"), records)
    with closing(open_store(f"chroma+file://{tmp_path_factory.mktemp('chroma')}")) as chroma:
        chroma.create("photos-r1", dim=images.DIM, vectors=IMAGES)
        chroma.add("photos-r1", records)
        yield Stored(records, table, chroma)


@settings(deadline=None, max_examples=40)
@given(where=images.filters)
@example(where={"a": {"$contains": -1}})
@example(where={"a": {"$not_contains": 0.0}})
def test_the_table_keeps_the_images_that_chroma_keeps(stored: Stored, where: Filter) -> None:
    (hits,) = stored.chroma.search("photos-r1", QUERY, k=IMAGES, where=filters.parse(where))
    rows = np.flatnonzero(stored.table.matching(filters.parse(where)))
    assert {stored.records[row].id for row in rows} == {hit.id for hit in hits}


def test_a_filter_names_the_fields_that_it_reads() -> None:
    where = {"$and": [{"a": 1}, {"$or": [{"b": {"$ne": 2}}, {"$and": {"$eq": 3}}]}]}
    assert matching.fields(filters.parse(where)) == {"a", "b", "$and"}
