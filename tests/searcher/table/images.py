"""Random images with any metadata, their table, and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from imgsearch.runs.documents import Table
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.storage import Storage
from imgsearch.stores import Record
from imgsearch.vectors import Vectors
from searcher.table import clusters
from searcher.table.files import TableFiles
from searcher.table.reader import RunTable
from searcher.table.writer import TableWriter

DIM = 16
FIELDS = ("a", "b", "$and", "id")

texts = st.sampled_from(["", "a", "b", "5", "true", "K\u00f6ln", "a\0b"])
integers = st.integers(-4, 4) | st.sampled_from([10**6, -(10**6)])
fractions = st.sampled_from([-3.5, -1.0, -0.5, 0.0, 0.5, 2.0, 2.25, 3.0])
"""Some are whole."""
booleans = st.booleans()
kinds: Sequence[st.SearchStrategy[Any]] = (texts, integers, fractions, booleans)
scalars: st.SearchStrategy[Any] = st.one_of(*kinds)
lists = st.one_of(*(st.lists(kind, min_size=1, max_size=3) for kind in kinds))
metadata = st.dictionaries(st.sampled_from(FIELDS), scalars | lists, max_size=len(FIELDS))

conditions = st.one_of(
    *(
        st.one_of(
            st.tuples(st.sampled_from(["$eq", "$ne", "$contains", "$not_contains"]), kind),
            st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(kind, min_size=1, max_size=3)),
        )
        for kind in kinds
    ),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), integers | fractions),
)
leaves = st.builds(lambda field, pair: {field: dict([pair])}, st.sampled_from(FIELDS), conditions)
filters = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda join, parts: {join: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=2, max_size=3)
    ),
    max_leaves=4,
)


def vectors(count: int, *, seed: int = 0, dim: int = DIM) -> Vectors:
    """Of length 1, as a part has them: float16 numbers."""
    values = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return np.asarray((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16), np.float32)


def clustered(vectors: Vectors, count: int) -> pa.RecordBatch:
    """So many clusters of the vectors (n, dim), for a table."""
    centroids = clusters.centroids(vectors, count)
    return clusters.to_batch(centroids, clusters.nearest(vectors, centroids))


def records(images: Sequence[Mapping[str, Any]], rows: Vectors | None = None) -> list[Record]:
    rows = vectors(len(images)) if rows is None else rows
    return [record(number, image, row) for number, (image, row) in enumerate(zip(images, rows, strict=True))]


def record(number: int, image: Mapping[str, Any], vector: np.ndarray[Any, Any]) -> Record:
    internal = {
        "key": f"{number}.jpg",
        "run": f"r{number % 2}",
        "thumbs": f"00000/0000{number % 3}",
        "offset": number * 512,
        "length": 7,
        "width": 640,
        "height": 480,
    }
    return Record(image_id(f"{number}.jpg"), image, vector, internal)


def write(
    folder: Path, images: Sequence[Record], *, file_rows: int = 7, clusters: pa.RecordBatch | None = None
) -> Table:
    """Writes the table of run r1, in several files."""
    storage = Storage(folder.as_uri())
    writer = TableWriter(storage, "r1", dim=DIM, file_rows=file_rows)
    writer.add(images[:5])
    writer.add(images[5:])
    writer.finish(clusters, compared=0 if clusters is None else 1)
    name = RunFolder("r1").table
    return Table.from_json(storage.get(name), name)


def table(
    folder: Path, images: Sequence[Record], *, file_rows: int = 7, clusters: pa.RecordBatch | None = None
) -> RunTable:
    document = write(folder, images, file_rows=file_rows, clusters=clusters)
    return TableFiles(Storage(folder.as_uri()), folder / "cache").open(document)
