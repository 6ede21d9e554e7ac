"""A store whose files are lost or damaged: the damage is named, and the store is rebuilt from the run folders."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import chromadb
import numpy as np
import pytest

from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.runs import parts
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import Header, PartRow
from imgsearch.settings import IndexSettings
from imgsearch.storage import Storage
from imgsearch.stores import DamagedStore, Hit, Pointer, VectorStore, open_store
from searcher.admin.deletion import delete_run
from searcher.admin.indexes import find_pointer, list_indexes
from searcher.admin.restore import choose, restore
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from tests.programs import ChromaServer

DIM = 8
IMAGES = 1100
"""Chroma writes an HNSW index after 1 000 vectors."""
FILES = ["chroma.sqlite3", "header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]


def vectors() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(IMAGES, DIM)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float16).astype(np.float32)


def write_run(storage: Storage, run: str, *, index: str, images: int = IMAGES) -> None:
    """A run as the embedder leaves it, with one part."""
    rows: list[PartRow] = [
        {
            "id": image_id(str(number)),
            "key": str(number),
            "etag": "",
            "embedding": vector,
            "width": 1,
            "height": 1,
            "thumb_offset": 0,
            "thumb_length": 1,
            "metadata": f'{{"n": {number}}}',
        }
        for number, vector in enumerate(vectors()[:images])
    ]
    folder = RunFolder(run)
    storage.put(folder.part(0, 0), parts.to_bytes(rows, Header("m", "f", "", DIM, images=images, bad=0)))
    storage.put(folder.bad(0, 0), parts.bad_to_bytes([]))
    storage.put(folder.thumbs(0, 0), b"t")
    storage.put(folder.done(0), ShardDone(0, images, 0, 1, "m", "f", DIM, 1, 1.0).to_json())
    storage.put(folder.plan, Plan(run, index, "/photos", "m", 1, images, 1, images).to_json())


class Home:
    """Run folders and a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = Storage((root / "storage").as_uri())
        self.folder = root / "chroma"
        self.url = f"chroma+file://{self.folder}"

    def ingest(self, run: str, store: VectorStore) -> Pointer:
        ingest = Ingest(
            run,
            storage=self.storage,
            store=store,
            settings=IndexSettings(),
            metrics=IngestMetrics(),
            stopping=threading.Event(),
        )
        return ingest.run()[1]

    def restore(self, url: str | None = None, run: str | None = None) -> list[tuple[str, str, int]]:
        result = restore(url or self.url, self.storage, run=run, ingest=self.ingest)
        return [(entry["index"], entry["run"], entry["images"]) for entry in result["restored"]]

    def file(self, name: str) -> Path:
        """A file of Chroma; of the indexes, that of the large one."""
        (index,) = {file.parent for file in self.folder.rglob("index_metadata.pickle")}
        return (self.folder if name == "chroma.sqlite3" else index) / name

    def store(self) -> closing[VectorStore]:
        return closing(open_store(self.url))


@pytest.fixture(scope="module")
def whole_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With a published index of more than 1 000 images, and a small one."""
    home = Home(tmp_path_factory.mktemp("whole"))
    for run, index, images in (("r1", "photos", IMAGES), ("s1", "small", 5)):
        write_run(home.storage, run, index=index, images=images)
        with home.store() as store:
            home.ingest(run, store)
    return home


@pytest.fixture
def home(whole_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(whole_home.root, tmp_path, dirs_exist_ok=True)
    return Home(tmp_path)


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    with file.open("r+b") as data:
        data.truncate(file.stat().st_size * 2 // 3)


def flip_bits(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for position in range(17, len(data), 97):
        data[position] ^= 0x40
    file.write_bytes(data)


def answers(store: VectorStore) -> list[list[Hit]]:
    """What a searcher reads from the index of 1 100 images."""
    collection = store.pointers()["photos"].collection
    assert store.count(collection) == IMAGES
    records = store.get(collection, [image_id(str(number)) for number in range(IMAGES)], vectors=True)
    assert [record.metadata["n"] for record in records] == list(range(IMAGES))
    return store.search(collection, vectors()[:20], k=3)


def check_answers(store: VectorStore) -> None:
    best = [hits[0] for hits in answers(store)]
    assert [hit.id for hit in best] == [image_id(str(number)) for number in range(20)]
    assert [hit.score for hit in best] == pytest.approx([1.0] * 20, abs=1e-3)


@pytest.mark.parametrize("damage", [delete, truncate, flip_bits])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_an_embedded_store_is_named_and_the_store_is_rebuilt(
    home: Home, name: str, damage: Callable[[Path], None]
) -> None:
    damage(home.file(name))
    for _ in range(2):  # the second client of a process, too
        with home.store() as store, pytest.raises(DamagedStore, match=r"is damaged .*`controller restore`"):
            answers(store)
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    with home.store() as store:
        check_answers(store)
        assert store.count("small-s1") == 5
    assert sorted(path.name for path in home.root.iterdir()) == ["chroma", "storage"]


def test_a_process_that_is_killed_leaves_an_index_that_ingest_fills_again(home: Home) -> None:
    with home.store() as store:
        pointer = store.pointers()["photos"]
        store.publish(Pointer(**{**vars(pointer), "run": "other", "collection": "small-s1"}))
    truncate(home.file("data_level0.bin"))
    with home.store() as store:
        assert home.ingest("r1", store).run == "r1"
    with home.store() as store:
        check_answers(store)


def test_a_damaged_index_that_is_published_is_not_dropped_by_an_ingest(home: Home) -> None:
    truncate(home.file("data_level0.bin"))
    with home.store() as store, pytest.raises(DamagedStore):
        home.ingest("r1", store)
    with home.store() as store:
        assert sorted(store.collections()) == ["photos-r1", "small-s1"]


def test_a_lost_store_is_named_by_what_reads_it_and_rebuilt(home: Home) -> None:
    shutil.rmtree(home.folder)
    with home.store() as store:
        found = list_indexes(store, home.storage)
        assert (found["indexes"], found["lost"]) == ([], ["photos", "small"])
        assert list_indexes(store, home.storage, "small")["lost"] == ["small"]
        with pytest.raises(PermanentError, match=r"does not have index photos any more.*`controller restore`"):
            find_pointer(store, home.storage, "photos")
        with pytest.raises(UsageError, match="does not exist"):
            find_pointer(store, home.storage, "another")
        with pytest.raises(UsageError, match=r"needed by index photos.*`controller restore`"):
            delete_run(store, home.storage, "r1")
    assert home.storage.exists(RunFolder("r1").part(0, 0))
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    with home.store() as store:
        check_answers(store)
        assert list_indexes(store, home.storage)["lost"] == []


def test_an_interrupted_restore_keeps_the_store_and_continues(home: Home) -> None:
    added: list[str] = []

    def broken(run: str, store: VectorStore) -> Pointer:
        if run == "s1":
            raise TemporaryError("the storage does not answer")
        added.append(run)
        return home.ingest(run, store)

    with pytest.raises(TemporaryError):
        restore(home.url, home.storage, run=None, ingest=broken)
    with home.store() as store:
        check_answers(store)
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    assert added == ["r1"]
    with home.store() as store:
        check_answers(store)


def test_a_named_run_replaces_the_last_one_of_its_index(home: Home) -> None:
    write_run(home.storage, "r2", index="photos", images=7)
    with home.store() as store:
        home.ingest("r2", store)
    shutil.rmtree(home.folder)
    assert home.restore() == [("photos", "r2", 7), ("small", "s1", 5)]
    with pytest.raises(UsageError, match="'r9' was never published"):
        home.restore(run="r9")
    shutil.rmtree(home.folder)
    assert home.restore(run="r1") == [("photos", "r1", IMAGES), ("small", "s1", 5)]


def roll_back_from_newer_run(home: Home) -> None:
    """Publishes r2 as `photos`, and then r1 again."""
    write_run(home.storage, "r2", index="photos", images=7)
    with home.store() as store:
        home.ingest("r2", store)
        current = store.pointers()["photos"]
        assert current.previous is not None
        store.publish(Pointer(**{**vars(current.previous), "previous": None}))


def test_what_the_store_still_serves_is_restored_rather_than_the_newest_run(home: Home) -> None:
    roll_back_from_newer_run(home)
    truncate(home.file("length.bin"))
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]


def test_what_the_store_serves_is_restored_though_its_ingest_ended_before_the_report(home: Home) -> None:
    write_run(home.storage, "r2", index="photos", images=7)
    with home.store() as store:
        home.ingest("r2", store)
    home.storage.remove(RunFolder("r2").report)
    truncate(home.file("length.bin"))
    assert home.restore() == [("photos", "r2", 7), ("small", "s1", 5)]


def test_a_report_that_cannot_be_read_ends_a_restore_where_nothing_else_names_the_run(home: Home) -> None:
    home.storage.put(RunFolder("s1").report, b'{"run": 1')
    truncate(home.file("length.bin"))
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)], "the store names it"
    home.storage.put(RunFolder("s1").report, b'{"run": 1')
    shutil.rmtree(home.folder)
    with pytest.raises(PermanentError, match=r"runs/s1/report\.json is damaged"):
        home.restore()


def test_a_restore_that_was_killed_after_its_end_is_no_trouble_for_the_next(home: Home) -> None:
    shutil.copytree(home.folder, home.root / "chroma.old")
    truncate(home.file("length.bin"))
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    assert sorted(path.name for path in home.root.iterdir()) == ["chroma", "storage"]


def test_a_restore_that_was_killed_between_two_renames_keeps_what_the_store_serves(home: Home) -> None:
    roll_back_from_newer_run(home)
    home.folder.rename(home.root / "chroma.old")
    assert home.restore() == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    assert sorted(path.name for path in home.root.iterdir()) == ["chroma", "storage"]


def test_nothing_is_dropped_before_all_files_of_the_runs_are_read(home: Home) -> None:
    home.storage.put(RunFolder("s1").bad(0, 0), b"rotten")
    with pytest.raises(PermanentError, match=r"s1/shards/00000/bad-00000\.parquet .*give the command of run s1"):
        home.restore()
    assert sorted(path.name for path in home.root.iterdir()) == ["chroma", "storage"]


def test_a_storage_without_a_published_run_has_nothing_to_restore() -> None:
    with pytest.raises(UsageError, match="no published run"):
        choose({}, [], planned=(), run=None)


@pytest.fixture
def server(home: Home) -> Iterator[ChromaServer]:
    with ChromaServer(home.folder) as server:
        yield server


def test_in_a_server_a_named_run_leaves_the_other_indexes(home: Home, server: ChromaServer) -> None:
    server.start()
    client = chromadb.HttpClient(port=server.port)
    before = client.get_collection("photos-r1").id
    assert home.restore(server.url, run="s1") == [("small", "s1", 5)]
    assert client.get_collection("photos-r1").id == before


@pytest.mark.parametrize(("name", "damage"), [("length.bin", truncate), ("data_level0.bin", flip_bits)])
def test_an_index_of_a_server_is_rebuilt_in_its_place(
    home: Home, server: ChromaServer, name: str, damage: Callable[[Path], None]
) -> None:
    """Also where the server finds no damage, or dies of it."""
    damage(home.file(name))
    server.start()
    assert home.restore(server.url) == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    with closing(open_store(server.url)) as store:
        check_answers(store)


def test_a_damaged_index_of_a_server_is_named(home: Home, server: ChromaServer) -> None:
    delete(home.file("link_lists.bin"))
    server.start()
    with closing(open_store(server.url)) as store, pytest.raises(DamagedStore, match=r"`controller restore`"):
        answers(store)


def test_a_server_that_cannot_read_its_database_is_filled_again_once_its_files_are_deleted(
    home: Home, server: ChromaServer
) -> None:
    truncate(home.file("chroma.sqlite3"))
    with pytest.raises(AssertionError, match="malformed"):
        server.start()
    shutil.rmtree(home.folder)
    home.folder.mkdir()
    server.start()
    assert home.restore(server.url) == [("photos", "r1", IMAGES), ("small", "s1", 5)]
    with closing(open_store(server.url)) as store:
        check_answers(store)
