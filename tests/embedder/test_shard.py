from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedder.metrics import EmbedMetrics
from embedder.plan import plan
from embedder.shard import ShardEmbedder
from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs import parts, tables
from imgsearch.runs.digests import digest
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.settings import MetricsSettings, RunSettings, Settings, StorageSettings
from imgsearch.sources import Item, Source, SourceImage, open_source
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from tests.fakes import FakeEncoder
from tests.programs import program_env

FOLDER = RunFolder("r1")


class Bench:
    """A planned run over a folder, and an embedder for it."""

    def __init__(self, tmp_path: Path, source: Path, part_images: int = 5) -> None:
        self.storage = Storage((tmp_path / "storage").as_uri())
        self.source: Source = open_source(str(source))
        self.encoder = FakeEncoder()
        self.stopping = threading.Event()
        self.metrics = EmbedMetrics()
        run = RunSettings(id="r1", index="photos", source=str(source), model="fake/colours", part_images=part_images)
        self.settings = Settings(run=run)
        self.plan: Plan = plan(self.settings, self.storage, self.source)

    def embed(self, shard: int = 0) -> ShardDone:
        self.metrics = EmbedMetrics()
        return ShardEmbedder(
            plan=self.plan,
            settings=self.settings.embed,
            storage=self.storage,
            source=self.source,
            load_encoder=lambda: self.encoder,
            metrics=self.metrics,
            stopping=self.stopping,
        ).embed(shard)

    def part_keys(self, shard: int = 0) -> list[list[str]]:
        """Keys of each part's rows."""
        keys = []
        while self.storage.exists(name := FOLDER.part(shard, len(keys))):
            keys.append(parts.from_bytes(self.storage.get(name), name)[0]["key"].to_pylist())
        return keys

    def thumbnails(self) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(self.storage.get(FOLDER.thumbs(0, 0)))) as archive:
            return archive.getnames()

    def bad_rows(self, part: int = 0) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = tables.from_bytes(self.storage.get(FOLDER.bad(0, part)), "bad")[0].to_pylist()
        return rows


class StoppingSource:
    """A source that asks the process to stop when its image number `after` is taken."""

    def __init__(self, source: Source, stopping: threading.Event, after: int) -> None:
        self._source = source
        self._stopping = stopping
        self._after = after

    def images(self, items: list[Item], skip: int = 0) -> Iterator[SourceImage]:
        for number, image in enumerate(self._source.images(items, skip)):
            if number == self._after:
                self._stopping.set()
            yield image


def test_every_image_of_a_shard_becomes_a_row_the_first_and_the_last_included(
    tmp_path: Path, photos: Callable[[int], Path]
) -> None:
    bench = Bench(tmp_path, photos(13))
    document = bench.embed()
    assert (document.images, document.bad, document.parts) == (13, 0, 3)
    keys = sorted(path.name for path in photos(13).iterdir())
    assert bench.part_keys() == [keys[:5], keys[5:10], keys[10:]]


def test_a_row_has_its_id_vector_size_metadata_and_the_place_of_its_thumbnail(
    tmp_path: Path, photos: Callable[[int], Path]
) -> None:
    folder = photos(3)
    (folder / "metadata.jsonl").write_text('{"file_name": "red-0000.png", "label": "ein Rot", "n": 7}\n')
    bench = Bench(tmp_path, folder)
    bench.embed()
    table, header = parts.from_bytes(bench.storage.get(FOLDER.part(0, 0)), "part")
    assert table.schema.remove_metadata() == parts.schema(16)
    assert header == parts.Header(
        *("fake/colours", bench.encoder.fingerprint, "fake", 16),
        images=3,
        bad=0,
        thumbs_digest=digest(bench.storage.get(FOLDER.thumbs(0, 0))),
        bad_digest=digest(bench.storage.get(FOLDER.bad(0, 0))),
    )
    row = table.to_pylist()[2]
    assert row["key"] == "red-0000.png"
    assert row["id"] == image_id("red-0000.png")
    assert (row["width"], row["height"]) == (60, 40)
    assert tables.decode_metadata(row["metadata"]) == {"label": "ein Rot", "n": 7}
    assert np.linalg.norm(parts.vectors(table)[2]) == pytest.approx(1, abs=1e-3)
    thumbnail = bench.storage.get_range(FOLDER.thumbs(0, 0), row["thumb_offset"], row["thumb_length"])
    assert Image.open(io.BytesIO(thumbnail)).size == (60, 40)
    assert bench.thumbnails() == [f"{id}.webp" for id in table["id"].to_pylist()]


def test_bad_images_are_rows_with_a_reason_and_never_end_the_job(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    folder = photos(3)
    (folder / "a.jpg").write_bytes(b"<!DOCTYPE html><title>404</title>")
    (folder / "b.jpg").write_bytes(b"")
    (folder / "c.jpg").symlink_to("/nowhere")
    bench = Bench(tmp_path, folder)
    document = bench.embed()
    assert (document.images, document.bad) == (3, 3)
    assert [(row["key"], row["stage"]) for row in bench.bad_rows(0)] == [
        ("a.jpg", "decode"),
        ("b.jpg", "read"),
        ("c.jpg", "read"),
    ]
    assert "web page" in bench.bad_rows(0)[0]["reason"]


def test_a_part_of_nothing_but_bad_images_still_counts(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(b"no image")
    bench = Bench(tmp_path, folder)
    document = bench.embed()
    assert (document.images, document.bad, document.parts) == (0, 7, 2)
    assert bench.encoder.image_calls == []


def test_a_finished_shard_costs_nothing_not_even_the_model(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench = Bench(tmp_path, photos(3))
    first = bench.embed()
    bench.encoder.failure = AssertionError("the model was used")
    assert bench.embed() == first


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 11, 12])
def test_sigterm_writes_the_part_in_hand_and_the_next_process_goes_on_behind_it(
    tmp_path: Path, photos: Callable[[int], Path], after: int
) -> None:
    folder = photos(13)
    (folder / "a-bad-one.png").write_bytes(b"no image")
    bench = Bench(tmp_path, folder)
    source = bench.source
    bench.source = StoppingSource(source, bench.stopping, after)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        bench.embed()
    assert not bench.storage.exists(FOLDER.done(0))
    first_keys = [key for part in bench.part_keys() for key in part]
    bench.stopping.clear()
    bench.source = source
    document = bench.embed()
    assert (document.images, document.bad) == (13, 1)
    all_keys = [key for part in bench.part_keys() for key in part]
    assert all_keys[: len(first_keys)] == first_keys
    assert sorted(all_keys) == sorted(path.name for path in folder.iterdir() if path.name != "a-bad-one.png")
    assert sum(bench.encoder.image_calls) == 13, "an image was embedded twice"


def test_what_a_killed_process_left_without_its_marker_is_written_anew(
    tmp_path: Path, photos: Callable[[int], Path]
) -> None:
    bench = Bench(tmp_path, photos(7))
    bench.storage.put(FOLDER.thumbs(0, 0), b"half a tar")
    bench.storage.put(FOLDER.bad(0, 0), b"half a table")
    assert bench.embed().images == 7
    assert len(bench.thumbnails()) == 5
    assert bench.bad_rows(0) == []


def test_a_second_process_on_the_same_shard_steps_back(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench = Bench(tmp_path, photos(7))
    other = Bench(tmp_path, photos(7))

    embedder = ShardEmbedder(
        plan=bench.plan,
        settings=bench.settings.embed,
        storage=ConcurrentStorage(bench.storage, lambda: other.embed()),  # type: ignore[arg-type]
        source=bench.source,
        load_encoder=lambda: bench.encoder,
        metrics=EmbedMetrics(),
        stopping=bench.stopping,
    )
    with pytest.raises(TemporaryError, match="another process"):
        embedder.embed(0)
    assert bench.embed().images == 7


class ConcurrentStorage:
    """A storage in which a rival finishes the shard just before our first part is put."""

    def __init__(self, storage: Storage, finish_shard: Callable[[], object]) -> None:
        self._storage = storage
        self._finish_shard: Callable[[], object] | None = finish_shard

    def create(self, key: str, data: bytes) -> bool:
        if self._finish_shard:
            finish_shard, self._finish_shard = self._finish_shard, None
            finish_shard()
        return self._storage.create(key, data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)


def test_parts_of_another_model_are_refused(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench = Bench(tmp_path, photos(13))
    bench.source = StoppingSource(bench.source, bench.stopping, 6)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        bench.embed()
    bench.stopping.clear()
    bench.encoder = FakeEncoder("fake/colours", fingerprint="of a later training")
    with pytest.raises(PermanentError, match="fingerprint"):
        bench.embed()


def test_a_failing_model_ends_the_process_and_leaves_no_half_part(
    tmp_path: Path, photos: Callable[[int], Path]
) -> None:
    bench = Bench(tmp_path, photos(3))
    bench.encoder.failure = RuntimeError("the device is gone")
    with pytest.raises(RuntimeError, match="the device is gone"):
        bench.embed()
    assert bench.part_keys() == []


def test_the_program_serves_its_metrics_or_says_why_not(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench = Bench(tmp_path, photos(3))
    with socket.create_server(("0.0.0.0", 0)) as listener:
        settings = replace(
            bench.settings,
            storage=StorageSettings(bench.storage.uri),
            metrics=MetricsSettings(listener.getsockname()[1]),
        )
        completed = subprocess.run(
            [sys.executable, "-m", "embedder", "embed"],
            env=program_env({**settings.to_env(), "JOB_COMPLETION_INDEX": "0"}),
            capture_output=True,
        )
    assert completed.returncode == 2
    assert (
        f"cannot serve metrics on port {settings.metrics.port}: it is in use" in json.loads(completed.stdout)["error"]
    )


def test_metrics_count_what_happened(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    folder = photos(4)
    (folder / "a.png").write_bytes(b"no image")
    bench = Bench(tmp_path, folder)
    bench.embed()
    value = bench.metrics.registry.get_sample_value
    assert value("imgsearch_embed_read_total") == 5
    assert value("imgsearch_embed_decoded_total") == 4
    assert value("imgsearch_embed_encoded_total") == 4
    assert value("imgsearch_embed_written_total") == 5
    reason = {"stage": "decode", "reason": "not an image in a supported format"}
    assert value("imgsearch_embed_bad_total", reason) == 1
    assert value("imgsearch_embed_queue", {"stage": "decode"}) == 0
    assert set(bench.metrics.stage_seconds()) == {"read", "decode", "encode", "write", "texts"}


def test_each_shard_has_its_own_items(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench = Bench(tmp_path, photos(10))
    bench.settings = replace(bench.settings, run=replace(bench.settings.run, id="r2", shard_images=4))
    bench.plan = plan(bench.settings, bench.storage, bench.source)
    documents = [bench.embed(shard) for shard in range(bench.plan.shards)]
    assert bench.plan.shards == 3
    assert sum(document.images for document in documents) == 10


class SharedStorage(Storage):
    """A storage to which another process writes part 1 while this one reads part 0."""

    def __init__(self, uri: str, part: bytes) -> None:
        super().__init__(uri)
        self._part = part

    def get(self, key: str) -> bytes:
        if key == FOLDER.part(0, 0):
            self.put(FOLDER.part(0, 1), self._part)
        return super().get(key)


def shared_bench(tmp_path: Path, source: Path) -> tuple[Bench, bytes]:
    """A shard of which this process has part 0, and the part 1 that the other process writes."""
    bench = Bench(tmp_path, source)
    bench.embed()
    part = bench.storage.get(FOLDER.part(0, 1))
    for name in (FOLDER.done(0), FOLDER.part(0, 1), FOLDER.part(0, 2)):
        bench.storage.remove(name)
    bench.storage = SharedStorage(bench.storage.uri, part)
    return bench, part


def test_a_part_that_another_process_writes_meanwhile_stays(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench, part = shared_bench(tmp_path, photos(13))
    with pytest.raises(TemporaryError, match="another process is embedding shard 0"):
        bench.embed()
    assert bench.storage.get(FOLDER.part(0, 1)) == part


def test_the_other_files_of_a_finished_part_are_not_replaced(tmp_path: Path, photos: Callable[[int], Path]) -> None:
    bench, _ = shared_bench(tmp_path, photos(13))
    bench.storage.put(FOLDER.bad(0, 1), b"of the other process")
    with pytest.raises(TemporaryError):
        bench.embed()
    assert bench.storage.get(FOLDER.bad(0, 1)) == b"of the other process"
