"""The Parquet tables of a run folder: their columns, and how a table becomes bytes and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgsearch.errors import PermanentError

ITEMS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),  # a JSON object
    ]
)
"""`plan/*.parquet`: sources.Item, field by field."""

BAD = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
    ]
)
"""`bad-*.parquet`: one row per image that could not be used."""

DROPPED = pa.schema([pa.field("key", pa.string(), nullable=False)])
"""`dropped.parquet` of an update: image keys of the base that are gone or changed."""


def embeddings(dim: int) -> pa.Schema:
    """`part-*.parquet`: one row per vector. float16 keeps cosine similarity to about 1e-3 in half the bytes."""
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
            pa.field("metadata", pa.string(), nullable=False),  # a JSON object
        ]
    )


def table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; an `embedding` may be a float array."""
    columns = []
    for field in schema:
        if field.name == "embedding":
            dim = field.type.list_size
            flat = np.asarray([row["embedding"] for row in rows], dtype=np.float16).reshape(len(rows) * dim)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), dim))
        else:
            columns.append(pa.array([row[field.name] for row in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def to_bytes(value: pa.Table, about: Mapping[str, str] | None = None) -> bytes:
    """A Parquet file, with `about` in its key-value metadata.

    No dictionary encoding: vectors and ids do not repeat, and trying costs most of the write."""
    if about:
        value = value.replace_schema_metadata(dict(about))
    sink = pa.BufferOutputStream()
    pq.write_table(value, sink, use_dictionary=False, compression="zstd", write_statistics=False)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes, name: str) -> tuple[pa.Table, dict[str, str]]:
    """The table and its key-value metadata; raises PermanentError, naming the object, where it is damaged."""
    try:
        value = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise PermanentError(
            f"{name} is damaged ({str(error).splitlines()[0]}): delete its shard's folder and give the same command"
        ) from error
    about = {k.decode(): v.decode() for k, v in (value.schema.metadata or {}).items()}
    return value, about


def vectors(value: pa.Table) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The embedding column as (rows, dim) float32."""
    column = value.column("embedding").combine_chunks()
    dim = column.type.list_size
    return np.asarray(column.flatten().to_numpy(), dtype=np.float32).reshape(len(column), dim)


def encode_metadata(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False, default=str)


def decode_metadata(text: str) -> dict[str, Any]:
    return json.loads(text)  # type: ignore[no-any-return]
