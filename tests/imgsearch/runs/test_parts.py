"""The format of a part: its writer and its reader agree."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from imgsearch.errors import PermanentError
from imgsearch.runs import parts, tables
from imgsearch.runs.parts import Header, PartRow, ThumbnailArchive

HEADER = Header("m", "f", "p", dim=2, images=2, bad=1)


def row(number: int) -> PartRow:
    return {
        "id": f"{number}",
        "key": f"{number}.jpg",
        "etag": "e",
        "embedding": np.array([number, 0.5], np.float32),
        "width": 4,
        "height": 3,
        "thumb_offset": 512,
        "thumb_length": 9,
        "metadata": '{"n": 1}',
    }


def test_a_part_is_read_as_it_was_written() -> None:
    table, header = parts.from_bytes(parts.to_bytes([row(0), row(1)], HEADER), "part")
    assert header == HEADER
    assert table.schema.remove_metadata() == parts.schema(2)
    assert parts.vectors(table).tolist() == [[0, 0.5], [1, 0.5]]
    assert [{**written_row, "embedding": None} for written_row in parts.rows(table)] == [
        {**row(number), "embedding": None} for number in range(2)
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        parts.to_bytes([row(0)], HEADER),
        tables.to_bytes(pa.table({"id": ["a"]})),
        tables.to_bytes(pa.table({"id": ["a"]}), HEADER.metadata()),
        tables.to_bytes(pa.table({"id": ["a"]}), {**HEADER.metadata(), "dim": "two"}),
    ],
    ids=["damaged", "other number of rows", "no header", "other columns", "no number"],
)
def test_another_file_is_refused_by_its_name(data: bytes) -> None:
    with pytest.raises(PermanentError, match=r"^shards/00000/part-00000\.parquet is"):
        parts.from_bytes(data, "shards/00000/part-00000.parquet")


def test_no_flipped_bit_gives_other_rows_or_another_header() -> None:
    """Also without a digest: while its shard is not done, a part has none."""
    data = parts.to_bytes([row(0), row(1)], HEADER)
    rows, _ = parts.from_bytes(data, "part")
    refused = 0
    for bit in range(3, 8 * len(data), 37):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = parts.from_bytes(bytes(damaged), "part")
        except PermanentError:
            refused += 1
        else:  # a bit that nobody reads
            assert found == (rows, HEADER), bit
    assert refused > 100


def test_thumbnails_are_found_by_their_offset() -> None:
    archive = ThumbnailArchive()
    thumbnails = {"a": b"1" * 511, "b": b"2" * 512, "c": b"3" * 513}
    offsets = {id: archive.add(id, data) for id, data in thumbnails.items()}
    data = bytes(archive.finish())
    assert {id: data[offset : offset + len(thumbnails[id])] for id, offset in offsets.items()} == thumbnails
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["a.webp", "b.webp", "c.webp"]
