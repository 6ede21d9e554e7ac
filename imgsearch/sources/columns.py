"""The columns of a Parquet file: one contains the images, the others contain metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from imgsearch.errors import UsageError
from imgsearch.sources.values import InvalidName, Metadata, check_names, to_metadata


def find_columns(schema: pa.Schema, *, wanted: str | None, path: str) -> tuple[str, list[str]]:
    """The column with the images, and those with metadata. Without `wanted`, the column that `datasets` marked as an
    image comes first, then a struct with bytes, then plain bytes.

    Raises UsageError, with the names of the columns, if `wanted` contains no images. Raises it without `wanted`, too,
    unless exactly one column contains images. Raises it for a name that cannot be used."""
    try:
        check_names(schema.names)
    except InvalidName as error:
        raise UsageError(f"{path} {error}: rename the column") from error
    features = declared_features(schema)
    structs = [field.name for field in schema if _is_struct(field.type)]
    binaries = [field.name for field in schema if _is_binary(field.type)]
    marked = [name for name in structs + binaries if _type(features.get(name)) == "Image"]
    candidates = marked or structs or binaries
    if wanted is not None:
        if wanted not in structs + binaries:
            raise UsageError(f"{path} has no images in a column {wanted!r}; its columns are {_list(schema.names)}")
        candidates = [wanted]
    if not candidates:
        raise UsageError(f"no column of {path} holds image bytes; its columns are {_list(schema.names)}")
    if len(candidates) > 1:
        raise UsageError(f"{path} has several columns with images: name one of {_list(candidates)} with ?column=")
    return candidates[0], [name for name in schema.names if name not in structs + binaries]


def declared_features(schema: pa.Schema) -> Mapping[str, Any]:
    """The features that `datasets` wrote into the footer, by column; empty if it wrote none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def class_names(feature: Any) -> list[str]:
    """The names of the classes, of a ClassLabel or a list of them; empty for another feature."""
    if _type(feature) in ("List", "LargeList", "Sequence"):
        feature = feature.get("feature")
    names = feature.get("names") if _type(feature) == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def rows_metadata(batch: pa.RecordBatch, labels: Mapping[str, Sequence[str]]) -> Iterator[Metadata]:
    """The metadata of each row. `labels`: the names of the classes, by column."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(column.type):  # nanoseconds do not fit Python's datetime
            column = column.cast(pa.string())
        columns[name] = column.to_pylist()
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in columns.items()}
        yield to_metadata({name: _label(value, labels.get(name)) for name, value in values.items()})


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and any(f.name == "bytes" and _is_binary(f.type) for f in kind)


def _type(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _label(value: Any, names: Sequence[str] | None) -> Any:
    """The name of a class, or the names of a list of classes. `datasets` writes -1 for an unknown label."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_label(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
