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
        self.added: list[str] = []
        self.probed = 0
        self.lose: set[str] = set()
        self.stop: tuple[int, threading.Event] | None = None

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        self.probed += len(ids)
        return super().missing(collection, ids)

    def add(self, collection: str, records: Sequence[Record]) -> None:
        self.added += [record.id for record in records]
        super().add(collection, [record for record in records if record.id not in self.lose])
        if self.stop and len(self.added) >= self.stop[0]:
            self.stop[1].set()

    def reopen(self) -> CountingStore:
        return self


class World:
    """A storage with embedded runs in it, and a store."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path
        self.storage = Storage(tmp_path.as_uri())
        self.store = CountingStore()
        self.stopping = threading.Event()
        self.metrics = IngestMetrics()

    def embedded(
        self, run: str, keys: Sequence[str], *, bad: Sequence[str] = (), shards: int = 2, part: int = 3, **plan: Any
    ) -> RunFolder:
        """Writes a run as the embedder leaves it."""
        folder = RunFolder(run)
        for shard in range(shards):
            own, own_bad = keys[shard::shards], bad[shard::shards]
            parts = max(1, -(-len(own) // part))
            for number in range(parts):
                self.part(folder, shard, number, own[number * part :][:part], own_bad if number == 0 else [])
            done = ShardDone(shard, len(own), len(own_bad), parts, "m", "f1", DIM, 100, 1.5, {"encode": 1.0})
            self.storage.put(folder.done(shard), done.to_json())
        made = Plan(
            run=run,
            index="photos",
            source="/photos",
            model="m",
            shards=shards,
            images=len(keys) + len(bad),
            bytes=100,
            part_images=part,
            **plan,
        )
        self.storage.put(folder.plan, made.to_json())
        return folder

    def part(
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
        bad_rows = [BadRow(key, "decode", "truncated", etag="") for key in bad]
        self.storage.put(folder.bad(shard, number), parts.bad_to_bytes(bad_rows))

    def thumbnails(self, folder: RunFolder, shards: int = 2) -> None:
        """Writes what the rows of a run say where their thumbnails are."""
        for shard in range(shards):
            done = ShardDone.from_json(self.storage.get(folder.done(shard)), "done")
            for part in range(done.parts):
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

    def stored(self, collection: str) -> set[str]:
        keys = [f"{letter}{number}" for letter in "abcdxyz" for number in range(40)]
        return {str(r.metadata["_key"]) for r in self.store.get(collection, [image_id(key) for key in keys])}


def vector(key: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = np.random.default_rng(list(key.encode())).normal(size=DIM).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made), np.float32)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


A = [f"a{number}" for number in range(20)]
B = [f"b{number}" for number in range(5)]


def test_every_row_is_stored_published_and_reported(world: World) -> None:
    folder = world.embedded("r1", A, bad=["x1", "x2"])
    report = world.ingest("r1")
    assert world.stored("photos-r1") == set(A)
    pointer = world.store.pointers()["photos"]
    assert (pointer.run, pointer.collection, pointer.images, pointer.dim) == ("r1", "photos-r1", 20, DIM)
    assert (report.images, report.bad, report.vectors_added) == (20, 2, 20)
    assert report.verified == {"counted": 20, "sampled": 20, "found_itself": 20}
    assert report.bad_reasons == {"decode: truncated": 2}
    assert Report.from_json(world.storage.get(folder.report), "report") == report
    listed = list(csv.DictReader(io.StringIO(world.storage.get(folder.bad_list).decode())))
    assert [row["key"] for row in listed] == ["x1", "x2"]


def value(metrics: IngestMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"imgsearch_ingest_{name}")


def test_metrics_count_what_happened_and_their_last_figures_are_reported(world: World) -> None:
    world.embedded("r1", A, bad=["x1", "x2"], part=4)
    world.store.stop = (3, world.stopping)
    with pytest.raises(Interrupted):
        world.ingest("r1")
    added = len(world.store.added)
    assert value(world.metrics, "added_total") == added
    world.stopping.clear()
    world.store.stop = None
    report = world.ingest("r1")
    assert value(world.metrics, "planned") == 20
    assert value(world.metrics, "parts_total") == 6
    assert value(world.metrics, "added_total") == 20 - added
    assert value(world.metrics, "present_total") == added
    assert value(world.metrics, "batch_vectors") == 2
    assert value(world.metrics, "batch_seconds") is not None
    assert report.ingest_stages == world.metrics.stage_seconds()
    assert list(report.ingest_stages) == ["read", "store", "verify", "publish", "facets", "map"]
    for stage in report.ingest_stages:
        assert world.metrics.registry.get_sample_value("imgsearch_ingest_stage_seconds_total", {"stage": stage})
    assert report.embed_bytes == 200
    assert report.embed_stages == {"encode": 2.0}


def test_metrics_are_read_over_http_while_it_runs(world: World) -> None:
    seen = []

    class Scraped(CountingStore):
        def add(self, collection: str, records: Sequence[Record]) -> None:
            super().add(collection, records)
            seen.append(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    world.store = Scraped()
    world.embedded("r1", A, shards=1, part=10)
    port = free_port()
    work = Ingest("r1", storage=world.storage, store=world.store, metrics=world.metrics, stopping=world.stopping)
    with exposed(world.metrics.registry, port):
        work.run()
    assert len(seen) == 2
    assert "imgsearch_ingest_planned 20.0" in seen[0]
    assert "imgsearch_ingest_added_total 10.0" in seen[1]


def test_a_metrics_port_in_use_is_a_usage_error(world: World) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        settings = Settings(
            run=RunSettings(id="r1"),
            storage=StorageSettings(world.storage.uri),
            store=StoreSettings(f"chroma+{world.root.as_uri()}/chroma"),
            metrics=MetricsSettings(taken.getsockname()[1]),
        )
        ended = subprocess.run(
            [sys.executable, "-m", "searcher", "ingest"], env=program_env(settings.to_env()), capture_output=True
        )
    assert ended.returncode == 2
    assert f"cannot serve metrics on port {settings.metrics.port}: it is in use" in ended.stdout.decode()


def test_a_record_says_where_its_thumbnail_is_and_keeps_the_sources_metadata(world: World) -> None:
    world.embedded("r1", A)
    world.ingest("r1")
    (record,) = world.store.get("photos-r1", [image_id("a7")])
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


def test_a_repeated_ingest_adds_and_publishes_nothing(world: World) -> None:
    world.embedded("r1", A)
    world.ingest("r1")
    before = world.store.pointers()
    world.store.added.clear()
    report = world.ingest("r1")
    assert world.store.added == []
    assert world.store.pointers() == before
    assert (report.images, report.vectors_added) == (20, 0)


@pytest.mark.parametrize("after", [1, 5, 17])
def test_an_interrupted_ingest_publishes_nothing_and_adds_only_the_rest_later(world: World, after: int) -> None:
    world.embedded("r1", A, part=2)
    world.store.stop = (after, world.stopping)
    with pytest.raises(Interrupted):
        world.ingest("r1")
    assert world.store.pointers() == {}
    first = list(world.store.added)
    world.stopping.clear()
    world.store.stop = None
    world.ingest("r1")
    assert len(world.store.added) == 20, "a stored vector was added again"
    assert world.store.added[: len(first)] == first
    assert world.stored("photos-r1") == set(A)


class TestRefused:
    """Each is a PermanentError, and the previous run stays published."""

    @pytest.fixture
    def old(self, world: World) -> World:
        world.embedded("r0", B)
        world.ingest("r0")
        return world

    def refused(self, world: World, sentence: str) -> None:
        with pytest.raises(PermanentError, match=sentence):
            world.ingest("r1")
        assert world.store.pointers()["photos"].run == "r0"
        assert world.stored("photos-r0") == set(B)
        assert not world.storage.exists(RunFolder("r1").report)

    def test_no_plan(self, old: World) -> None:
        self.refused(old, r"r1 .*plan\.json")

    def test_a_shard_without_its_marker(self, old: World) -> None:
        folder = old.embedded("r1", A)
        old.storage.delete(folder.shard(1))
        self.refused(old, r"1 of 2 shards of run r1 .*done\.json \(shard 1\)")

    def test_a_missing_part(self, old: World) -> None:
        folder = old.embedded("r1", A)
        (old.root / folder.part(0, 1)).unlink()
        self.refused(old, r"part-00001\.parquet does not exist")

    def test_a_damaged_part(self, old: World) -> None:
        folder = old.embedded("r1", A)
        data = bytearray(old.storage.get(folder.part(0, 1)))
        old.storage.put(folder.part(0, 1), bytes(data[:-20]))
        self.refused(old, "part-00001.parquet is damaged")

    def test_a_part_with_rows_missing(self, old: World) -> None:
        folder = old.embedded("r1", A)
        old.part(folder, 0, 1, ["a6"], [])
        self.refused(old, r"run r1 .*20 images .*18 vectors")

    def test_a_damaged_list_of_bad_images(self, old: World) -> None:
        folder = old.embedded("r1", A)
        old.storage.put(folder.bad(0, 0), b"PAR1")
        self.refused(old, "bad-00000.parquet is damaged")

    def test_a_part_of_another_model(self, old: World) -> None:
        folder = old.embedded("r1", A)
        old.part(folder, 0, 1, ["a6", "a8", "a10"], [], fingerprint="f2")
        self.refused(old, r"part-00001\.parquet .*model")

    def test_shards_of_two_models(self, old: World) -> None:
        folder = old.embedded("r1", A)
        done = json.loads(old.storage.get(folder.done(1)))
        old.storage.put(folder.done(1), ShardDone(**{**done, "fingerprint": "f2"}).to_json())
        self.refused(old, "fingerprint f2, shard 0 has f1")

    def test_a_done_json_of_another_dimension(self, old: World) -> None:
        folder = old.embedded("r1", A)
        done = json.loads(old.storage.get(folder.done(1)))
        old.storage.put(folder.done(1), ShardDone(**{**done, "dim": 9}).to_json())
        self.refused(old, "dim 9")

    def test_a_store_that_loses_vectors(self, old: World) -> None:
        old.embedded("r1", A)
        old.store.lose = {image_id("a3")}
        self.refused(old, r"photos-r1 .*19 vectors.* r1 has 20")

    def test_a_collection_with_other_vectors(self, old: World) -> None:
        old.embedded("r1", A)
        old.store.create("photos-r1", dim=DIM)
        old.store.add("photos-r1", [Record("stranger", {}, vector("stranger"))])
        self.refused(old, r"photos-r1 .*21 vectors.* r1 has 20")

    def test_a_store_that_changes_vectors(self, old: World) -> None:
        old.embedded("r1", A)
        old.store.create("photos-r1", dim=DIM)
        old.store.add("photos-r1", [Record(image_id("a3"), {}, -vector("a3"))])
        self.refused(old, f"{image_id('a3')} .*photos-r1")

    def test_a_run_without_one_usable_image(self, old: World) -> None:
        old.embedded("r1", [], bad=A, shards=1)
        self.refused(old, "none of the 20 images")


def test_identical_images_may_find_each_other(world: World) -> None:
    folder = world.embedded("r1", A, shards=1, part=20)
    table, header = parts.from_bytes(world.storage.get(folder.part(0, 0)), "part")
    rows: list[PartRow] = [{**row, "embedding": vector("twin")} for row in parts.rows(table)]
    world.storage.put(folder.part(0, 0), parts.to_bytes(rows, header))
    report = world.ingest("r1")
    assert report.images == 20
    assert report.verified["found_itself"] < 20


def test_the_last_two_collections_are_kept(world: World) -> None:
    for run in ("r1", "r2", "r3"):
        world.embedded(run, A)
        world.ingest(run)
    assert sorted(world.store.collections()) == ["photos-r2", "photos-r3"]
    pointer = world.store.pointers()["photos"]
    assert pointer.run == "r3"
    assert pointer.previous is not None
    assert pointer.previous.run == "r2"


def test_a_repeated_ingest_does_not_undo_a_rollback(world: World) -> None:
    for run in ("r1", "r2"):
        world.embedded(run, A)
        world.ingest(run)
    current = world.store.pointers()["photos"]
    assert current.previous is not None
    world.store.publish(replace(current.previous, previous=replace(current, previous=None)))
    world.ingest("r2")
    assert world.store.pointers()["photos"].run == "r1"


def test_an_update_takes_over_what_has_not_changed(world: World) -> None:
    world.embedded("r1", A, bad=["x1", "x2"])
    world.ingest("r1")
    new = world.embedded("r2", ["a3", "c1"], shards=1, base="r1", kept=20, removed=1)
    dropped = [{"key": "a3"}, {"key": "a4"}]  # a3 has changed, a4 is gone; x1 and x2 are bad still
    world.storage.put(new.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped)))
    report = world.ingest("r2")
    assert world.stored("photos-r2") == {*A, "c1"} - {"a4"}
    assert (report.images, report.bad) == (20, 2)
    runs = {r.metadata["_run"] for r in world.store.get("photos-r2", [image_id("a3"), image_id("a5")])}
    assert runs == {"r1", "r2"}
    third = world.embedded("r3", ["a4"], shards=1, base="r2", kept=21, removed=0)
    world.storage.put(third.dropped, tables.to_bytes(tables.table(tables.DROPPED, [{"key": "c1"}])))
    assert world.ingest("r3").images == 20
    assert world.stored("photos-r3") == set(A)


def test_facets_count_every_row_that_is_published(world: World) -> None:
    world.embedded("r1", [*A, *B])
    world.ingest("r1")
    new = world.embedded("r2", ["a3", "c1"], shards=1, base="r1", kept=23, removed=1)
    dropped = [{"key": "a3"}, {"key": "a4"}]
    world.storage.put(new.dropped, tables.to_bytes(tables.table(tables.DROPPED, dropped)))
    world.ingest("r2")
    labels = {"field": "label", "type": "text", "distinct": 3, "min": None, "max": None}
    values = [{"value": "a", "count": 19}, {"value": "b", "count": 5}, {"value": "c", "count": 1}]
    for _ in range(2):
        facets = Facets.from_json(world.storage.get(new.facets), new.facets)
        assert facets == Facets("r2", "photos", 25, [Facet(**labels, images=25, values=values)])  # type: ignore[typeddict-item]
        world.storage.delete(new.facets)
        world.ingest("r2")  # now all of it is in the store


def test_a_map_shows_every_image_of_a_small_run(world: World) -> None:
    base = world.embedded("r1", A)
    world.thumbnails(base)
    new = world.embedded("r2", B, shards=1, base="r1", kept=20)
    world.storage.put(new.dropped, tables.to_bytes(tables.table(tables.DROPPED, [])))
    world.thumbnails(new, shards=1)
    world.ingest("r2")
    drawn = Map.from_json(world.storage.get(new.map), new.map)
    assert (drawn.run, drawn.index, drawn.images, drawn.columns) == ("r2", "photos", 25, 5)
    assert {point["id"] for point in drawn.points} == {image_id(key) for key in [*A, *B]}
    assert all(0 <= point[axis] <= 1 for point in drawn.points for axis in ("x", "y"))
    with Image.open(io.BytesIO(world.storage.get(new.sprite))) as sprite:
        assert sprite.size == (5 * drawn.tile, 5 * drawn.tile)
        assert sprite.convert("RGB").getpixel((drawn.tile // 2, drawn.tile // 2)) == pytest.approx((0, 255, 0), abs=9)


def test_an_error_of_the_map_does_not_prevent_the_publication(world: World, caplog: pytest.LogCaptureFixture) -> None:
    folder = world.embedded("r1", A)
    world.ingest("r1")
    assert world.store.pointers()["photos"].run == "r1"
    assert world.storage.exists(folder.report)
    assert not world.storage.exists(folder.map)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"run r1 .*map.*thumbs-0000\d\.tar.*", warning)
    world.thumbnails(folder)
    world.ingest("r1")
    assert world.storage.exists(folder.map), "the missing map was not written"


def test_an_existing_map_is_not_written_again(world: World) -> None:
    folder = world.embedded("r1", A)
    world.storage.put(folder.map, b"{}")
    world.thumbnails(folder)
    world.ingest("r1")
    assert not world.storage.exists(folder.sprite)


def test_an_ingest_interrupted_at_the_map_writes_it_later(world: World) -> None:
    folder = world.embedded("r1", A)
    world.thumbnails(folder)

    class Stopping(CountingStore):
        def publish(self, pointer: Pointer) -> None:
            super().publish(pointer)
            world.stopping.set()

    world.store = Stopping()
    with pytest.raises(Interrupted):
        world.ingest("r1")
    assert world.store.pointers()["photos"].run == "r1"
    assert not world.storage.exists(folder.map)
    assert not world.storage.exists(folder.report)
    world.stopping.clear()
    world.ingest("r1")
    assert world.storage.exists(folder.map)
    assert world.storage.exists(folder.report)


def test_an_empty_collection_is_not_probed(world: World) -> None:
    world.embedded("r1", A)
    world.ingest("r1")
    assert world.store.probed == 0
    world.ingest("r1")
    assert world.store.probed == 20
