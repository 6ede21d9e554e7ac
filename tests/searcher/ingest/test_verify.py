"""Runs that are incomplete or damaged, and stores that lose or change vectors: nothing is published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imgsearch.errors import PermanentError
from imgsearch.runs import parts
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import PartRow
from imgsearch.stores import Record
from tests.searcher.ingest.bench import A_KEYS, B_KEYS, DIM, IngestBench, vector


class TestRefused:
    """Each is a PermanentError, and the previous run stays published."""

    @pytest.fixture
    def old_bench(self, bench: IngestBench) -> IngestBench:
        bench.write_run("r0", B_KEYS)
        bench.ingest("r0")
        return bench

    def check_refused(self, bench: IngestBench, sentence: str) -> None:
        with pytest.raises(PermanentError, match=sentence):
            bench.ingest("r1")
        assert bench.store.pointers()["photos"].run == "r0"
        assert bench.stored_keys("photos-r0") == set(B_KEYS)
        assert not bench.storage.exists(RunFolder("r1").report)

    def test_no_plan(self, old_bench: IngestBench) -> None:
        self.check_refused(old_bench, r"r1 .*plan\.json")

    def test_a_shard_without_its_marker(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        old_bench.storage.delete(folder.shard(1))
        self.check_refused(old_bench, r"1 of 2 shards of run r1 .*done\.json \(shard 1\)")

    def test_a_missing_part(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        (old_bench.root / folder.part(0, 1)).unlink()
        self.check_refused(old_bench, r"part-00001\.parquet does not exist")

    def test_a_damaged_part(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        data = bytearray(old_bench.storage.get(folder.part(0, 1)))
        old_bench.storage.put(folder.part(0, 1), bytes(data[:-20]))
        self.check_refused(old_bench, "part-00001.parquet is damaged")

    def test_a_part_with_rows_missing(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS, digests=False)
        old_bench.write_part(folder, 0, 1, ["a6"], [])
        self.check_refused(old_bench, r"r1/shards/00000/done\.json counts 10 vectors, but the parts have 8: .*shard 0")

    def test_a_plan_of_more_images(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        plan = Plan.from_json(old_bench.storage.get(folder.plan), "plan")
        old_bench.storage.put(folder.plan, replace(plan, images=22).to_json())
        self.check_refused(old_bench, r"run r1 .*22 images .*20 vectors")

    def test_a_damaged_list_of_bad_images(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        old_bench.storage.put(folder.bad(0, 0), b"PAR1")
        self.check_refused(old_bench, "bad-00000.parquet is damaged")

    def test_a_part_of_another_model(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS, digests=False)
        old_bench.write_part(folder, 0, 1, ["a6", "a8", "a10"], [], fingerprint="f2")
        self.check_refused(old_bench, r"part-00001\.parquet .*model")

    def test_shards_of_two_models(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        done = ShardDone.from_json(old_bench.storage.get(folder.done(1)), "done")
        old_bench.storage.put(folder.done(1), replace(done, fingerprint="f2").to_json())
        self.check_refused(old_bench, "fingerprint f2, shard 0 has f1")

    def test_a_done_json_of_another_dimension(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A_KEYS)
        done = ShardDone.from_json(old_bench.storage.get(folder.done(1)), "done")
        old_bench.storage.put(folder.done(1), replace(done, dim=9).to_json())
        self.check_refused(old_bench, "dim 9")

    def test_a_store_that_loses_vectors(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", A_KEYS)
        old_bench.store.lost_ids = {image_id("a3")}
        self.check_refused(old_bench, r"photos-r1 .*19 vectors.* r1 has 20")

    def test_a_store_that_changes_vectors(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", A_KEYS)
        old_bench.store.changed_ids = {image_id("a3")}
        self.check_refused(old_bench, f"photos-r1 has another vector of image {image_id('a3')}: .*`controller restore`")

    def test_a_run_without_one_usable_image(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", [], bad=A_KEYS, shards=1)
        self.check_refused(old_bench, "none of the 20 images")


STRANGER = Record("stranger", {}, vector("stranger"))


@pytest.mark.parametrize("present", [[STRANGER], [Record(image_id("a3"), {}, -vector("a3"))]])
def test_a_collection_with_other_vectors_is_filled_again(bench: IngestBench, present: list[Record]) -> None:
    bench.write_run("r1", A_KEYS)
    bench.store.create("photos-r1", dim=DIM, vectors=100)
    bench.store.add("photos-r1", present)
    report = bench.ingest("r1")
    assert (report.images, report.verified["counted"]) == (20, 20)
    assert bench.store.pointers()["photos"].run == "r1"
    assert bench.stored_keys("photos-r1") == set(A_KEYS)
    (record,) = bench.store.get("photos-r1", [image_id("a3")], vectors=True)
    assert record.vector == pytest.approx(vector("a3"), abs=1e-3)
    assert bench.store.get("photos-r1", ["stranger"]) == []


def test_an_image_that_is_replaced_by_another_is_noticed_though_the_number_is_right(
    bench: IngestBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write_run("r1", A_KEYS)
    bench.store.lost_ids = {image_id("a3")}
    bench.store.create("photos-r1", dim=DIM, vectors=100)
    bench.store.add("photos-r1", [STRANGER])
    with pytest.raises(PermanentError, match="photos-r1 has 19 vectors, but run r1 has 20"):
        bench.ingest("r1")
    assert f"is filled again: collection photos-r1 does not have image {image_id('a3')}" in caplog.text
    assert bench.store.pointers() == {}


def test_a_served_collection_is_not_dropped_but_named(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.ingest("r1")
    bench.store.drop("photos-r1")
    bench.store.create("photos-r1", dim=DIM, vectors=100)
    bench.store.add("photos-r1", [STRANGER])
    with pytest.raises(PermanentError, match=r"photos-r1 has 21 vectors, but run r1 has 20: .*`controller restore`"):
        bench.ingest("r1")
    assert bench.store.count("photos-r1") == 21


def test_a_served_collection_with_other_places_of_thumbnails_than_a_part_made_again_is_named(
    bench: IngestBench,
) -> None:
    folder = bench.write_run("r1", A_KEYS, digests=False)
    bench.ingest("r1")
    name = folder.part(1, 1)
    table, header = parts.from_bytes(bench.storage.get(name), name)
    rows: list[PartRow] = [{**row, "thumb_offset": 510} for row in parts.rows(table)]
    bench.storage.put(name, parts.to_bytes(rows, header))
    with pytest.raises(PermanentError, match=r"another place of the thumbnail of image .*`controller restore`"):
        bench.ingest("r1")


def test_a_store_whose_searches_find_no_image_is_refused(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    bench.store.unfound_ids = {image_id(key) for key in A_KEYS}
    with pytest.raises(PermanentError, match="finds none of 20 of its images"):
        bench.ingest("r1")
    assert bench.store.pointers() == {}


def test_an_image_that_an_approximate_search_misses_is_counted_and_published(
    bench: IngestBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write_run("r1", A_KEYS)
    bench.store.unfound_ids = {image_id("a3"), image_id("a4")}
    report = bench.ingest("r1")
    assert report.verified == {"counted": 20, "sampled": 20, "found_itself": 18}
    assert bench.store.pointers()["photos"].images == 20
    assert "a search for the vectors of 20 images finds 18 of them in photos-r1" in caplog.text


def test_an_image_is_found_by_another_with_the_same_vector(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS, shards=1, part_images=20, digests=False)
    table, header = parts.from_bytes(bench.storage.get(folder.part(0, 0)), "part")
    rows: list[PartRow] = [{**row, "embedding": vector("twin")} for row in parts.rows(table)]
    bench.storage.put(folder.part(0, 0), parts.to_bytes(rows, header))
    report = bench.ingest("r1")
    assert report.images == 20
    assert report.verified["found_itself"] == 20
