"""The table that an ingest writes has the rows of the collection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imgsearch.runs import tables
from imgsearch.runs.documents import Table
from imgsearch.runs.layout import image_id
from imgsearch.stage import Interrupted
from imgsearch.stores import Neighbour, Pointer, Record
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors
from searcher.table.files import TableFiles
from searcher.table.reader import RunTable
from tests.searcher.ingest.bench import A_KEYS, CountingStore, IngestBench, vector


def opened(bench: IngestBench, run: str) -> RunTable:
    files = TableFiles(bench.storage, bench.root / "cache")
    document = files.document(run)
    assert document is not None
    return files.open(document)


def records(store_or_table: CountingStore | RunTable, keys: list[str], collection: str = "") -> dict[str, Record]:
    ids = [image_id(key) for key in keys]
    if isinstance(store_or_table, RunTable):
        found = store_or_table.get(ids, vectors=True)
    else:
        found = store_or_table.get(collection, ids, vectors=True)
    return {str(record.internal["key"]): record for record in found}


def assert_same(actual: dict[str, Record], expected: dict[str, Record]) -> None:
    assert actual.keys() == expected.keys()
    for key, record in actual.items():
        assert replace(record, vector=None) == replace(expected[key], vector=None)
        np.testing.assert_array_equal(record.vector, expected[key].vector)


def test_the_table_has_the_records_of_the_collection(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS, bad=["x1"])
    bench.ingest("r1")
    table = opened(bench, "r1")
    assert table.rows == len(A_KEYS)
    assert_same(records(table, A_KEYS), records(bench.store, A_KEYS, "photos-r1"))
    document = Table.from_json(bench.storage.get(folder.table), folder.table)
    assert (document.files, document.fields, document.all_fields) == (1, ["label"], True)


def test_the_table_of_an_update_has_the_kept_rows_and_not_the_dropped_ones(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    second = bench.write_run("r2", ["a3", "c1"], shards=1, base="r1", kept=18, removed=1)
    dropped = [{"key": "a3"}, {"key": "a4"}]  # a3 has changed, a4 is gone
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped)))
    bench.ingest("r2")
    table = opened(bench, "r2")
    assert table.rows == 20
    assert_same(records(table, [*A_KEYS, "c1"]), records(bench.store, [*A_KEYS, "c1"], "photos-r2"))
    assert {table.get([image_id(key)])[0].internal["run"] for key in ("a3", "a5")} == {"r1", "r2"}
    assert table.get([image_id("a4")]) == []


@pytest.mark.parametrize("after", [1, 17])
def test_an_interrupted_ingest_has_no_table_until_it_is_repeated(bench: IngestBench, after: int) -> None:
    folder = bench.write_run("r1", A_KEYS, part_images=2)
    bench.store.stop = (after, bench.stopping)
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    assert not bench.storage.exists(folder.table)
    bench.stopping.clear()
    bench.store.stop = None
    bench.ingest("r1")
    assert_same(records(opened(bench, "r1"), A_KEYS), records(bench.store, A_KEYS, "photos-r1"))


def test_an_ingest_into_a_new_store_makes_a_lost_or_damaged_table_again(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    before = {key: bench.storage.get(key) for key in bench.storage.keys(folder.root)}
    for change in (
        lambda: bench.storage.remove(folder.table),
        lambda: bench.storage.put(folder.table_file(0), b"damaged"),
        lambda: bench.storage.remove(folder.table_file(0)),
    ):
        change()
        bench.store = CountingStore()
        bench.ingest("r1")
        assert bench.storage.get(folder.table_file(0)) == before[folder.table_file(0)]
        assert bench.storage.get(folder.table) == before[folder.table]


class BlindStore(CountingStore):
    """A store whose approximate searches find nothing."""

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        return [[] for _ in queries]


def test_the_table_of_a_run_whose_graph_misses_images_has_clusters(bench: IngestBench) -> None:
    keys = [f"k{number}" for number in range(10_000)]
    bench.write_run("r1", keys, shards=1, part_images=2_000)
    bench.store = BlindStore()
    report = bench.ingest("r1")
    table = opened(bench, "r1")
    assert 1_000 <= table.compared == report.compared <= 5_000
    assert min(figure["mean"] for figure in report.recall) >= 0.99
    assert report.recall_warning == ""

    queries = [vector(f"query {number}") for number in range(20)]
    vectors = np.stack([vector(key) for key in keys])
    shares = []
    for query in queries:
        best = {image_id(keys[row]) for row in np.argsort(-(vectors @ query))[:100]}
        (found,) = table.nearest(query[None], 100, compared=table.compared)
        shares.append(len(best & {neighbour.id for neighbour in found}) / 100)
    assert np.mean(shares) >= 0.98


def test_the_table_is_complete_before_its_run_is_published(bench: IngestBench) -> None:
    """A searcher opens it as soon as it sees the run."""
    folder = bench.write_run("r1", A_KEYS)
    there: list[bool] = []

    class PublishingStore(CountingStore):
        def publish(self, pointer: Pointer) -> None:
            there.append(bench.storage.exists(folder.table))
            super().publish(pointer)

    bench.store = PublishingStore()
    bench.ingest("r1")
    assert there == [True]
