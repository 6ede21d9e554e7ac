"""The Parquet tables of a plan, and the encoding of the tables of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgsearch import typed_json
from imgsearch.errors import first_line
from imgsearch.runs.digests import Damaged

ITEMS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),  # a JSON object
    ]
)
"""`plan/*.parquet`: sources.Item, field by field."""

DROPPED = pa.schema([pa.field("key", pa.string(), nullable=False)])
"""`dropped.parquet` of an update: image keys of the base that are gone or changed."""


def items_from_bytes(data: bytes, name: str) -> pa.Table:
    """A table of ITEMS; raises Damaged for another file."""
    value, _ = from_bytes(data, name)
    if "row_group" in value.column_names:  # written before version 0.1.0; an image file had the row group -1
        value = value.rename_columns({"row_group": "unit", "first_row": "first"})
        unit = pc.max_element_wise(value["unit"], pa.scalar(0, pa.int32()))
        value = value.set_column(value.column_names.index("unit"), ITEMS.field("unit"), unit)
    return _with_schema(value, ITEMS, name)


def dropped_from_bytes(data: bytes, name: str) -> pa.Table:
    """A table of DROPPED; raises Damaged for another file."""
    value, _ = from_bytes(data, name)
    return _with_schema(value, DROPPED, name)


def table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def to_bytes(value: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """A Parquet file with this key-value metadata.

    Its pages have checksums. It has no dictionary encoding: vectors and ids do not repeat, and the attempt takes most
    of the time."""
    if metadata:
        value = value.replace_schema_metadata(dict(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(
        value, sink, use_dictionary=False, compression="zstd", write_statistics=False, write_page_checksum=True
    )
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes, name: str) -> tuple[pa.Table, dict[str, str]]:
    """The table and its key-value metadata; raises Damaged if it is damaged, as far as its checksums show."""
    try:
        value = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        value.validate(full=True)
        metadata = {k.decode(): v.decode() for k, v in (value.schema.metadata or {}).items()}
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise Damaged(name, f"is damaged ({first_line(error)})") from error
    return value, metadata


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False, default=str)


def decode_metadata(text: str) -> dict[str, Any]:
    """Raises PermanentError for a text that `encode_metadata` has not written."""
    return typed_json.parse(dict[str, Any], text, "the metadata of an image", advice="index again with a new --run")


def _with_schema(value: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    try:
        return value.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise Damaged(name, f"is damaged (it has other columns: {first_line(error)})") from error
