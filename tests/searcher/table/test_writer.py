from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from imgsearch.runs.digests import digest
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Record
from imgsearch.stores.filters import parse
from searcher.table.writer import FIELDS, TableWriter
from tests.searcher.table import images

FOLDER = RunFolder("r1")


class DyingStorage(Storage):
    """A storage whose process is killed at a put."""

    puts_left = 1_000

    def put(self, key: str, data: bytes | memoryview) -> None:
        if not self.puts_left:
            raise KeyboardInterrupt
        self.puts_left -= 1
        super().put(key, data)


def write(storage: Storage, records: Sequence[Record]) -> None:
    writer = TableWriter(storage, "r1", dim=images.DIM, file_rows=4)
    for start in range(0, len(records), 3):
        writer.add(records[start : start + 3])
    writer.finish()


def files(storage: Storage) -> dict[str, bytes]:
    return {key: storage.get(key) for key in storage.keys(FOLDER.root)}


def test_a_table_has_files_of_bounded_size_and_the_digest_of_each(tmp_path: Path) -> None:
    document = images.write(tmp_path, images.records([{"n": 1}] * 10), file_rows=4)
    assert (document.rows, document.dim, document.files) == (10, images.DIM, 3)
    assert (document.fields, document.all_fields) == (["n"], True)
    names = ["00000.arrow", "00001.arrow", "00002.arrow"]
    batches = [pa.ipc.open_file(tmp_path / "runs/r1/table" / name).read_all() for name in names]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert document.digests == {name: digest((tmp_path / "runs/r1/table" / name).read_bytes()) for name in names}


def test_long_metadata_make_shorter_files(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    writer = TableWriter(storage, "r1", dim=images.DIM, file_bytes=1_000)
    writer.add(images.records([{"text": "x" * length} for length in (100, 800, 200, 5_000, 10)]))
    writer.finish()
    lengths = [len(pa.ipc.open_file(data).read_all()) for key, data in files(storage).items() if "arrow" in key]
    assert sorted(lengths) == [1, 1, 1, 2]


@pytest.mark.parametrize("puts", [0, 1, 2, 3])
def test_a_table_that_was_interrupted_is_not_there_until_it_is_written_again(tmp_path: Path, puts: int) -> None:
    records = images.records([{"n": number} for number in range(10)])
    whole = Storage((tmp_path / "whole").as_uri())
    write(whole, records)
    killed = DyingStorage((tmp_path / "killed").as_uri())
    killed.puts_left = puts
    with pytest.raises(KeyboardInterrupt):
        write(killed, records)
    assert len(files(killed)) == puts
    assert not killed.exists(FOLDER.table)
    killed.puts_left = 1_000
    write(killed, records)
    assert files(killed) == files(whole)


def test_an_unchanged_file_is_not_replaced_and_a_damaged_one_is(tmp_path: Path) -> None:
    """A searcher may have mapped it into memory."""
    records = images.records([{"n": number} for number in range(10)])
    storage = Storage(tmp_path.as_uri())
    write(storage, records)
    before = files(storage)
    storage.put(FOLDER.table_file(1), b"damaged")
    inodes = [(tmp_path / FOLDER.table_file(number)).stat().st_ino for number in range(3)]
    write(storage, records)
    assert files(storage) == before
    after = [(tmp_path / FOLDER.table_file(number)).stat().st_ino for number in range(3)]
    assert [old == new for old, new in zip(inodes, after, strict=True)] == [True, False, True]


def test_only_the_first_fields_get_columns(tmp_path: Path) -> None:
    metadata = [{f"field {number}": number} for number in range(FIELDS + 3)]
    document = images.write(tmp_path, images.records(metadata), file_rows=FIELDS)
    assert (len(document.fields), document.all_fields) == (FIELDS, False)
    table = images.table(tmp_path, images.records(metadata), file_rows=FIELDS)
    assert table.has_fields(parse({"field 7": 7}))
    assert not table.has_fields(parse({"$or": [{"field 7": 7}, {f"field {FIELDS}": 1}]}))
    assert [int(row) for row in table.matching(parse({"field 7": 7})).nonzero()[0]] == [7]
    assert table.get([images.records(metadata)[-1].id])[0].metadata == metadata[-1]
