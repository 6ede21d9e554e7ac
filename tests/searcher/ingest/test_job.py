from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from imgsearch.runs import tables
from imgsearch.runs.documents import Facet, Facets, Report
from imgsearch.runs.layout import image_id
from imgsearch.stage import Interrupted
from tests.searcher.ingest.bench import A_KEYS, B_KEYS, DIM, THUMBNAIL, IngestBench


def test_every_row_is_stored_published_and_reported(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS, bad=["x1", "x2"])
    report = bench.ingest("r1")
    assert bench.stored_keys("photos-r1") == set(A_KEYS)
    pointer = bench.store.pointers()["photos"]
    assert (pointer.run, pointer.collection, pointer.images, pointer.dim) == ("r1", "photos-r1", 20, DIM)
    assert (report.images, report.bad, report.vectors_added) == (20, 2, 20)
    assert report.verified == {"counted": 20, "sampled": 20, "found_itself": 20}
    assert report.recall == [
        {"queries": "images", "k": 10, "mean": 1.0, "worst": 1.0},
        {"queries": "changed images", "k": 10, "mean": 1.0, "worst": 1.0},
    ]
    assert report.bad_reasons == {"decode: truncated": 2}
    assert Report.from_json(bench.storage.get(folder.report), "report") == report
    bad_list = list(csv.DictReader(io.StringIO(bench.storage.get(folder.bad_list).decode())))
    assert [row["key"] for row in bad_list] == ["x1", "x2"]


def test_a_record_says_where_its_thumbnail_is_and_keeps_the_sources_metadata(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    (record,) = bench.store.get("photos-r1", [image_id("a7")])
    assert record.metadata == {"label": "a"}
    assert record.internal == {
        "key": "a7",
        "run": "r1",
        "thumbs": "00001/00001",
        "offset": 512,
        "length": len(THUMBNAIL),
        "width": 4,
        "height": 3,
    }


def test_a_repeated_ingest_adds_and_publishes_nothing(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    pointers = bench.store.pointers()
    bench.store.added_ids.clear()
    report = bench.ingest("r1")
    assert bench.store.added_ids == []
    assert bench.store.pointers() == pointers
    assert (report.images, report.vectors_added) == (20, 0)


@pytest.mark.parametrize("after", [1, 5, 17])
def test_an_interrupted_ingest_publishes_nothing_and_adds_only_the_rest_later(bench: IngestBench, after: int) -> None:
    bench.write_run("r1", A_KEYS, part_images=2)
    bench.store.stop = (after, bench.stopping)
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    assert bench.store.pointers() == {}
    first = list(bench.store.added_ids)
    bench.stopping.clear()
    bench.store.stop = None
    bench.ingest("r1")
    assert len(bench.store.added_ids) == 20, "a stored vector was added again"
    assert bench.store.added_ids[: len(first)] == first
    assert bench.stored_keys("photos-r1") == set(A_KEYS)


def test_the_last_two_collections_are_kept(bench: IngestBench) -> None:
    for run in ("r1", "r2", "r3"):
        bench.write_run(run, A_KEYS)
        bench.ingest(run)
    assert sorted(bench.store.collections()) == ["photos-r2", "photos-r3"]
    pointer = bench.store.pointers()["photos"]
    assert pointer.run == "r3"
    assert pointer.previous is not None
    assert pointer.previous.run == "r2"


def test_the_last_two_tables_are_kept_and_a_dropped_one_is_written_again(bench: IngestBench) -> None:
    tables_of = lambda run: sorted(key for key in bench.storage.keys(f"runs/{run}") if "/table" in key)  # noqa: E731
    folders = [bench.write_run(run, A_KEYS) for run in ("r1", "r2", "r3")]
    for folder in folders:
        bench.ingest(folder.run)
    kept = [sorted([folder.table, folder.table_file(0)]) for folder in folders[1:]]
    assert [tables_of(folder.run) for folder in folders] == [[], *kept]
    bench.ingest("r1")
    assert [len(tables_of(folder.run)) for folder in folders] == [2, 0, 2]


def test_a_repaired_run_is_published_with_its_number_of_images(bench: IngestBench) -> None:
    """A shard that is made again may have an image that could not be used before."""
    bench.write_run("r1", A_KEYS[:19], bad=[A_KEYS[19]])
    bench.ingest("r1")
    before = bench.store.pointers()["photos"]
    bench.write_run("r1", A_KEYS)
    bench.store.drop("photos-r1")
    report = bench.ingest("r1", year=2027)
    after = bench.store.pointers()["photos"]
    assert (before.images, after.images, report.images) == (19, 20, 20)
    assert (after.run, after.published, after.previous) == (before.run, before.published, None)


def test_a_repeated_ingest_does_not_undo_a_rollback(bench: IngestBench) -> None:
    for run in ("r1", "r2"):
        bench.write_run(run, A_KEYS)
        bench.ingest(run)
    current = bench.store.pointers()["photos"]
    assert current.previous is not None
    bench.store.publish(replace(current.previous, previous=replace(current, previous=None)))
    bench.ingest("r2")
    assert bench.store.pointers()["photos"].run == "r1"


def test_an_update_takes_over_what_has_not_changed(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS, bad=["x1", "x2"])
    bench.ingest("r1")
    second = bench.write_run("r2", ["a3", "c1"], shards=1, base="r1", kept=20, removed=1)
    dropped_rows = [{"key": "a3"}, {"key": "a4"}]  # a3 has changed, a4 is gone; x1 and x2 are bad still
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped_rows)))
    report = bench.ingest("r2")
    assert bench.stored_keys("photos-r2") == {*A_KEYS, "c1"} - {"a4"}
    assert (report.images, report.bad) == (20, 2)
    runs = {r.internal["run"] for r in bench.store.get("photos-r2", [image_id("a3"), image_id("a5")])}
    assert runs == {"r1", "r2"}
    third = bench.write_run("r3", ["a4"], shards=1, base="r2", kept=21, removed=0)
    bench.storage.put(third.dropped, tables.to_bytes(tables.table(tables.DROPPED, [{"key": "c1"}])))
    assert bench.ingest("r3").images == 20
    assert bench.stored_keys("photos-r3") == set(A_KEYS)


def test_facets_count_every_row_that_is_published(bench: IngestBench) -> None:
    bench.write_run("r1", [*A_KEYS, *B_KEYS])
    bench.ingest("r1")
    second = bench.write_run("r2", ["a3", "c1"], shards=1, base="r1", kept=23, removed=1)
    dropped_rows = [{"key": "a3"}, {"key": "a4"}]
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped_rows)))
    bench.ingest("r2")
    labels = {"field": "label", "type": "text", "distinct": 3, "min": None, "max": None, "whole": None}
    values = [{"value": "a", "count": 19}, {"value": "b", "count": 5}, {"value": "c", "count": 1}]
    for _ in range(2):
        facets = Facets.from_json(bench.storage.get(second.facets), second.facets)
        assert facets == Facets("r2", "photos", 25, [Facet(**labels, images=25, values=values)])  # type: ignore[typeddict-item]
        bench.storage.delete(second.facets)
        bench.ingest("r2")  # now all of it is in the store


def test_an_empty_collection_is_not_probed(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    assert bench.store.probe_count == 0
    bench.ingest("r1")
    assert bench.store.probe_count == 20


def test_the_report_of_a_run_to_roll_back_to_keeps_the_time_of_its_publication(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.write_run("r2", B_KEYS)
    published = bench.ingest("r1", year=2026).published
    later = bench.ingest("r2", year=2027).published
    assert (published[:4], later[:4]) == ("2026", "2027")
    assert bench.ingest("r1", year=2028).published == published
    assert bench.ingest("r2", year=2028).published == later
