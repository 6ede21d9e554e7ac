"""A source that changes between plan and embed: the index and later updates have what is in the source."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgsearch.runs import parts, tables
from imgsearch.runs.layout import RunFolder
from imgsearch.sources import Source, open_source
from imgsearch.sources.files import ImageFiles
from imgsearch.sources.objects import Prefix
from imgsearch.storage import Storage
from tests.conftest import S3
from tests.fakes import COLOURS, FakeEncoder
from tests.faults.run_folder import PHOTOS, Pipeline


def colour(path: Path, name: str) -> None:
    Image.new("RGB", (16, 16), COLOURS[name]).save(path)


def vector_of(name: str) -> np.ndarray:
    encoder = FakeEncoder()
    return encoder.encode_images([encoder.prepare(Image.new("RGB", (16, 16), COLOURS[name]))])[0]


class Photos:
    """The photos of a pipeline as a source, whose files can be replaced and restored with their etags."""

    def __init__(self, pipeline: Pipeline, aside: Path) -> None:
        self.pipeline = pipeline
        self._aside = aside

    def replace(self, name: str, colour_name: str) -> None:
        path = self.pipeline.photos / name
        shutil.copy2(path, self._aside)
        path.unlink()
        colour(path, colour_name)

    def empty(self, name: str) -> None:
        os.truncate(self.pipeline.photos / name, 0)

    def delete(self, name: str) -> None:
        shutil.move(self.pipeline.photos / name, self._aside)

    def restore(self, name: str) -> None:
        """The same bytes with the same etag: `rsync -t` restores a backup so, and a bucket an earlier version."""
        (self.pipeline.photos / name).unlink(missing_ok=True)
        shutil.copy2(self._aside, self.pipeline.photos / name)

    def etag(self, name: str) -> str:
        return next(item.etag for item in self.pipeline.source().items() if item.key == name)


class Bucket(Photos):
    """The same over S3, whose etag is a hash of the bytes."""

    def __init__(self, pipeline: Pipeline, aside: Path, storage: Storage) -> None:
        super().__init__(pipeline, aside)
        self._storage = storage
        for file in pipeline.photos.iterdir():
            storage.put(file.name, file.read_bytes())

    def replace(self, name: str, colour_name: str) -> None:
        super().replace(name, colour_name)
        self._storage.put(name, (self.pipeline.photos / name).read_bytes())

    def empty(self, name: str) -> None:
        super().empty(name)
        self._storage.put(name, b"")

    def delete(self, name: str) -> None:
        super().delete(name)
        self._storage.remove(name)

    def restore(self, name: str) -> None:
        super().restore(name)
        self._storage.put(name, self._aside.read_bytes())


def open_objects(uri: str) -> Source:
    return ImageFiles(Prefix(Storage(f"file://{uri}")))


@pytest.fixture(params=["folder", "objects", "s3"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Photos:
    if request.param == "s3":
        if not S3:
            pytest.skip("IMGSEARCH_TEST_S3 names no bucket of an S3 server")
        storage: Storage = request.getfixturevalue("s3_storage")
        pipeline = Pipeline(tmp_path, lambda _: ImageFiles(Prefix(storage)))
        pipeline.fill()
        return Bucket(pipeline, tmp_path / "aside.png", storage)
    pipeline = Pipeline(tmp_path, {"folder": open_source, "objects": open_objects}[request.param])
    pipeline.fill()
    return Photos(pipeline, tmp_path / "aside.png")


def rows(pipeline: Pipeline, run: str) -> dict[str, tuple[str, np.ndarray]]:
    """Etag and vector by key, in the parts."""
    found = {}
    for key in pipeline.storage.keys(f"{RunFolder(run).root}/shards"):
        if "part-" in key:
            for row in parts.rows(parts.from_bytes(pipeline.storage.get(key), key)[0]):
                found[row["key"]] = (row["etag"], row["embedding"])
    return found


def test_a_replaced_image_has_the_vector_and_the_etag_of_what_was_read(photos: Photos) -> None:
    pipeline = photos.pipeline
    pipeline.plan("r1")
    listed = photos.etag("01.png")
    photos.replace("01.png", "red")
    done, other = pipeline.embed("r1")
    etag, vector = rows(pipeline, "r1")["01.png"]
    assert etag == photos.etag("01.png") != listed
    assert vector == pytest.approx(vector_of("red"), abs=1e-3)
    assert (done.changed, other.changed) == (["01.png"], [])


def test_an_update_embeds_a_replaced_image_that_was_restored_meanwhile(photos: Photos) -> None:
    pipeline = photos.pipeline
    pipeline.plan("r1")
    photos.replace("01.png", "red")
    pipeline.embed("r1")
    pipeline.ingest("r1")
    photos.restore("01.png")
    assert pipeline.plan("r2", base="r1").images == 1
    assert dropped(pipeline, "r2") == ["01.png"]
    pipeline.embed("r2")
    pipeline.ingest("r2")
    fresh = Pipeline(pipeline.photos.parent / "fresh", lambda _: pipeline.source())
    fresh.plan("r1")
    fresh.embed("r1")
    fresh.ingest("r1")
    updated, expected = pipeline.records("r2"), fresh.records("r1")
    assert updated.keys() == expected.keys()
    assert len(updated) == PHOTOS
    for key, record in expected.items():
        assert updated[key].vector == pytest.approx(record.vector, abs=1e-3), key
    assert pipeline.plan("r3", base="r2").images == 0, "the next update found a change"


def test_an_update_reads_an_image_that_was_empty_while_somebody_wrote_it(photos: Photos) -> None:
    pipeline = photos.pipeline
    pipeline.plan("r1")
    photos.replace("01.png", "red")
    photos.empty("01.png")
    pipeline.embed("r1")
    assert pipeline.ingest("r1").bad_reasons == {"read: the file is empty": 1}
    photos.restore("01.png")
    assert pipeline.plan("r2", base="r1").images == 1


def test_an_update_reads_a_deleted_image_that_was_restored_again(photos: Photos) -> None:
    pipeline = photos.pipeline
    pipeline.plan("r1")
    photos.delete("01.png")
    pipeline.embed("r1")
    assert pipeline.ingest("r1").bad_reasons == {"read: the file was deleted after it was listed": 1}
    photos.restore("01.png")
    assert pipeline.plan("r2", base="r1").images == 1
    pipeline.embed("r2")
    report = pipeline.ingest("r2")
    assert (report.images, report.bad) == (PHOTOS, 0)


def test_a_resumed_shard_remembers_the_changed_images_of_the_parts_before(photos: Photos) -> None:
    pipeline = photos.pipeline
    pipeline.plan("r1")
    photos.replace("00.png", "red")
    pipeline.embed("r1")
    pipeline.storage.remove(RunFolder("r1").done(0))
    pipeline.storage.remove(RunFolder("r1").part(0, 1))
    photos.restore("00.png")
    assert pipeline.embed("r1")[0].changed == ["00.png"]


def test_an_unchanged_source_changes_nothing(photos: Photos) -> None:
    """The etag of a listing is the etag of a read, also in a bucket."""
    pipeline = photos.pipeline
    pipeline.plan("r1")
    assert [done.changed for done in pipeline.embed("r1")] == [[], []]
    assert pipeline.plan("r2", base="r1").images == 0


class TestParquet:
    """The rows of a file that was replaced may be other images."""

    @staticmethod
    def write(path: Path, colours: list[str], *, per_group: int) -> None:
        images = []
        for name in colours:
            colour(path.with_name("one.png"), name)
            images.append(path.with_name("one.png").read_bytes())
        pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path, row_group_size=per_group)

    @pytest.fixture(params=["disk", "objects"])
    def pipeline(self, request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
        prefix = {"disk": "", "objects": "file://"}[request.param]
        return Pipeline(tmp_path, lambda folder: open_source(f"{prefix}{folder}/*.parquet"))

    @pytest.mark.parametrize("per_group", [2, 3])
    def test_that_was_restored_is_embedded_by_the_next_update(
        self, pipeline: Pipeline, tmp_path: Path, per_group: int
    ) -> None:
        pipeline.photos.mkdir()
        path = pipeline.photos / "a.parquet"
        self.write(path, ["red", "green", "blue", "black"], per_group=2)
        os.utime(path, ns=(1, 1))
        shutil.copy2(path, tmp_path / "aside")
        pipeline.plan("r1")
        path.unlink()
        self.write(path, ["white", "yellow", "white", "yellow"], per_group=per_group)
        pipeline.embed("r1")
        found = rows(pipeline, "r1")
        colours = {"a.parquet#0": "white", "a.parquet#1": "yellow", "a.parquet#2": "white", "a.parquet#3": "yellow"}
        for key, (_, vector) in found.items():
            assert vector == pytest.approx(vector_of(colours[key]), abs=1e-3), f"{key} is another row of the file"
        assert len(found) == (4 if per_group == 2 else 2)
        path.unlink()
        shutil.copy2(tmp_path / "aside", path)
        assert pipeline.plan("r2", base="r1").images == 4
        assert dropped(pipeline, "r2") == list(colours)


def dropped(pipeline: Pipeline, run: str) -> list[str]:
    key = RunFolder(run).dropped
    keys: list[str] = tables.dropped_from_bytes(pipeline.storage.get(key), key)["key"].to_pylist()
    return keys
