"""Files of a run that rot, get lost or are edited: nothing is published, and the same command repairs the run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgsearch.errors import PermanentError
from imgsearch.runs import tables
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from tests.faults.run_folder import PART, PHOTOS, Pipeline, photo

R1, R2 = RunFolder("r1"), RunFolder("r2")
Damage = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded run. Tests take a copy."""
    root = tmp_path_factory.mktemp("embedded")
    pipeline = Pipeline(root)
    pipeline.fill()
    pipeline.plan("r1")
    pipeline.embed("r1")
    return root


@pytest.fixture
def pipeline(embedded: Path, tmp_path: Path) -> Pipeline:
    shutil.copytree(embedded, tmp_path, dirs_exist_ok=True)
    return Pipeline(tmp_path)


def change(pipeline: Pipeline, name: str, damage: Damage) -> None:
    pipeline.storage.put(name, damage(pipeline.storage.get(name)))


def flipped(bit: int) -> Damage:
    def flip(data: bytes) -> bytes:
        damaged = bytearray(data)
        damaged[bit // 8 % len(data)] ^= 1 << bit % 8
        return bytes(damaged)

    return flip


def refuse(pipeline: Pipeline, run: str = "r1") -> str:
    """The error of ingest, which publishes nothing."""
    before = pipeline.store.pointers()
    with pytest.raises(PermanentError) as caught:
        pipeline.ingest(run)
    assert pipeline.store.pointers() == before
    return str(caught.value)


def earlier_version(pipeline: Pipeline, run: str = "r1") -> None:
    """Makes the run one of a version without digests and checksums."""
    folder = RunFolder(run)
    documents = [folder.plan, *(folder.done(shard) for shard in range(2))]
    for name in documents:
        document = json.loads(pipeline.storage.get(name))
        for field in ("digests", "changed", "checksum"):
            document.pop(field, None)
        pipeline.storage.put(name, json.dumps(document).encode())
    for name in pipeline.storage.keys(folder.root):
        if name.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(pipeline.storage.get(name)))
            metadata = {key: value for key, value in (table.schema.metadata or {}).items() if b"digest" not in key}
            for field in (b"changed", b"checksum"):
                metadata.pop(field, None)
            sink = pa.BufferOutputStream()
            pq.write_table(table.replace_schema_metadata(metadata or None), sink, compression="zstd")
            pipeline.storage.put(name, sink.getvalue().to_pybytes())


@pytest.mark.parametrize("name", [R1.part(1, 0), R1.bad(1, 0), R1.thumbs(1, 0), R1.done(1)])
def test_no_flipped_bit_is_published(pipeline: Pipeline, name: str) -> None:
    whole = pipeline.storage.get(name)
    for number in range(10):
        pipeline.storage.put(name, flipped(number * len(whole) * 8 // 10 + number)(whole))
        assert f"{name} is damaged" in refuse(pipeline)
    pipeline.storage.put(name, whole)
    assert pipeline.ingest("r1").images == PHOTOS


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[:-1], "is damaged"),
        (lambda data: b"\0" * len(data), "is damaged"),
        (lambda data: b"", "is damaged"),
        (None, "does not exist"),
    ],
    ids=["cut", "zeros", "empty", "missing"],
)
@pytest.mark.parametrize("name", [R1.part(0, 1), R1.bad(0, 1), R1.thumbs(0, 1)])
def test_the_same_command_makes_only_the_damaged_part_again(
    pipeline: Pipeline, name: str, damage: Damage | None, problem: str
) -> None:
    whole = pipeline.shards("r1")
    if damage:
        change(pipeline, name, damage)
    else:
        pipeline.storage.remove(name)
    message = refuse(pipeline)
    assert f"{name} {problem}" in message
    assert message.endswith("give the same command again, which repairs shard 0")
    pipeline.embed("r1")
    assert pipeline.embedded_again() == PART, "not exactly the images of the damaged part"
    assert pipeline.shards("r1") == whole
    assert pipeline.ingest("r1").images == PHOTOS
    assert len(pipeline.records("r1")) == PHOTOS
    pipeline.embed("r1")
    assert pipeline.embedded_again() == 0


def test_a_damaged_part_and_those_behind_it_are_made_again(pipeline: Pipeline) -> None:
    whole = pipeline.shards("r1")
    change(pipeline, R1.thumbs(0, 0), flipped(4000))
    refuse(pipeline)
    pipeline.embed("r1")
    assert pipeline.embedded_again() == 2 * PART
    assert pipeline.shards("r1") == whole


def test_a_damaged_done_json_is_made_again_from_the_parts(pipeline: Pipeline) -> None:
    counts = ShardDone.from_json(pipeline.storage.get(R1.done(0)), "done").digests
    change(pipeline, R1.done(0), lambda data: data.replace(b'"images": 4', b'"images": 5'))
    assert f"{R1.done(0)} is damaged or was changed (field checksum" in refuse(pipeline)
    pipeline.embed("r1")
    assert pipeline.embedded_again() == 0
    assert ShardDone.from_json(pipeline.storage.get(R1.done(0)), "done").digests == counts
    assert pipeline.ingest("r1").images == PHOTOS


def test_a_mark_on_a_whole_shard_costs_no_embedding(pipeline: Pipeline) -> None:
    """As after an error of the network or the memory of the machine that read it."""
    pipeline.storage.put(R1.damaged("r1", 1), b"")
    pipeline.embed("r1")
    assert pipeline.embedded_again() == 0
    assert not pipeline.storage.exists(R1.damaged("r1", 1))


def test_an_unpublished_collection_with_rows_of_an_earlier_ingest_is_dropped(pipeline: Pipeline) -> None:
    """Its records may point to other places of the thumbnails than those that are made again."""
    change(pipeline, R1.part(1, 1), flipped(1000))
    refuse(pipeline)
    assert pipeline.store.collections() == []


def test_a_damaged_shard_of_the_base_is_made_again_by_the_command_of_the_update(pipeline: Pipeline) -> None:
    pipeline.ingest("r1")
    photo(pipeline.photos / "08.png", 8)
    pipeline.plan("r2", base="r1")
    pipeline.embed("r2")
    pipeline.embedded_again()
    whole = pipeline.shards("r1")
    change(pipeline, R1.thumbs(1, 1), flipped(4000))
    message = refuse(pipeline, "r2")
    assert f"{R1.thumbs(1, 1)} is damaged" in message
    assert message.endswith("repairs shard 1 of run r1, which this run updates")
    pipeline.embed("r2")
    assert pipeline.embedded_again() == PART
    assert pipeline.shards("r1") == whole
    assert pipeline.ingest("r2").images == PHOTOS + 1
    assert not list(pipeline.storage.keys(R2.damaged_shards))


def test_an_update_that_embeds_nothing_cannot_repair_its_base(pipeline: Pipeline) -> None:
    pipeline.ingest("r1")
    (pipeline.photos / "03.png").unlink()
    pipeline.plan("r2", base="r1")
    change(pipeline, R1.part(1, 1), flipped(1000))
    assert "index everything again, without --update" in refuse(pipeline, "r2")


def test_a_part_that_rots_before_its_shard_is_done_is_made_again(pipeline: Pipeline) -> None:
    whole = pipeline.shards("r1")
    pipeline.storage.remove(R1.done(0))
    change(pipeline, R1.part(0, 1), lambda data: data[:400] + bytes(8) + data[408:])
    pipeline.embed("r1")
    assert pipeline.embedded_again() == PART
    assert pipeline.shards("r1") == whole


def test_a_resumed_shard_has_the_digests_of_the_parts_before(pipeline: Pipeline) -> None:
    done = ShardDone.from_json(pipeline.storage.get(R1.done(0)), "done")
    assert len(done.digests) == 6
    pipeline.storage.remove(R1.done(0))
    pipeline.storage.remove(R1.part(0, 1))
    pipeline.embed("r1")
    resumed = ShardDone.from_json(pipeline.storage.get(R1.done(0)), "done")
    assert resumed.digests == done.digests


class TestPlan:
    """Its tables cannot be made again: the source may have other images by now."""

    @pytest.mark.parametrize("bit", range(5, 12_000, 1_111))
    def test_a_flipped_bit_in_the_items_embeds_nothing(self, pipeline: Pipeline, bit: int) -> None:
        pipeline.storage.delete(R1.shard(0))
        change(pipeline, R1.items(0), flipped(bit))
        with pytest.raises(PermanentError, match=r"r1/plan/00000\.parquet is damaged .*new --run"):
            pipeline.embed("r1")
        assert pipeline.embedded_again() == 0

    def test_a_flipped_bit_in_the_dropped_keys_publishes_nothing(self, pipeline: Pipeline) -> None:
        pipeline.ingest("r1")
        (pipeline.photos / "03.png").unlink()
        pipeline.plan("r2", base="r1")
        change(pipeline, R2.dropped, flipped(500))
        assert "r2/plan/dropped.parquet is damaged" in refuse(pipeline, "r2")

    def test_another_table_is_refused(self, pipeline: Pipeline) -> None:
        earlier_version(pipeline)
        pipeline.storage.delete(R1.shard(0))
        pipeline.storage.put(R1.items(0), tables.to_bytes(pa.table({"id": ["a"]})))
        with pytest.raises(PermanentError, match=r"r1/plan/00000\.parquet is damaged .*columns"):
            pipeline.embed("r1")


class TestEarlierVersion:
    """Runs without digests."""

    @pytest.fixture
    def old(self, pipeline: Pipeline) -> Pipeline:
        earlier_version(pipeline)
        return pipeline

    def test_is_published(self, old: Pipeline) -> None:
        assert old.embed("r1")[0].digests == {}
        assert old.ingest("r1").images == PHOTOS
        assert old.embedded_again() == 0

    def test_is_resumed(self, old: Pipeline) -> None:
        old.storage.remove(R1.done(0))
        old.storage.remove(R1.part(0, 1))
        done = old.embed("r1")[0]
        assert (done.images, old.embedded_again()) == (2 * PART, PART)
        assert sorted(done.digests) == [
            "bad-00001.parquet",
            "part-00000.parquet",
            "part-00001.parquet",
            "thumbs-00001.tar",
        ]
        assert old.ingest("r1").images == PHOTOS

    @pytest.mark.parametrize("name", [R1.thumbs(0, 1), R1.part(0, 1), R1.bad(0, 1)])
    @pytest.mark.parametrize("damage", [lambda data: b"", None], ids=["empty", "missing"])
    def test_is_repaired_where_files_are_missing_or_empty(
        self, old: Pipeline, name: str, damage: Damage | None
    ) -> None:
        if damage:
            change(old, name, damage)
        else:
            old.storage.remove(name)
        assert name in refuse(old)
        old.embed("r1")
        assert old.embedded_again() == PART
        assert old.ingest("r1").images == PHOTOS

    @pytest.mark.parametrize("field", ["images", "bad"])
    def test_wrong_counts_in_done_json_are_not_published(self, old: Pipeline, field: str) -> None:
        name = R1.done(0)
        document = ShardDone.from_json(old.storage.get(name), name)
        wrong = dataclasses.replace(document, **{field: getattr(document, field) + 1})
        old.storage.put(name, wrong.to_json())
        assert f"{name} counts" in refuse(old)
        old.embed("r1")
        report = old.ingest("r1")
        assert (report.images, report.bad) == (PHOTOS, 0)


def test_a_document_of_another_run_or_shard_is_refused(pipeline: Pipeline) -> None:
    pipeline.storage.put(R1.done(1), pipeline.storage.get(R1.done(0)))
    assert f"{R1.done(1)} is that of shard 0" in refuse(pipeline)
    plan = Plan.from_json(pipeline.storage.get(R1.plan), R1.plan)
    pipeline.storage.put(R1.plan, json.dumps({**dataclasses.asdict(plan), "shards": "2"}).encode())
    assert f"{R1.plan} is damaged or was changed (field shards: input should be a valid integer)" in refuse(pipeline)
