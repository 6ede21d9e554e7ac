from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imgsearch.runs.layout import RunFolder
from imgsearch.stores import Record
from searcher.table import columns, half_floats
from searcher.table.reader import RunTable
from tests.searcher.table import images

IMAGES = 40


@pytest.fixture(scope="module")
def records() -> list[Record]:
    metadata = [
        {"n": number, "labels": ["x", "y"], "text": "caf\u00e9"} if number % 3 else {} for number in range(IMAGES)
    ]
    vectors = images.vectors(IMAGES)
    vectors[[3, 12, 30]] = vectors[20]
    return images.records(metadata, vectors)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> RunTable:
    return images.table(tmp_path_factory.mktemp("table"), records)


def test_every_image_has_a_row(table: RunTable, records: list[Record]) -> None:
    ids = [record.id for record in records]
    assert table.rows == IMAGES
    assert table.rows_of([*ids[::-1], "unknown", ids[7]]) == [*range(IMAGES)[::-1], None, 7]
    assert table.rows_of([]) == []


def test_a_record_is_the_one_that_was_written(table: RunTable, records: list[Record]) -> None:
    chosen = [records[number] for number in (33, 0, 8)]
    ids = [record.id for record in chosen]
    assert table.get([ids[0], "unknown", *ids[1:]]) == [replace(record, vector=None) for record in chosen]
    for record, stored in zip(chosen, table.get(ids, vectors=True), strict=True):
        assert stored.vector is not None
        assert stored.vector.dtype == np.float32
        np.testing.assert_array_equal(stored.vector, record.vector)


def test_vectors_are_those_that_were_written(table: RunTable, records: list[Record]) -> None:
    vectors = table.vectors([records[33].id, "unknown", records[2].id])
    assert list(vectors) == [records[33].id, records[2].id]
    np.testing.assert_array_equal(vectors[records[2].id], records[2].vector)


def test_ids_with_one_hash_have_rows_of_their_own(tmp_path: Path, records: list[Record]) -> None:
    """All rows of a file have the hash of one of them."""
    document = images.write(tmp_path, records)
    file = tmp_path / RunFolder("r1").table_file(2)
    batch = pa.ipc.open_file(file).get_batch(0)
    for number in range(7):
        id = records[2 * 7 + number].id
        hashes = pa.array([columns.id_hash(id)] * len(batch), pa.uint64())
        same = batch.set_column(batch.schema.get_field_index("hash"), "hash", hashes)
        file.write_bytes(columns.to_bytes(same))
        table = RunTable(document, [tmp_path / RunFolder("r1").table_file(n) for n in range(document.files)])
        assert table.rows_of([id, records[3].id]) == [2 * 7 + number, 3]


@pytest.mark.parametrize("rows", [range(IMAGES), range(5, 9), [2, 3, 11, 12, 20, 30, 39], [17], []])
def test_exact_search_gives_the_nearest_of_the_rows(table: RunTable, records: list[Record], rows: list[int]) -> None:
    queries = images.vectors(3, seed=1)
    vectors = np.stack([record.vector for record in records if record.vector is not None]).astype(np.float64)
    scores = queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    for k in (1, 4, 100):
        results = table.exact(queries, np.array(rows, np.int64), k=k)
        for query, result in enumerate(results):
            best = sorted(rows, key=lambda row: (-round(scores[query, row], 9), records[row].id))[:k]
            assert [neighbour.id for neighbour in result] == [records[row].id for row in best]
            assert [neighbour.score for neighbour in result] == pytest.approx(scores[query, best], abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_equal_scores_are_ordered_by_id_at_every_k(table: RunTable, records: list[Record], k: int) -> None:
    twins = sorted(records[row].id for row in (3, 12, 20, 30))
    (result,) = table.exact(images.vectors(IMAGES)[20:21], np.arange(IMAGES), k=k)
    assert [neighbour.id for neighbour in result][:4] == twins[:k]


def test_a_result_does_not_depend_on_the_other_queries_of_a_call(table: RunTable) -> None:
    queries = images.vectors(9, seed=2)
    together = table.exact(queries, np.arange(IMAGES), k=IMAGES)
    assert [table.exact(query[None], np.arange(IMAGES), k=IMAGES)[0] for query in queries] == together


def test_a_batch_of_queries_has_a_bounded_number_of_scores_in_memory(tmp_path: Path) -> None:
    rows = 20_000
    document = images.write(tmp_path, images.records([{}] * 500), file_rows=500)
    file = tmp_path / RunFolder("r1").table_file(0)
    everything = np.arange(rows, dtype=np.int64)
    table = RunTable(document, [file] * (rows // 500), scores_in_memory=2 * rows + 1)
    queries = images.vectors(21, seed=3)
    table.exact(queries[:1], everything, k=3)
    tracemalloc.start()
    try:
        found = table.exact(queries, everything, k=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * rows * np.float32().nbytes
    assert found == RunTable(document, [file] * (rows // 500)).exact(queries, everything, k=3)


@pytest.mark.parametrize(("dim", "column"), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 3)])
def test_every_finite_float16_is_multiplied_exactly(dim: int, column: int) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = bits.view(np.float16)[np.isfinite(bits.view(np.float16))]
    vectors = np.repeat(numbers[:, None], dim, axis=1)
    query = np.zeros((1, dim), np.float32)
    query[0, column] = 1
    products = half_floats.products(vectors, np.arange(len(numbers)), query)
    np.testing.assert_array_equal(products[0], numbers.astype(np.float32))


@pytest.mark.parametrize("dim", [1, 2, 3, 17, 512])
def test_products_are_those_of_numpy_in_each_dimension(dim: int) -> None:
    vectors, queries = images.vectors(600, dim=dim), images.vectors(2, seed=1, dim=dim)
    products = half_floats.products(vectors.astype(np.float16), np.arange(600), queries)
    np.testing.assert_allclose(products, queries @ vectors.T, atol=1e-6)


def test_products_are_those_of_numpy_for_several_blocks() -> None:
    vectors, queries = images.vectors(1000), images.vectors(2, seed=1)
    rows = np.flatnonzero(np.arange(1000) % 3)
    products = half_floats.products(vectors.astype(np.float16), rows, queries)
    np.testing.assert_allclose(products, queries @ vectors[rows].T, atol=1e-6)
