"""Parquet files with images, as tests write and read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgsearch.sources import SourceImage

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pixels(number: int) -> bytes:
    return b"image %d" % number


def write(path: Path, rows: int = 5, *, per_group: int = 2, features: Any = None, **columns: Any) -> Path:
    """A file with `rows` images in row groups of `per_group`, and `columns` beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": pixels(n), "path": f"{n}.png"} for n in range(rows)]
    table = pa.table({"image": pa.array(images, IMAGE), **columns})
    if features:
        schema_metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(schema_metadata)
    pq.write_table(table, path, row_group_size=per_group)
    return path


def all_images(source: Any, skip: int = 0) -> list[SourceImage]:
    return list(source.images(source.items(), skip))
