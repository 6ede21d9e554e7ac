"""Buckets as sources: what folders do not have, and Parquet files read by range. tests/contract has the rest."""

from __future__ import annotations

import glob
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources import Source, open_source
from imgsearch.sources.files import ImageFiles
from imgsearch.sources.objects import ObjectFiles, Prefix, Reader, matches
from imgsearch.sources.parquet import ParquetSource
from imgsearch.storage import Entry, Storage


class CountingStorage(Storage):
    """Storage that notes what is read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    def get_with_entry(self, key: str, *, limit: int | None = None) -> tuple[bytes, Entry]:
        self.calls["get"] += 1
        return super().get_with_entry(key, limit=limit)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.calls["range"] += 1
        self.bytes += length
        return super().get_range(key, offset, length)

    def entry(self, key: str) -> Entry:
        self.calls["entry"] += 1
        return super().entry(key)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        self.calls["list"] += 1
        return super().entries(folder)


@pytest.fixture
def closed() -> Iterator[Storage]:
    """A folder with an image that may be read and one that may not, not by root either, who steps down."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "open.png").write_bytes(b"1")
        (folder / "open.png").chmod(0o644)
        (folder / "shut.png").touch(mode=0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield Storage(folder.as_uri())
        os.seteuid(user)


def keys(source: Source) -> list[str]:
    return sorted(item.key for item in source.items())


class TestPrefix:
    def test_asks_for_no_single_object_to_list(self, storage: Storage) -> None:
        counting = CountingStorage(storage.uri)
        for number in range(20):
            counting.put(f"{number}.png", b"x")
        counting.put("metadata.csv", b"file_name\n1.png\n")
        source = ImageFiles(Prefix(counting))
        items = list(source.items())
        assert (len(items), counting.calls) == (20, {"list": 1})
        assert list(source.metadata()) == [("1.png", {})]
        assert counting.calls == {"list": 1, "range": 1}
        images = list(source.images(items))
        assert [image.load().data for image in images] == [b"x"] * 20
        assert counting.calls == {"list": 2, "range": 1, "get": 20}, "the etag came with the bytes"

    def test_what_marks_a_folder_is_not_counted(self, storage: Storage) -> None:
        """Consoles write an empty object called `folder/`; obstore lists it as `folder`."""
        for marker in ("empty", "2024.05.01", ".hidden"):
            storage.put(marker, b"")
        storage.put("one.png", b"1")
        source = ImageFiles(Prefix(storage))
        assert keys(source) == ["one.png"]
        assert source.skipped == {}

    def test_with_nothing_below_it_is_a_usage_error(self, storage: Storage) -> None:
        storage.put("holiday2/one.png", b"1")
        with pytest.raises(UsageError, match="/holiday has no objects"):
            keys(ImageFiles(Prefix(Storage(f"{storage.uri}/holiday"))))

    def test_an_object_that_may_not_be_read_is_a_bad_image(self, closed: Storage) -> None:
        source = ImageFiles(Prefix(closed))
        assert keys(source) == ["open.png", "shut.png"]
        assert source.read("open.png") == b"1"
        with pytest.raises(BadImage, match=r"permission.*/shut\.png"):
            source.read("shut.png")

    def test_a_large_object_is_a_bad_image(self, file_storage: Storage, tmp_path: Path) -> None:
        file_storage.put("huge.png", b"")
        os.truncate(tmp_path / "with space" / "huge.png", 2**31)
        with pytest.raises(BadImage, match="has more than 1073741824 bytes"):
            ImageFiles(Prefix(file_storage)).read("huge.png")

    @pytest.mark.parametrize("ending", ["", "/"])
    def test_is_opened_by_its_uri(self, s3_storage: Storage, ending: str) -> None:
        s3_storage.put("sub/one.png", b"1")
        source = open_source(s3_storage.uri + ending)
        assert source.uri == s3_storage.uri
        [item] = source.items()
        assert [image.load().data for image in open_source(source.uri).images([item])] == [b"1"]

    def test_wrong_credentials_are_no_fault_of_an_image(
        self, s3_storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s3_storage.put("one.png", b"1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        source = open_source(s3_storage.uri)
        for call in (lambda: keys(source), lambda: source.read("one.png"), lambda: next(source.images([]))):
            with pytest.raises(PermanentError, match="credentials"):
                call()

    def test_a_wrong_bucket_is_a_usage_error(self, s3_storage: Storage) -> None:
        source = open_source("s3://no-such-bucket-of-imgsearch/photos")
        for call in (lambda: keys(source), lambda: source.read("one.png"), lambda: next(source.images([]))):
            with pytest.raises(UsageError, match="bucket of s3://no-such-bucket-of-imgsearch/photos"):
                call()


def table(rows: int, *, first: int = 0, filler: int = 0) -> bytes:
    """A Parquet file of so many images in row groups of two."""
    images = [b"image %d" % n + os.urandom(filler) for n in range(first, first + rows)]
    sink = io.BytesIO()
    columns: dict[str, Any] = {"image": images, "n": list(range(first, first + rows))}
    pq.write_table(pa.table(columns), sink, row_group_size=2, compression="none", use_dictionary=False)
    return sink.getvalue()


class TestParquet:
    def source(self, storage: Storage, pattern: str) -> ParquetSource:
        return ParquetSource("fake", ObjectFiles(storage, pattern))

    def test_of_a_pattern_is_read_by_row_group(self, storage: Storage) -> None:
        storage.put("2023/b.parquet", table(3))
        storage.put("2024/x/a ü.parquet", table(2, first=3))
        storage.put("2024/x/.hidden.parquet", b"no Parquet")
        storage.put("2024/x/notes.txt", b"no Parquet")
        source = self.source(storage, "**/*.parquet")
        items = list(source.items())
        assert [(item.key, item.unit, item.first, item.images) for item in items] == [
            ("2023/b.parquet", 0, 0, 2),
            ("2023/b.parquet", 1, 2, 1),
            ("2024/x/a ü.parquet", 0, 0, 2),
        ]
        assert all(item.etag for item in items)
        images = list(source.images(items, skip=1))
        assert [image.load().data for image in images] == [b"image %d" % n for n in range(1, 5)]
        assert [image.metadata for image in images] == [{"n": n} for n in range(1, 5)]
        assert source.read("2024/x/a ü.parquet#1") == b"image 4"

    def test_is_read_by_range(self, storage: Storage) -> None:
        counting = CountingStorage(storage.uri)
        counting.put("a.parquet", table(10, filler=300_000))
        source = self.source(counting, "a.parquet")
        items = list(source.items())
        assert (len(items), counting.calls["get"]) == (5, 0)
        assert counting.bytes < 100_000, "of three million: the footer"
        counting.bytes = 0
        assert next(source.images(items, skip=8)).load().data.startswith(b"image 8")
        assert counting.bytes < 1_000_000, "of three million: the last row group"

    def test_one_object_is_not_looked_for_among_the_others(self, storage: Storage) -> None:
        counting = CountingStorage(storage.uri)
        counting.put("data[1].parquet", table(1))
        assert [item.key for item in self.source(counting, "data[1].parquet").items()] == ["data[1].parquet"]
        assert counting.calls["list"] == 0

    def test_that_is_gone_still_gives_as_many_images_as_planned(self, storage: Storage) -> None:
        storage.put("sub/a.parquet", table(2))
        source = self.source(storage, "*/a.parquet")
        items = list(source.items())
        storage.delete("sub")
        images = list(source.images(items))
        assert len(images) == 2
        for image in images:
            with pytest.raises(BadImage, match=r"sub/a\.parquet"):
                image.load()

    def test_that_is_damaged_ends_the_listing(self, storage: Storage) -> None:
        storage.put("a.parquet", b"<html>not found</html>")
        with pytest.raises(PermanentError, match=r"a\.parquet .*Parquet"):
            list(self.source(storage, "*.parquet").items())

    def test_that_matches_nothing_is_a_usage_error(self, storage: Storage) -> None:
        storage.put("folder.parquet/part-0.parquet", table(1))
        with pytest.raises(UsageError, match=r"/none\*\.parquet$"):
            list(self.source(storage, "none*.parquet").items())
        with pytest.raises(UsageError, match=r"/folder\.parquet/\*\.parquet"):
            list(self.source(storage, "folder.parquet").items())

    @pytest.mark.parametrize(
        "key", ["b.parquet#0", "../secret.parquet#0", "sub/c.parquet#0", "a.parquet\0#0", "note.txt#0", "a.parquet#7"]
    )
    def test_only_rows_of_objects_that_match_are_found(self, storage: Storage, key: str) -> None:
        for name in ("a.parquet", "sub/c.parquet"):
            storage.put(name, table(1))
        storage.put("note.txt", b"secret")
        with pytest.raises(NotFound, match="has no image"):
            self.source(storage, "*.parquet").read(key)

    def test_is_opened_by_its_uri(self, s3_storage: Storage) -> None:
        s3_storage.put("data/2024/a.parquet", table(1))
        source = open_source(f"{s3_storage.uri}/data/*/*.parquet?column=image")
        assert source.uri == f"{s3_storage.uri}/data/*/*.parquet?column=image"
        [item] = open_source(source.uri).items()
        assert item.key == "2024/a.parquet"
        assert source.read("2024/a.parquet#0") == b"image 0"
        with pytest.raises(UsageError, match="'colour'"):
            open_source(f"{s3_storage.uri}/a.parquet?colour=red")


@pytest.mark.parametrize(
    "pattern",
    [
        *("*.parquet", "**/*.parquet", "a/**/*.parquet", "*/?.parquet", "a/[!b]/*", ".*/*", "a/**/b/*"),
        *("[^x].parquet", "a/[[]*", "[![]*.parquet"),
    ],
)
def test_a_pattern_finds_what_it_finds_on_a_disk(tmp_path: Path, pattern: str) -> None:
    names = [
        "x.parquet",
        ".x.parquet",
        "a/x.parquet",
        "a/b/x.parquet",
        "a/b/xy.parquet",
        "a/.b/x.parquet",
        "a/c/b/x.parquet",
        ".a/x.parquet",
        "a/c/x.txt",
        "^.parquet",
        "a/[x",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    on_disk = {path for path in glob.glob(pattern, root_dir=tmp_path, recursive=True) if (tmp_path / path).is_file()}
    assert {name for name in names if matches(name, pattern)} == on_disk != set()


def test_a_reader_is_a_file(storage: Storage) -> None:
    data = bytes(range(256))
    storage.put("a", data)
    with Reader(storage, "a", 256) as file:
        assert (file.read(3), file.tell()) == (data[:3], 3)
        assert (file.seek(-2, os.SEEK_CUR), file.read(2)) == (1, data[1:3])
        assert (file.seek(-3, os.SEEK_END), file.read(9), file.read(9)) == (253, data[-3:], b"")
        assert (file.seek(1000), file.read(1)) == (1000, b"")
        assert (file.seek(0), file.readall()) == (0, data)
