"""Parquet files with images: by row group, whatever is in their columns, and whatever became of their bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.sources import Item, SourceImage, open_source
from imgsearch.sources.folder import LocalFiles
from imgsearch.sources.parquet import DataFile, ParquetSource
from tests.imgsearch.sources.parquet_files import IMAGE, all_images, pixels, write


def refusal(image: SourceImage) -> str:
    with pytest.raises(BadImage) as caught:
        image.load()
    assert caught.value.stage == "read"
    return caught.value.reason


class CountingFiles(LocalFiles):
    """Local files that note how many bytes are read, and can fail as a network does."""

    read_bytes = 0
    most_at_once = 0
    fails_after = math.inf

    def open(self, path: str, etag: str = "") -> tuple[AbstractContextManager[Any], str]:
        file, opened_etag = super().open(path, etag)
        return self._counted(file), opened_etag

    @contextmanager
    def _counted(self, opened: AbstractContextManager[Any]) -> Iterator[Any]:
        with opened as file:
            yield Counted(self, file)


class Counted:
    closed = False

    def __init__(self, counts: CountingFiles, file: Any) -> None:
        self._counts = counts
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, count: int) -> bytes:
        counts = self._counts
        if counts.read_bytes > counts.fails_after:
            raise TemporaryError("the hub did not answer")
        data: bytes = self._file.read(count)
        counts.read_bytes += len(data)
        counts.most_at_once = max(counts.most_at_once, len(data))
        return data


class TestListing:
    def test_makes_an_item_of_every_row_group(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet")
        status = path.stat()
        items = list(open_source(str(path)).items())
        assert [(item.key, item.unit, item.first, item.images) for item in items] == [
            ("a.parquet", 0, 0, 2),
            ("a.parquet", 1, 2, 2),
            ("a.parquet", 2, 4, 1),
        ]
        assert {item.etag for item in items} == {f"{status.st_mtime_ns:x}-{status.st_size:x}"}
        assert all(0 < item.size < status.st_size for item in items)

    def test_keys_are_relative_to_the_folder_before_the_first_wildcard(self, tmp_path: Path) -> None:
        for name in ("2023/b.parquet", "2024/x/a.parquet"):
            write(tmp_path / "data" / name, rows=1)
        source = open_source(f"{tmp_path}/data/**/*.parquet")
        assert [image.key for image in all_images(source)] == ["2023/b.parquet#0", "2024/x/a.parquet#0"]

    def test_a_question_mark_may_be_a_wildcard_or_begin_the_options(self, tmp_path: Path) -> None:
        write(tmp_path / "a1.parquet", rows=1, other=pa.array([b"x"]))
        source = open_source(f"{tmp_path}/a?.parquet?column=other")
        assert [image.load().data for image in all_images(source)] == [b"x"]
        assert source.uri == f"{tmp_path}/a?.parquet?column=other"
        assert [image.key for image in all_images(open_source(f"{tmp_path}/a?.parquet"))] == ["a1.parquet#0"]

    def test_the_recorded_uri_opens_the_same_source(self, tmp_path: Path) -> None:
        columns: dict[str, Any] = {"a+b &c": pa.array([b"x"])}
        path = write(tmp_path / "a.parquet", rows=1, **columns)
        reopened = open_source(f"{path}?column=a%2Bb+%26c")
        assert open_source(reopened.uri).uri == reopened.uri
        assert open_source(reopened.uri).read("a.parquet#0") == b"x"

    def test_a_path_with_brackets_is_a_path_where_there_is_such_a_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "data[1].parquet", rows=1)
        assert [image.key for image in all_images(open_source(f"file://{path}"))] == ["data[1].parquet#0"]

    def test_reads_footers_only(self, tmp_path: Path) -> None:
        filler = pa.array([b"x" * 100_000] * 100)
        path = write(tmp_path / "a.parquet", rows=100, per_group=100, filler=filler)
        files = CountingFiles(str(path))
        list(ParquetSource("fake", files).items())
        assert files.read_bytes < 100_000

    def test_row_groups_without_rows_are_no_items(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", rows=0)
        write(tmp_path / "b.parquet", rows=1)
        assert [item.key for item in open_source(f"{tmp_path}/*.parquet").items()] == ["b.parquet"]

    @pytest.mark.parametrize(
        ("uri", "mistake"),
        [
            ("none.parquet", r"/none\.parquet$"),
            ("*.parquet", r"/\*\.parquet"),
            ("folder.parquet", r"folder\.parquet/\*\.parquet"),
            ("a.parquet?colour=red", r"'colour'.* column"),
        ],
    )
    def test_what_matches_nothing_is_a_usage_error(self, tmp_path: Path, uri: str, mistake: str) -> None:
        (tmp_path / "folder.parquet").mkdir()
        with pytest.raises(UsageError, match=mistake):
            list(open_source(f"{tmp_path}/{uri}").items())

    def test_files_without_rows_are_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no rows"):
            list(open_source(str(write(tmp_path / "a.parquet", rows=0))).items())

    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PAR1" + b"\xff" * 100 + b"PAR1"])
    def test_a_file_that_is_not_parquet_ends_the_listing(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path / "a.parquet")
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(PermanentError, match=r"b\.parquet .*Parquet"):
            list(open_source(f"{tmp_path}/*.parquet").items())

    def test_a_broken_link_ends_the_listing(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").symlink_to("nowhere")
        with pytest.raises(PermanentError, match=r"a\.parquet: No such file"):
            list(open_source(f"{tmp_path}/*.parquet").items())


class TestReading:
    @pytest.mark.parametrize("skip", range(8))
    def test_skips_images_across_row_groups(self, tmp_path: Path, skip: int) -> None:
        source = open_source(str(write(tmp_path / "a.parquet", rows=7, per_group=3, n=list(range(7)))))
        images = all_images(source, skip)
        assert [image.key for image in images] == [f"a.parquet#{n}" for n in range(skip, 7)]
        assert [image.load().data for image in images] == [pixels(n) for n in range(skip, 7)]
        assert [image.metadata["n"] for image in images] == list(range(skip, 7))

    def test_does_not_read_row_groups_that_are_skipped(self, tmp_path: Path) -> None:
        filler = pa.array([{"n": "x" * 100_000 + str(n)} for n in range(10)])
        path = write(tmp_path / "a.parquet", rows=10, per_group=5, filler=filler)
        files = CountingFiles(str(path))
        source = ParquetSource("fake", files)
        items = list(source.items())
        files.read_bytes = 0
        assert len(list(source.images(items, 10))) == 0
        assert files.read_bytes == 0

    def test_streams_a_row_group_of_any_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("imgsearch.sources.parquet.BATCH_BYTES", 300_000)
        monkeypatch.setattr("imgsearch.sources.parquet.READ_BYTES", 100_000)
        rows = [bytes([n]) * 100_000 for n in range(50)]
        path = tmp_path / "a.parquet"
        pages = {"write_batch_size": 1, "data_page_size": 1}  # a page is read at once
        pq.write_table(pa.table({"image": rows}), path, compression="none", use_dictionary=False, **pages)
        files = CountingFiles(str(path))
        source = ParquetSource("fake", files)
        images = source.images(list(source.items()))
        assert next(images).load().data == rows[0]
        assert files.read_bytes < 600_000, "of five million"
        assert [image.load().data for image in images] == rows[1:]
        assert files.most_at_once < 200_000

    def test_a_row_without_an_image_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        cells = [None, {"bytes": None, "path": None}, {"bytes": None, "path": "x.png"}, {"bytes": b"", "path": ""}]
        pq.write_table(pa.table({"image": pa.array(cells, IMAGE)}), path)
        assert [refusal(image) for image in all_images(open_source(str(path)))] == [
            "the row has no image",
            "the row has no image",
            "the row has no bytes, only the path 'x.png': write the images into the file",
            "the row has no image",
        ]

    @pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
    def test_a_damaged_row_group_loses_its_own_images_only(self, tmp_path: Path, codec: str) -> None:
        path = tmp_path / "a.parquet"
        cells = [{"bytes": bytes([n]) * 100, "path": f"{n}.png"} for n in range(6)]
        table = pa.table({"image": pa.array(cells, IMAGE)})
        pq.write_table(table, path, row_group_size=2, compression=codec)
        source = open_source(str(path))
        items = list(source.items())
        column = pq.ParquetFile(path).metadata.row_group(1).column(0)
        data = bytearray(path.read_bytes())
        offset = column.dictionary_page_offset or column.data_page_offset
        data[offset : offset + column.total_compressed_size] = b"\xff" * column.total_compressed_size
        path.write_bytes(data)
        images = list(source.images(items))
        assert [image.key for image in images] == [f"a.parquet#{n}" for n in range(6)]
        for number, image in enumerate(images):
            if number in (2, 3):
                assert "row group" in refusal(image)
            else:
                assert image.load().data == cells[number]["bytes"]
        assert [image.key for image in source.images(items, 3)] == [f"a.parquet#{n}" for n in (3, 4, 5)]

    def test_a_file_that_shrank_or_went_still_gives_as_many_images_as_planned(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", rows=5, per_group=5)
        source = open_source(str(path))
        items = list(source.items())
        write(path, rows=3, per_group=3)
        images = list(source.images(items, 1))
        assert [image.load().data for image in images[:2]] == [pixels(1), pixels(2)]
        assert ["fewer rows" in refusal(image) for image in images[2:]] == [True, True]
        path.unlink()
        assert ["cannot be read" in refusal(image) for image in source.images(items)] == [True] * 5

    def test_a_file_that_grew_gives_no_more_images_than_planned(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", rows=2)
        source = open_source(str(path))
        items = list(source.items())
        write(path, rows=9, per_group=9)
        assert [image.load().data for image in source.images(items)] == [pixels(0), pixels(1)]

    def test_a_network_that_fails_is_not_taken_for_damage(self, tmp_path: Path) -> None:
        files = CountingFiles(str(write(tmp_path / "a.parquet")))
        source = ParquetSource("fake", files)
        items = list(source.items())
        files.fails_after = files.read_bytes
        with pytest.raises(TemporaryError, match=r"^the hub did not answer$"):
            list(source.images(items))


class TestReadByKey:
    def test_gives_the_bytes_of_the_row(self, tmp_path: Path) -> None:
        source = open_source(str(write(tmp_path / "a.parquet", rows=7, per_group=3)))
        assert [source.read(f"a.parquet#{n}") for n in (0, 2, 3, 6)] == [pixels(n) for n in (0, 2, 3, 6)]

    @pytest.mark.parametrize(
        "key",
        [
            "a.parquet#5",
            "a.parquet#-1",
            "a.parquet#01",
            "a.parquet#²",
            f"a.parquet#{'9' * 5000}",
            "a.parquet#",
            "a.parquet",
            "#0",
            "",
            "b.parquet#0",
            "../secret.parquet#0",
            "/etc/hostname#0",
            "note.txt#0",
            "a.parquet\0#0",
        ],
    )
    def test_finds_only_rows_of_files_that_match(self, tmp_path: Path, key: str) -> None:
        write(tmp_path / "secret.parquet")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "note.txt").touch()
        source = open_source(str(write(tmp_path / "data" / "a.parquet").with_name("*.parquet")))
        with pytest.raises(NotFound, match="has no image"):
            source.read(key)

    def test_says_why_a_row_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"image": pa.array([None], IMAGE)}), path)
        with pytest.raises(BadImage, match="the row has no image"):
            open_source(str(path)).read("a.parquet#0")

    def test_finds_nothing_where_the_files_are_gone(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            open_source(f"{tmp_path}/*.parquet").read("a.parquet#0")


def test_local_files_say_what_an_update_compares(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    [file_before] = LocalFiles(str(path)).files()
    write(path, rows=6)
    [file_after] = LocalFiles(str(path)).files()
    assert isinstance(file_before, DataFile)
    assert (file_before.path, file_before.etag == file_after.etag) == ("a.parquet", False)


def test_an_item_without_images_left_to_read_opens_no_file() -> None:
    source = open_source("/nowhere/*.parquet")
    assert list(source.images([Item("a.parquet", 1, images=3)], skip=3)) == []
