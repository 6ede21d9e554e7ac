"""The files of tables: in place, or downloaded once, and never used if they are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typing_extensions import Buffer

from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs.digests import Damaged
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Record
from searcher.ingest.samples import vector_of
from searcher.table.files import TableFiles, cache_folder
from searcher.table.reader import RunTable
from tests.searcher.table import images

FOLDER = RunFolder("r1")
RECORDS: list[Record] = images.records([{"n": number} for number in range(20)])


class Bucket(Storage):
    """A storage that is not on this machine, and that may fail in the middle of an object."""

    fails = False

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.reads: list[str] = []

    def file(self, key: str) -> Path | None:
        return None

    def chunks(self, key: str) -> Iterator[Buffer]:
        self.reads.append(key)
        data = self.get(key)
        yield data[: len(data) // 2]
        if self.fails:
            raise TemporaryError("the bucket does not answer")
        yield data[len(data) // 2 :]


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    images.write(tmp_path / "storage", RECORDS)
    return Bucket((tmp_path / "storage").as_uri())


def opened(files: TableFiles) -> RunTable:
    document = files.document("r1")
    assert document is not None
    return files.open(document)


def rows(files: TableFiles) -> int:
    table = opened(files)
    assert [record.id for record in table.get([record.id for record in RECORDS])] == [record.id for record in RECORDS]
    return table.rows


def downloads(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and file.name != "lock")


def test_a_run_of_an_earlier_version_has_no_table(tmp_path: Path) -> None:
    assert TableFiles(Storage(tmp_path.as_uri()), tmp_path / "cache").document("r1") is None


def test_files_on_this_machine_are_used_in_place(tmp_path: Path) -> None:
    assert images.table(tmp_path, RECORDS).rows == 20
    assert not (tmp_path / "cache").exists()


def test_files_of_a_bucket_are_downloaded_once(bucket: Bucket, tmp_path: Path) -> None:
    assert rows(TableFiles(bucket, tmp_path / "cache")) == 20
    assert sorted(bucket.reads) == [FOLDER.table_file(number) for number in range(3)]
    bucket.reads.clear()
    assert rows(TableFiles(bucket, tmp_path / "cache")) == 20
    assert bucket.reads == []


def test_a_half_download_is_never_used(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fails = True
    with pytest.raises(TemporaryError, match="does not answer"):
        rows(TableFiles(bucket, tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    bucket.fails = False
    assert rows(TableFiles(bucket, tmp_path / "cache")) == 20
    assert downloads(tmp_path / "cache") == ["00000.arrow", "00001.arrow", "00002.arrow"]


def test_a_damaged_download_is_downloaded_again(bucket: Bucket, tmp_path: Path) -> None:
    rows(TableFiles(bucket, tmp_path / "cache"))
    bucket.reads.clear()
    (download,) = (tmp_path / "cache").rglob("00001.arrow")
    download.write_bytes(download.read_bytes()[:-1])
    assert rows(TableFiles(bucket, tmp_path / "cache")) == 20
    assert bucket.reads == [FOLDER.table_file(1)]


def test_downloads_of_other_runs_are_deleted_and_open_tables_stay_usable(bucket: Bucket, tmp_path: Path) -> None:
    files = TableFiles(bucket, tmp_path / "cache")
    table = opened(files)
    files.keep({"r1", "r2"})
    assert len(downloads(tmp_path / "cache")) == 3
    files.keep({"r2"})
    assert downloads(tmp_path / "cache") == []
    assert [record.metadata for record in table.get([RECORDS[9].id])] == [{"n": 9}]


def test_a_cache_that_cannot_be_read_is_named_when_downloads_are_deleted(bucket: Bucket, tmp_path: Path) -> None:
    files = TableFiles(bucket, tmp_path / ("n" * 300))  # too long a name for a file
    with pytest.raises(PermanentError, match="cannot keep a table in"):
        files.keep({"r1"})


def test_each_storage_has_downloads_of_its_own(bucket: Bucket, tmp_path: Path) -> None:
    images.write(tmp_path / "other", RECORDS[:3])
    rows(TableFiles(bucket, tmp_path / "cache"))
    assert opened(TableFiles(Bucket((tmp_path / "other").as_uri()), tmp_path / "cache")).rows == 3
    assert rows(TableFiles(bucket, tmp_path / "cache")) == 20


@pytest.mark.parametrize("kind", [Storage, Bucket])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:-1], "00001.arrow is damaged"),
        (lambda data: data[:999] + bytes([data[999] ^ 1]) + data[1000:], "00001.arrow is damaged"),
        (None, "00001.arrow does not exist"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, kind: type[Storage], change: Callable[[bytes], bytes] | None, sentence: str
) -> None:
    images.write(tmp_path, RECORDS)
    storage = kind(tmp_path.as_uri())
    name = FOLDER.table_file(1)
    if change is None:
        storage.remove(name)
    else:
        storage.put(name, change(storage.get(name)))
    with pytest.raises(Damaged, match=sentence):
        opened(TableFiles(storage, tmp_path / "cache"))


def write_with_clusters(folder: Path) -> None:
    vectors = np.stack([vector_of(record) for record in RECORDS])
    images.write(folder, RECORDS, clusters=images.clustered(vectors, 4))


def test_clusters_are_downloaded_with_their_table(tmp_path: Path) -> None:
    write_with_clusters(tmp_path)
    table = opened(TableFiles(Bucket(tmp_path.as_uri()), tmp_path / "cache"))
    assert downloads(tmp_path / "cache") == ["00000.arrow", "00001.arrow", "00002.arrow", "clusters.arrow"]
    (query,) = images.vectors(1, seed=5)
    best = np.argsort(-np.array([vector_of(record) @ query for record in RECORDS]))[:3]
    assert [n.id for n in table.nearest(query[None], 3, compared=20)[0]] == [RECORDS[row].id for row in best]


@pytest.mark.parametrize("kind", [Storage, Bucket])
def test_damaged_clusters_are_refused(tmp_path: Path, kind: type[Storage]) -> None:
    write_with_clusters(tmp_path)
    storage = kind(tmp_path.as_uri())
    storage.put(FOLDER.table_clusters, storage.get(FOLDER.table_clusters)[:-1])
    with pytest.raises(Damaged, match=r"clusters\.arrow is damaged"):
        opened(TableFiles(storage, tmp_path / "cache"))


def test_a_cache_that_cannot_be_written_is_named(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(PermanentError, match=r"cannot keep a table in .*cache"):
        opened(TableFiles(bucket, tmp_path / "cache"))


def test_the_cache_is_in_the_users_cache_folder(tmp_path: Path) -> None:
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "imgsearch" / "tables"
    assert cache_folder({}) == Path.home() / ".cache" / "imgsearch" / "tables"
