"""The format of the texts of a shard, which the embedder writes and ingest reads: `texts.parquet`.

Ingest measures with them the recall of searches by text. It has no model, so the file has their vectors, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from imgsearch.runs import parts, tables
from imgsearch.runs.digests import Damaged
from imgsearch.vectors import Vector, Vectors

MOST_TEXTS = 256
"""Texts of all shards of a run, or a few more. Ingest uses at most as many: about as many as images."""
Origin = Literal["caption", "label", "everyday"]


@dataclass(frozen=True)
class Text:
    """One text."""

    text: str
    origin: Origin
    """From where it is: a caption or a label of an image of the shard, or the embedder's list of everyday captions."""


def schema(dim: int) -> pa.Schema:
    """The columns: those of Text, and the vector as float16, as in a part."""
    return pa.schema(
        [
            pa.field("text", pa.string(), nullable=False),
            pa.field("origin", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float16(), dim), nullable=False),
        ]
    )


def to_bytes(texts: Sequence[Text], vectors: Vectors) -> bytes:
    """A `texts.parquet`. `vectors`: (texts, dim)."""
    dim = vectors.shape[1]
    columns = [
        pa.array([text.text for text in texts]),
        pa.array([text.origin for text in texts]),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), dim),
    ]
    return tables.to_bytes(pa.Table.from_arrays(columns, schema=schema(dim)))


def from_bytes(data: bytes, name: str, *, dim: int) -> dict[str, Vector]:
    """The vectors by text; raises Damaged for another file."""
    table, _ = tables.from_bytes(data, name)
    if table.schema != schema(dim):
        raise Damaged(name, "is damaged (it has other columns)")
    return dict(zip(table["text"].to_pylist(), parts.vectors(table), strict=True))
