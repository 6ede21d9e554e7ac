"""The columns of a file of a table. No I/O.

Each file is one record batch in Arrow's IPC file format, uncompressed, so that a reader maps it into memory as it is
(https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format). Besides the columns of `FIXED` and the vector, it
has a column for each metadata field and type of its values, since the values of a field may have several types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgsearch.stores import Record
from imgsearch.stores.filters import Scalar

TYPES: Mapping[type, tuple[str, pa.DataType]] = {
    str: ("text", pa.string()),
    int: ("int", pa.int64()),
    float: ("double", pa.float64()),
    bool: ("bool", pa.bool_()),
}
"""The types of values of `records.filterable`: the name in a column's name, and the type of the values."""

FIXED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("hash", pa.uint64()),
        pa.field("key", pa.string()),
        pa.field("run", pa.dictionary(pa.int32(), pa.string())),
        pa.field("thumbs", pa.dictionary(pa.int32(), pa.string())),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("metadata", pa.string()),
        pa.field("norm", pa.float32()),
    ]
)
"""The columns of every file. `hash` is `id_hash` of the id, `metadata` the filterable metadata as JSON, `norm` the
length of the vector, which float16 makes a little longer or shorter than 1. The others are those of Record."""
INTERNAL = ("key", "run", "thumbs", "offset", "length", "width", "height")
"""The internal fields of a record, which are columns."""
VECTOR = "vector"
"""FixedSizeList<float16>[dim]."""


def column_name(field: str, type: type, *, is_list: bool = False) -> str:
    """The name of the column with the values of one type of a metadata field, or with its lists of that type."""
    name, _ = TYPES[type]
    return json.dumps([f"list<{name}>" if is_list else name, field], ensure_ascii=False)


def id_hash(id: str) -> int:
    """64 bits by which a reader finds the row of an id."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest())


class Rows:
    """Rows that become a batch."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._metadata: list[Mapping[str, Any]] = []
        self._texts: list[str] = []
        self._internal: list[Mapping[str, Any]] = []
        self._vectors: list[NDArray[np.float16]] = []
        self._norms: list[NDArray[np.float32]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, records: Sequence[Record], texts: Sequence[str]) -> None:
        """Adds records, which have vectors. `texts`: the metadata of each as JSON."""
        self._ids += [record.id for record in records]
        self._metadata += [record.metadata for record in records]
        self._texts += texts
        self._internal += [record.internal for record in records]
        # The vectors of records are views, which would keep the whole part in memory.
        vectors = np.stack([np.asarray(record.vector, np.float32) for record in records])
        self._vectors.append(vectors.astype(np.float16))
        self._norms.append(np.sqrt(np.vecdot(vectors, vectors)))

    def batch(self, fields: Collection[str]) -> pa.RecordBatch:
        """The batch of these rows, at least one. `fields`: the metadata fields that get columns."""
        vectors = np.concatenate(self._vectors)
        values: dict[str, Any] = {
            "id": self._ids,
            "hash": [id_hash(id) for id in self._ids],
            "metadata": self._texts,
            "norm": np.concatenate(self._norms),
            **{name: [internal[name] for internal in self._internal] for name in INTERNAL},
        }
        columns = {field.name: pa.array(values[field.name], field.type) for field in FIXED}
        columns[VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        columns |= _metadata_columns(self._metadata, fields)
        return pa.RecordBatch.from_pydict(columns)


class Texts:
    """The values of a column of text, none of them null. Arrow's own scalars and `take` have a cost for each call, and
    the few rows of a search are in many files."""

    def __init__(self, column: pa.StringArray) -> None:
        _, offsets, data = column.buffers()
        self._offsets = memoryview(offsets).cast("B").cast("i")[column.offset :]
        self._data = memoryview(data or b"")

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._offsets[row] : self._offsets[row + 1]], "utf-8")


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """The file with this batch. Equal records in the same order give the same bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def vectors(batch: pa.RecordBatch) -> NDArray[np.float16]:
    """(rows, dim), a view of the batch."""
    column = batch.column(VECTOR)
    return np.asarray(column.values.to_numpy()).reshape(len(column), column.type.list_size)


def _metadata_columns(metadata: Sequence[Mapping[str, Any]], fields: Collection[str]) -> dict[str, pa.Array]:
    """The values of each field and type; null: the field of this image is missing, or has another type."""
    values: dict[tuple[str, type, bool], list[Scalar | list[Scalar] | None]] = {}
    for row, image in enumerate(metadata):
        for field, value in image.items():
            if field not in fields:
                continue
            is_list = isinstance(value, list)
            key = (field, type(value[0] if is_list else value), is_list)
            if key not in values:
                values[key] = [None] * len(metadata)
            values[key][row] = value
    return {
        column_name(field, type, is_list=is_list): (_lists if is_list else _scalars)(column, type)
        for (field, type, is_list), column in sorted(values.items(), key=lambda item: column_name(*item[0][:2]))
    }


def _scalars(values: Sequence[Any], type: type) -> pa.Array:
    array = pa.array(values, TYPES[type][1])
    return array.dictionary_encode() if type is str else array


def _lists(values: Sequence[Any], type: type) -> pa.Array:
    lists = pa.array(values, pa.list_(TYPES[type][1]))
    if type is not str:
        return lists
    return pa.ListArray.from_arrays(
        lists.offsets, lists.values.dictionary_encode(), mask=lists.is_null() if lists.null_count else None
    )
