"""A disk that becomes full at one write: the error names the disk, nothing is published in part, and the same command
finishes once there is space."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from PIL import Image

from embedder.metrics import EmbedMetrics
from embedder.plan import plan
from embedder.shard import ShardEmbedder
from imgsearch import stage
from imgsearch.errors import ExitCode, PermanentError
from imgsearch.runs.documents import Facets, Map, Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import IndexSettings, RunSettings, Settings
from imgsearch.sources import open_source
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record
from imgsearch.stores.chroma import ChromaStore
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from tests.disks import small_disk
from tests.fakes import COLOURS, FakeEncoder
from tests.programs import controller

FOLDER = RunFolder("r1")
DOCUMENTS: dict[str, Callable[[bytes, str], object]] = {
    FOLDER.plan: Plan.from_json,
    FOLDER.done(0): ShardDone.from_json,
    FOLDER.facets: Facets.from_json,
    FOLDER.map: Map.from_json,
    FOLDER.report: Report.from_json,
}


class Disk:
    """A small disk, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("ab") as filler, suppress(OSError):
            while True:
                os.write(filler.fileno(), bytes(2**16))
        assert shutil.disk_usage(self.folder).free == 0

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", megabytes=4) as folder:
        yield Disk(folder)


class FillingStorage(Storage):
    """A storage whose disk becomes full just before one object is written for the first time."""

    def __init__(self, disk: Disk, key: str) -> None:
        super().__init__((disk.folder / "storage").as_uri())
        self._disk = disk
        self._key = key
        self.was_full = False

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._before(key)
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._before(key)
        return super().create(key, data)

    def _before(self, key: str) -> None:
        if key == self._key and not self.was_full:
            self.was_full = True
            self._disk.fill()


class FillingStore(ChromaStore):
    """A Chroma whose disk becomes full just before the first call of a method."""

    def __init__(self, disk: Disk, method: str) -> None:
        super().__init__(f"chroma+file://{disk.folder}/chroma")
        self._disk = disk
        self._method = method
        self.was_full = False

    def create(self, collection: str, *, dim: int, vectors: int) -> None:
        self._before("create")
        super().create(collection, dim=dim, vectors=vectors)

    def add(self, collection: str, records: Sequence[Record]) -> None:
        self._before("add")
        super().add(collection, records)

    def publish(self, pointer: Pointer) -> None:
        self._before("publish")
        super().publish(pointer)

    def reopen(self) -> FillingStore:
        self.close()
        return self

    def _before(self, method: str) -> None:
        if method == self._method and not self.was_full:
            self.was_full = True
            self._disk.fill()


class Run:
    """The stages of one run."""

    def __init__(self, root: Path, storage: Storage, store: ChromaStore) -> None:
        self.storage = storage
        self.store = store
        photos = root / "photos"
        if not photos.exists():
            photos.mkdir()
            for name, colour in COLOURS.items():
                Image.new("RGB", (40, 30), colour).save(photos / f"{name}.png")
        self._source = open_source(str(photos))
        run = RunSettings(id="r1", index="photos", source=str(photos), model="fake/colours", part_images=4)
        self._settings = Settings(run=run)

    def finish(self) -> Report:
        embedder = ShardEmbedder(
            plan=plan(self._settings, self.storage, self._source),
            settings=self._settings.embed,
            storage=self.storage,
            source=self._source,
            load_encoder=FakeEncoder,
            metrics=EmbedMetrics(),
            stopping=threading.Event(),
        )
        embedder.embed(0)
        ingest = Ingest(
            "r1",
            storage=self.storage,
            store=self.store,
            settings=IndexSettings(),
            metrics=IngestMetrics(),
            stopping=threading.Event(),
        )
        return ingest.run()[0]


def check_whole(run: Run, disk: Disk) -> None:
    """What exists is complete, and the index is either published with all images or not at all."""
    for key, from_json in DOCUMENTS.items():
        if run.storage.exists(key):
            from_json(run.storage.get(key), key)
    with closing(ChromaStore(f"chroma+file://{disk.folder}/chroma")) as store:
        pointer = store.pointers().get("photos")
        assert pointer is None or store.count(pointer.collection) == pointer.images == len(COLOURS)


def check_finished(run: Run, disk: Disk) -> None:
    report = run.finish()
    assert (report.run, report.images, report.bad) == ("r1", len(COLOURS), 0)
    check_whole(run, disk)
    with closing(ChromaStore(f"chroma+file://{disk.folder}/chroma")) as store:
        assert store.pointers()["photos"].run == "r1"
    assert all(run.storage.exists(key) for key in DOCUMENTS)
    files = [path.name for path in (disk.folder / "storage").rglob("*") if path.is_file()]
    assert all("#" not in name for name in files), "a partial file of obstore is left"


WRITES = [
    FOLDER.items(0),
    FOLDER.plan,
    FOLDER.thumbs(0, 1),
    FOLDER.bad(0, 1),
    FOLDER.part(0, 1),
    FOLDER.done(0),
    FOLDER.bad_list,
    FOLDER.facets,
    FOLDER.sprite,
    FOLDER.map,
    FOLDER.report,
]


@pytest.mark.parametrize("key", WRITES)
def test_a_full_disk_of_the_storage_is_named_and_the_run_is_finished_later(
    tmp_path: Path, disk: Disk, key: str
) -> None:
    storage = FillingStorage(disk, key)
    run = Run(tmp_path, storage, ChromaStore(f"chroma+file://{disk.folder}/chroma"))
    with pytest.raises(PermanentError, match=f"^no space left on the disk of {storage.uri}: free some space"):
        run.finish()
    assert storage.was_full
    assert not storage.exists(key)
    disk.free()
    check_whole(run, disk)
    check_finished(run, disk)


@pytest.mark.parametrize("method", ["create", "add", "publish"])
def test_a_full_disk_of_chroma_is_named_and_the_run_is_finished_later(tmp_path: Path, disk: Disk, method: str) -> None:
    store = FillingStore(disk, method)
    run = Run(tmp_path, Storage((tmp_path / "storage").as_uri()), store)
    with pytest.raises(PermanentError, match=f"no space left on the disk of .*{disk.folder}/chroma: free some space"):
        run.finish()
    assert store.was_full
    disk.free()
    check_whole(run, disk)
    (disk.folder / "storage").mkdir()
    check_finished(run, disk)


def test_a_full_disk_of_another_file_ends_a_stage_for_good(disk: Disk, tmp_path: Path) -> None:
    """Such as the cache of models. A retry would only repeat the work."""

    def download(settings: Settings, stopping: threading.Event) -> dict[str, str]:
        disk.fill()
        (disk.folder / "weights").write_bytes(bytes(10_000))
        return {}

    result = tmp_path / "result"
    assert stage.run(download, {"IMGSEARCH_LOG_RESULT_FILE": str(result)}) == ExitCode.PERMANENT
    assert "no space left on" in result.read_text()


def test_a_controller_on_a_full_disk_ends_with_one_sentence(disk: Disk, tmp_path: Path, demo_model: str) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photos" / "red.png")
    disk.fill()
    home = disk.folder / "home"
    completed = controller("run-pipeline", tmp_path / "photos", "--local", "--home", home, "--model", demo_model)
    assert completed.returncode == 3, completed.stderr
    assert f"error: no space left on the disk of {home}" in completed.stderr
    assert "Traceback" not in completed.stderr
