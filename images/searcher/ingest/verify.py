"""Verifies a filled collection before it is published: its count, and the vectors of a sample, read back by id.

It refuses loss and corruption only. A search of a large collection is approximate, so a vector that a search does not
find is counted, and no reason to refuse."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from imgsearch.errors import PermanentError
from imgsearch.stores import Record, VectorStore
from imgsearch.stores.records import thumbnail
from imgsearch.vectors import Vector
from searcher.ingest.samples import PartEnds, Samples, vector_of

log = logging.getLogger(__name__)

SAMPLES = 256
"""Vectors to read back. If 2 % of the vectors are wrong, the probability that a sample has none of them is 0.6 %."""
TOLERANCE = 1e-3
"""Two vectors whose numbers differ by less are equal: parts store them as float16."""


class Mismatch(PermanentError):
    """A collection does not have the vectors of the run folders."""

    def __init__(self, collection: str, run: str, problem: str) -> None:
        super().__init__(
            f"collection {collection} {problem}: it is not what the files of run {run} contain. If an index serves the "
            "run, rebuild it with `controller restore`, which embeds nothing; otherwise see the log of the store"
        )


def verify(store: VectorStore, collection: str, *, run: str, rows: int, samples: Samples, ends: PartEnds) -> int:
    """Returns the number of samples that a search finds: by their id, or by another image with the same vector.

    Raises Mismatch where the collection does not have `rows` vectors, or does not have the vector of a sample; where it
    has other places of thumbnails than the parts, since a part was made again; and where no sample is found."""
    stored = store.count(collection)
    if stored != rows:
        raise Mismatch(collection, run, f"has {stored} vectors, but run {run} has {rows}")
    _check_vectors(store, collection, run=run, samples=samples)
    _check_thumbnails(store, collection, run=run, ends=ends)
    found = _found(store, collection, samples)
    if not found:
        raise Mismatch(collection, run, f"has an index that finds none of {len(samples.records)} of its images")
    if found < len(samples.records):
        log.warning(
            "a search for the vectors of %d images finds %d of them in %s: the index of the store is approximate",
            len(samples.records),
            found,
            collection,
        )
    return found


def _check_vectors(store: VectorStore, collection: str, *, run: str, samples: Samples) -> None:
    for sample, record in _read_back(store, collection, samples.records, run=run, vectors=True):
        if not _same(vector_of(record), vector_of(sample)):
            raise Mismatch(collection, run, f"has another vector of image {sample.id}")


def _check_thumbnails(store: VectorStore, collection: str, *, run: str, ends: PartEnds) -> None:
    for end, record in _read_back(store, collection, ends.records, run=run, vectors=False):
        if thumbnail(record) != thumbnail(end):
            raise Mismatch(collection, run, f"has another place of the thumbnail of image {end.id}")


def _read_back(
    store: VectorStore, collection: str, records: Sequence[Record], *, run: str, vectors: bool
) -> Iterator[tuple[Record, Record]]:
    """Each of the records, and the stored one with its id."""
    stored = {record.id: record for record in store.get(collection, [r.id for r in records], vectors=vectors)}
    for record in records:
        if record.id not in stored:
            raise Mismatch(collection, run, f"does not have image {record.id}")
        yield record, stored[record.id]


def _found(store: VectorStore, collection: str, samples: Samples) -> int:
    found = 0
    results = store.search(collection, samples.vectors(), k=3, vectors=True)
    for sample, hits in zip(samples.records, results, strict=True):
        found += any(
            hit.id == sample.id or (hit.vector is not None and _same(hit.vector, vector_of(sample))) for hit in hits
        )
    return found


def _same(vector: Vector, other: Vector) -> bool:
    return bool(np.allclose(vector, other, atol=TOLERANCE))
