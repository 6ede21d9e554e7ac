from __future__ import annotations

import csv
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from imgsearch.errors import PermanentError
from imgsearch.metrics import exposed
from imgsearch.runs import parts, tables
from imgsearch.runs.documents import Facet, Facets, Map, Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import BadRow, Header, PartRow
from imgsearch.settings import MetricsSettings, RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from tests.fakes import InMemoryStore
from tests.programs import free_port, program_env
from tests.searcher.library import picture

DIM = 8
THUMBNAIL = picture("green", format="WEBP")


class CountingStore(InMemoryStore):
    """A store that counts what is added, and may be told to lose or spoil some of it."""

    def __init__(self) -> None:
        super().__init__()
        self.added_ids: list[str] = []
        self.probe_count = 0
        self.lost_ids: set[str] = set()
        self.stop: tuple[int, threading.Event] | None = None

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        self.probe_count += len(ids)
        return super().missing(collection, ids)

    def add(self, collection: str, records: Sequence[Record]) -> None:
        self.added_ids += [record.id for record in records]
        super().add(collection, [record for record in records if record.id not in self.lost_ids])
        if self.stop and len(self.added_ids) >= self.stop[0]:
            self.stop[1].set()

    def reopen(self) -> CountingStore:
        return self


class IngestBench:
    """A storage with embedded runs in it, and a store."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path
        self.storage = Storage(tmp_path.as_uri())
        self.store = CountingStore()
        self.stopping = threading.Event()
        self.metrics = IngestMetrics()

    def write_run(
        self,
        run: str,
        keys: Sequence[str],
        *,
        bad: Sequence[str] = (),
        shards: int = 2,
        part_images: int = 3,
        **plan: Any,
    ) -> RunFolder:
        """Writes a run as the embedder leaves it."""
        folder = RunFolder(run)
        for shard in range(shards):
            shard_keys, shard_bad = keys[shard::shards], bad[shard::shards]
            part_count = max(1, -(-len(shard_keys) // part_images))
            for number in range(part_count):
                self.write_part(
                    folder,
                    shard,
                    number,
                    shard_keys[number * part_images :][:part_images],
                    shard_bad if number == 0 else [],
                )
            shard_document = ShardDone(
                shard, len(shard_keys), len(shard_bad), part_count, "m", "f1", DIM, 100, 1.5, {"encode": 1.0}
            )
            self.storage.put(folder.done(shard), shard_document.to_json())
        plan_document = Plan(
            run=run,
            index="photos",
            source="/photos",
            model="m",
            shards=shards,
            images=len(keys) + len(bad),
            bytes=100,
            part_images=part_images,
            **plan,
        )
        self.storage.put(folder.plan, plan_document.to_json())
        return folder

    def write_part(
        self,
        folder: RunFolder,
        shard: int,
        number: int,
        keys: Sequence[str],
        bad: Sequence[str],
        fingerprint: str = "f1",
    ) -> None:
        rows: list[PartRow] = [
            {
                "id": image_id(key),
                "key": key,
                "etag": "",
                "embedding": vector(key),
                "width": 4,
                "height": 3,
                "thumb_offset": 512,
                "thumb_length": len(THUMBNAIL),
                "metadata": json.dumps({"label": key[0]}),
            }
            for key in keys
        ]
        header = Header("m", fingerprint, "", DIM, images=len(rows), bad=len(bad))
        self.storage.put(folder.part(shard, number), parts.to_bytes(rows, header))
        bad_rows: list[BadRow] = [{"key": key, "stage": "decode", "reason": "truncated", "etag": ""} for key in bad]
        self.storage.put(folder.bad(shard, number), parts.bad_to_bytes(bad_rows))

    def write_thumbnails(self, folder: RunFolder, shards: int = 2) -> None:
        """Writes what the rows of a run say where their thumbnails are."""
        for shard in range(shards):
            document = ShardDone.from_json(self.storage.get(folder.done(shard)), "done")
            for part in range(document.parts):
                self.storage.put(folder.thumbs(shard, part), bytes(512) + THUMBNAIL)

    def ingest(self, run: str) -> Report:
        self.metrics = IngestMetrics()
        return Ingest(
            run,
            storage=self.storage,
            store=self.store,
            metrics=self.metrics,
            stopping=self.stopping,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        ).run()[0]

    def stored_keys(self, collection: str) -> set[str]:
        keys = [f"{letter}{number}" for letter in "abcdxyz" for number in range(40)]
        return {str(r.metadata["_key"]) for r in self.store.get(collection, [image_id(key) for key in keys])}


def vector(key: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(list(key.encode())).normal(size=DIM).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values), np.float32)


@pytest.fixture
def bench(tmp_path: Path) -> IngestBench:
    return IngestBench(tmp_path)


A = [f"a{number}" for number in range(20)]
B = [f"b{number}" for number in range(5)]


def test_every_row_is_stored_published_and_reported(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A, bad=["x1", "x2"])
    report = bench.ingest("r1")
    assert bench.stored_keys("photos-r1") == set(A)
    pointer = bench.store.pointers()["photos"]
    assert (pointer.run, pointer.collection, pointer.images, pointer.dim) == ("r1", "photos-r1", 20, DIM)
    assert (report.images, report.bad, report.vectors_added) == (20, 2, 20)
    assert report.verified == {"counted": 20, "sampled": 20, "found_itself": 20}
    assert report.bad_reasons == {"decode: truncated": 2}
    assert Report.from_json(bench.storage.get(folder.report), "report") == report
    bad_list = list(csv.DictReader(io.StringIO(bench.storage.get(folder.bad_list).decode())))
    assert [row["key"] for row in bad_list] == ["x1", "x2"]


def value(metrics: IngestMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"imgsearch_ingest_{name}")


def test_metrics_count_what_happened_and_their_last_figures_are_reported(bench: IngestBench) -> None:
    bench.write_run("r1", A, bad=["x1", "x2"], part_images=4)
    bench.store.stop = (3, bench.stopping)
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    added_count = len(bench.store.added_ids)
    assert value(bench.metrics, "added_total") == added_count
    bench.stopping.clear()
    bench.store.stop = None
    report = bench.ingest("r1")
    assert value(bench.metrics, "planned") == 20
    assert value(bench.metrics, "parts_total") == 6
    assert value(bench.metrics, "added_total") == 20 - added_count
    assert value(bench.metrics, "present_total") == added_count
    assert value(bench.metrics, "batch_vectors") == 2
    assert value(bench.metrics, "batch_seconds") is not None
    assert report.ingest_stages == bench.metrics.stage_seconds()
    assert list(report.ingest_stages) == ["read", "store", "verify", "publish", "facets", "map"]
    for stage in report.ingest_stages:
        assert bench.metrics.registry.get_sample_value("imgsearch_ingest_stage_seconds_total", {"stage": stage})
    assert report.embed_bytes == 200
    assert report.embed_stages == {"encode": 2.0}


def test_metrics_are_read_over_http_while_it_runs(bench: IngestBench) -> None:
    texts = []

    class Scraped(CountingStore):
        def add(self, collection: str, records: Sequence[Record]) -> None:
            super().add(collection, records)
            texts.append(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    bench.store = Scraped()
    bench.write_run("r1", A, shards=1, part_images=10)
    port = free_port()
    work = Ingest("r1", storage=bench.storage, store=bench.store, metrics=bench.metrics, stopping=bench.stopping)
    with exposed(bench.metrics.registry, port):
        work.run()
    assert len(texts) == 2
    assert "imgsearch_ingest_planned 20.0" in texts[0]
    assert "imgsearch_ingest_added_total 10.0" in texts[1]


def test_a_metrics_port_in_use_is_a_usage_error(bench: IngestBench) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        settings = Settings(
            run=RunSettings(id="r1"),
            storage=StorageSettings(bench.storage.uri),
            store=StoreSettings(f"chroma+{bench.root.as_uri()}/chroma"),
            metrics=MetricsSettings(listener.getsockname()[1]),
        )
        completed = subprocess.run(
            [sys.executable, "-m", "searcher", "ingest"], env=program_env(settings.to_env()), capture_output=True
        )
    assert completed.returncode == 2
    assert f"cannot serve metrics on port {settings.metrics.port}: it is in use" in completed.stdout.decode()


def test_a_record_says_where_its_thumbnail_is_and_keeps_the_sources_metadata(bench: IngestBench) -> None:
    bench.write_run("r1", A)
    bench.ingest("r1")
    (record,) = bench.store.get("photos-r1", [image_id("a7")])
    assert record.metadata == {
        "label": "a",
        "_key": "a7",
        "_run": "r1",
        "_thumbs": "00001/00001",
        "_offset": 512,
        "_length": len(THUMBNAIL),
        "_width": 4,
        "_height": 3,
    }


def test_a_repeated_ingest_adds_and_publishes_nothing(bench: IngestBench) -> None:
    bench.write_run("r1", A)
    bench.ingest("r1")
    pointers = bench.store.pointers()
    bench.store.added_ids.clear()
    report = bench.ingest("r1")
    assert bench.store.added_ids == []
    assert bench.store.pointers() == pointers
    assert (report.images, report.vectors_added) == (20, 0)


@pytest.mark.parametrize("after", [1, 5, 17])
def test_an_interrupted_ingest_publishes_nothing_and_adds_only_the_rest_later(bench: IngestBench, after: int) -> None:
    bench.write_run("r1", A, part_images=2)
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
    assert bench.stored_keys("photos-r1") == set(A)


class TestRefused:
    """Each is a PermanentError, and the previous run stays published."""

    @pytest.fixture
    def old_bench(self, bench: IngestBench) -> IngestBench:
        bench.write_run("r0", B)
        bench.ingest("r0")
        return bench

    def check_refused(self, bench: IngestBench, sentence: str) -> None:
        with pytest.raises(PermanentError, match=sentence):
            bench.ingest("r1")
        assert bench.store.pointers()["photos"].run == "r0"
        assert bench.stored_keys("photos-r0") == set(B)
        assert not bench.storage.exists(RunFolder("r1").report)

    def test_no_plan(self, old_bench: IngestBench) -> None:
        self.check_refused(old_bench, r"r1 .*plan\.json")

    def test_a_shard_without_its_marker(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        old_bench.storage.delete(folder.shard(1))
        self.check_refused(old_bench, r"1 of 2 shards of run r1 .*done\.json \(shard 1\)")

    def test_a_missing_part(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        (old_bench.root / folder.part(0, 1)).unlink()
        self.check_refused(old_bench, r"part-00001\.parquet does not exist")

    def test_a_damaged_part(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        data = bytearray(old_bench.storage.get(folder.part(0, 1)))
        old_bench.storage.put(folder.part(0, 1), bytes(data[:-20]))
        self.check_refused(old_bench, "part-00001.parquet is damaged")

    def test_a_part_with_rows_missing(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        old_bench.write_part(folder, 0, 1, ["a6"], [])
        self.check_refused(old_bench, r"run r1 .*20 images .*18 vectors")

    def test_a_damaged_list_of_bad_images(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        old_bench.storage.put(folder.bad(0, 0), b"PAR1")
        self.check_refused(old_bench, "bad-00000.parquet is damaged")

    def test_a_part_of_another_model(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        old_bench.write_part(folder, 0, 1, ["a6", "a8", "a10"], [], fingerprint="f2")
        self.check_refused(old_bench, r"part-00001\.parquet .*model")

    def test_shards_of_two_models(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        document = json.loads(old_bench.storage.get(folder.done(1)))
        old_bench.storage.put(folder.done(1), ShardDone(**{**document, "fingerprint": "f2"}).to_json())
        self.check_refused(old_bench, "fingerprint f2, shard 0 has f1")

    def test_a_done_json_of_another_dimension(self, old_bench: IngestBench) -> None:
        folder = old_bench.write_run("r1", A)
        document = json.loads(old_bench.storage.get(folder.done(1)))
        old_bench.storage.put(folder.done(1), ShardDone(**{**document, "dim": 9}).to_json())
        self.check_refused(old_bench, "dim 9")

    def test_a_store_that_loses_vectors(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", A)
        old_bench.store.lost_ids = {image_id("a3")}
        self.check_refused(old_bench, r"photos-r1 .*19 vectors.* r1 has 20")

    def test_a_collection_with_other_vectors(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", A)
        old_bench.store.create("photos-r1", dim=DIM)
        old_bench.store.add("photos-r1", [Record("stranger", {}, vector("stranger"))])
        self.check_refused(old_bench, r"photos-r1 .*21 vectors.* r1 has 20")

    def test_a_store_that_changes_vectors(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", A)
        old_bench.store.create("photos-r1", dim=DIM)
        old_bench.store.add("photos-r1", [Record(image_id("a3"), {}, -vector("a3"))])
        self.check_refused(old_bench, f"{image_id('a3')} does not find itself in photos-r1")

    def test_a_run_without_one_usable_image(self, old_bench: IngestBench) -> None:
        old_bench.write_run("r1", [], bad=A, shards=1)
        self.check_refused(old_bench, "none of the 20 images")


def test_identical_images_may_find_each_other(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A, shards=1, part_images=20)
    table, header = parts.from_bytes(bench.storage.get(folder.part(0, 0)), "part")
    rows: list[PartRow] = [{**row, "embedding": vector("twin")} for row in parts.rows(table)]
    bench.storage.put(folder.part(0, 0), parts.to_bytes(rows, header))
    report = bench.ingest("r1")
    assert report.images == 20
    assert report.verified["found_itself"] < 20


def test_the_last_two_collections_are_kept(bench: IngestBench) -> None:
    for run in ("r1", "r2", "r3"):
        bench.write_run(run, A)
        bench.ingest(run)
    assert sorted(bench.store.collections()) == ["photos-r2", "photos-r3"]
    pointer = bench.store.pointers()["photos"]
    assert pointer.run == "r3"
    assert pointer.previous is not None
    assert pointer.previous.run == "r2"


def test_a_repeated_ingest_does_not_undo_a_rollback(bench: IngestBench) -> None:
    for run in ("r1", "r2"):
        bench.write_run(run, A)
        bench.ingest(run)
    current = bench.store.pointers()["photos"]
    assert current.previous is not None
    bench.store.publish(replace(current.previous, previous=replace(current, previous=None)))
    bench.ingest("r2")
    assert bench.store.pointers()["photos"].run == "r1"


def test_an_update_takes_over_what_has_not_changed(bench: IngestBench) -> None:
    bench.write_run("r1", A, bad=["x1", "x2"])
    bench.ingest("r1")
    second = bench.write_run("r2", ["a3", "c1"], shards=1, base="r1", kept=20, removed=1)
    dropped_rows = [{"key": "a3"}, {"key": "a4"}]  # a3 has changed, a4 is gone; x1 and x2 are bad still
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped_rows)))
    report = bench.ingest("r2")
    assert bench.stored_keys("photos-r2") == {*A, "c1"} - {"a4"}
    assert (report.images, report.bad) == (20, 2)
    runs = {r.metadata["_run"] for r in bench.store.get("photos-r2", [image_id("a3"), image_id("a5")])}
    assert runs == {"r1", "r2"}
    third = bench.write_run("r3", ["a4"], shards=1, base="r2", kept=21, removed=0)
    bench.storage.put(third.dropped, tables.to_bytes(tables.table(tables.DROPPED, [{"key": "c1"}])))
    assert bench.ingest("r3").images == 20
    assert bench.stored_keys("photos-r3") == set(A)


def test_facets_count_every_row_that_is_published(bench: IngestBench) -> None:
    bench.write_run("r1", [*A, *B])
    bench.ingest("r1")
    second = bench.write_run("r2", ["a3", "c1"], shards=1, base="r1", kept=23, removed=1)
    dropped_rows = [{"key": "a3"}, {"key": "a4"}]
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped_rows)))
    bench.ingest("r2")
    labels = {"field": "label", "type": "text", "distinct": 3, "min": None, "max": None}
    values = [{"value": "a", "count": 19}, {"value": "b", "count": 5}, {"value": "c", "count": 1}]
    for _ in range(2):
        facets = Facets.from_json(bench.storage.get(second.facets), second.facets)
        assert facets == Facets("r2", "photos", 25, [Facet(**labels, images=25, values=values)])  # type: ignore[typeddict-item]
        bench.storage.delete(second.facets)
        bench.ingest("r2")  # now all of it is in the store


def test_a_map_shows_every_image_of_a_small_run(bench: IngestBench) -> None:
    base = bench.write_run("r1", A)
    bench.write_thumbnails(base)
    second = bench.write_run("r2", B, shards=1, base="r1", kept=20)
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, [])))
    bench.write_thumbnails(second, shards=1)
    bench.ingest("r2")
    image_map = Map.from_json(bench.storage.get(second.map), second.map)
    assert (image_map.run, image_map.index, image_map.images, image_map.columns) == ("r2", "photos", 25, 5)
    assert {point["id"] for point in image_map.points} == {image_id(key) for key in [*A, *B]}
    assert all(0 <= point[axis] <= 1 for point in image_map.points for axis in ("x", "y"))
    with Image.open(io.BytesIO(bench.storage.get(second.sprite))) as sprite:
        assert sprite.size == (5 * image_map.tile, 5 * image_map.tile)
        assert sprite.convert("RGB").getpixel((image_map.tile // 2, image_map.tile // 2)) == pytest.approx(
            (0, 255, 0), abs=9
        )


def test_an_error_of_the_map_does_not_prevent_the_publication(
    bench: IngestBench, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bench.write_run("r1", A)
    bench.ingest("r1")
    assert bench.store.pointers()["photos"].run == "r1"
    assert bench.storage.exists(folder.report)
    assert not bench.storage.exists(folder.map)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"run r1 .*map.*thumbs-0000\d\.tar.*", warning)
    bench.write_thumbnails(folder)
    bench.ingest("r1")
    assert bench.storage.exists(folder.map), "the missing map was not written"


def test_an_existing_map_is_not_written_again(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A)
    bench.storage.put(folder.map, b"{}")
    bench.write_thumbnails(folder)
    bench.ingest("r1")
    assert not bench.storage.exists(folder.sprite)


def test_an_ingest_interrupted_at_the_map_writes_it_later(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A)
    bench.write_thumbnails(folder)

    class Stopping(CountingStore):
        def publish(self, pointer: Pointer) -> None:
            super().publish(pointer)
            bench.stopping.set()

    bench.store = Stopping()
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    assert bench.store.pointers()["photos"].run == "r1"
    assert not bench.storage.exists(folder.map)
    assert not bench.storage.exists(folder.report)
    bench.stopping.clear()
    bench.ingest("r1")
    assert bench.storage.exists(folder.map)
    assert bench.storage.exists(folder.report)


def test_an_empty_collection_is_not_probed(bench: IngestBench) -> None:
    bench.write_run("r1", A)
    bench.ingest("r1")
    assert bench.store.probe_count == 0
    bench.ingest("r1")
    assert bench.store.probe_count == 20
