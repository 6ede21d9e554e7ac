"""The format of a part of a shard, which the embedder writes and ingest reads.

A part is three objects: `thumbs-*.tar` with the thumbnails, `bad-*.parquet` with a row for each image that could not be
used, and, written last, `part-*.parquet` with a row for each vector and a header.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgsearch import typed_json
from imgsearch.errors import PermanentError
from imgsearch.runs import tables
from imgsearch.runs.digests import Damaged, digest
from imgsearch.vectors import Vectors

ADVICE = "index again with a new --run"
CHECKSUM = "checksum"


class PartRow(TypedDict):
    """One image that has become a vector."""

    id: str
    key: str
    etag: str
    embedding: NDArray[Any]
    """(dim,). Stored as float16, which keeps cosine similarity to about 1e-3 in half the bytes."""
    width: int
    """Width and height of the original, in pixels."""
    height: int
    thumb_offset: int
    """Offset and length of the thumbnail in the tar, in bytes."""
    thumb_length: int
    metadata: str
    """A JSON object."""


@dataclass(frozen=True)
class BadRow:
    """One image that could not be used. See imgsearch.errors.BadImage."""

    key: str
    stage: str
    reason: str
    etag: str


@dataclass(frozen=True)
class Header:
    """The key-value metadata of `part-*.parquet`."""

    model: str
    fingerprint: str
    """The fingerprint of the weights; see Encoder.fingerprint."""
    preprocessing: str
    dim: int
    images: int
    """The number of rows."""
    bad: int
    thumbs_digest: str | None = None
    """The digests of the two other files of the part, which are written before it. A process that resumes the shard
    thus need not read them. None: written by an earlier version."""
    bad_digest: str | None = None
    changed: tuple[str, ...] = ()
    """See ShardDone.changed."""

    @classmethod
    def parse(cls, metadata: Mapping[str, str], name: str) -> Self:
        """Raises Damaged for metadata that were changed, and PermanentError, with the name of the object, for those of
        another version."""
        fields = {field: value for field, value in metadata.items() if field != CHECKSUM}
        if metadata.get(CHECKSUM) not in (None, _checksum(fields)):
            raise Damaged(name, "is damaged (its header has another checksum)")
        try:
            counts = {field: int(metadata[field]) for field in ("dim", "images", "bad")}
            texts = {field: metadata[field] for field in ("model", "fingerprint", "preprocessing")}
        except (KeyError, ValueError) as error:
            raise _other_version(name) from error
        changed = typed_json.parse(list[str], metadata.get("changed", "[]"), f"`changed` of {name}", advice=ADVICE)
        digests = {field: metadata.get(field) for field in ("thumbs_digest", "bad_digest")}
        return cls(**texts, **counts, **digests, changed=tuple(changed))  # type: ignore[arg-type]

    def metadata(self) -> dict[str, str]:
        texts = {name: str(value) for name, value in vars(self).items() if value is not None}
        fields = {**texts, "changed": json.dumps(self.changed)}
        return {**fields, CHECKSUM: _checksum(fields)}


BAD = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
    ]
)
"""The columns of BadRow."""


def schema(dim: int) -> pa.Schema:
    """The columns of PartRow."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float16(), dim), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("thumb_offset", pa.int64(), nullable=False),
            pa.field("thumb_length", pa.int32(), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
        ]
    )


def to_bytes(rows: Sequence[PartRow], header: Header) -> bytes:
    """A `part-*.parquet`."""
    columns = []
    for field in schema(header.dim):
        values = [row[field.name] for row in rows]  # type: ignore[literal-required]
        if field.name == "embedding":
            flat = np.asarray(values, dtype=np.float16).reshape(len(rows) * header.dim)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), header.dim))
        else:
            columns.append(pa.array(values, field.type))
    return tables.to_bytes(pa.Table.from_arrays(columns, schema=schema(header.dim)), header.metadata())


def from_bytes(data: bytes, name: str) -> tuple[pa.Table, Header]:
    """The rows and the header; raises Damaged, or PermanentError with the name of the object for rows and a header that
    do not belong together."""
    table, metadata = tables.from_bytes(data, name)
    header = Header.parse(metadata, name)
    if table.schema.remove_metadata() != schema(header.dim) or len(table) != header.images:
        raise _other_version(name)
    return table, header


def bad_to_bytes(rows: Sequence[BadRow]) -> bytes:
    """A `bad-*.parquet`."""
    return tables.to_bytes(tables.table(BAD, [vars(row) for row in rows]))


def bad_from_bytes(data: bytes, name: str) -> list[BadRow]:
    """The rows of a `bad-*.parquet`; raises Damaged, or PermanentError with the name of the object for other rows."""
    table, _ = tables.from_bytes(data, name)
    if table.schema.remove_metadata() != BAD:
        raise _other_version(name)
    return [BadRow(**row) for row in table.to_pylist()]


def vectors(table: pa.Table) -> Vectors:
    """The vectors of a part."""
    column = table.column("embedding").combine_chunks()
    dim = column.type.list_size
    return np.asarray(column.flatten().to_numpy(), dtype=np.float32).reshape(len(column), dim)


def rows(table: pa.Table) -> Iterator[PartRow]:
    """The rows of a part; each embedding is a view of one block of float32."""
    for row, vector in zip(table.drop_columns(["embedding"]).to_pylist(), vectors(table), strict=True):
        row["embedding"] = vector
        yield row


class ThumbnailArchive:
    """A `thumbs-*.tar` in memory. Readers fetch single thumbnails by their offset."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._sink, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, id: str, thumbnail: bytes) -> int:
        """Adds the thumbnail of the image `id`; returns the offset of its bytes."""
        member = tarfile.TarInfo(f"{id}.webp")
        member.size = len(thumbnail)
        self._tar.addfile(member, io.BytesIO(thumbnail))
        blocks = -(-member.size // tarfile.BLOCKSIZE)
        return self._tar.offset - blocks * tarfile.BLOCKSIZE

    def finish(self) -> memoryview:
        """The bytes of the archive; nothing can be added afterwards."""
        self._tar.close()
        return self._sink.getbuffer()


def _checksum(fields: Mapping[str, str]) -> str:
    """Of a header: the footer of a Parquet file has no checksum."""
    return digest(json.dumps(fields, sort_keys=True).encode())


def _other_version(name: str) -> PermanentError:
    return PermanentError(f"{name} is not a part of this version of imgsearch: {ADVICE}")
