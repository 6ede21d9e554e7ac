"""Where vectors live: the protocol that ingest and search speak, and that every store's adapter passes tests for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import UsageError

Vectors = NDArray[np.float32]
Filter = Mapping[str, Any]
"""Chroma's operators: $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains $and $or."""


@dataclass(frozen=True)
class Record:
    """One image as the store holds it. Keys that begin with `_` are ours, the others are the source's."""

    id: str
    metadata: Mapping[str, Any]
    vector: Vectors | None = None
    """(dim,), L2-normalised; None where it was not asked for."""


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    id: str
    score: float
    """Cosine similarity in [-1, 1]."""
    metadata: Mapping[str, Any]
    vector: Vectors | None = None


@dataclass(frozen=True)
class Pointer:
    """What an index name points to: the alias, and all that a searcher must know to answer from it."""

    index: str
    run: str
    collection: str
    model: str
    fingerprint: str
    dim: int
    images: int
    source: str
    published: str
    """UTC, ISO 8601."""
    previous: Pointer | None = None
    """What `rollback` points back to; its own `previous` is None, since two collections are kept."""


class VectorStore(Protocol):
    """Collections of vectors by cosine similarity, and one pointer an index. Calls block; any thread may call.

    Every method raises TemporaryError where the store does not answer, and NotFound where the collection is
    not there."""

    def create(self, collection: str, *, dim: int) -> None:
        """Makes an empty collection; one that is there already stays as it is."""

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that are not stored yet."""

    def add(self, collection: str, records: Sequence[Record]) -> None:
        """Stores records (with vectors) whose ids are not there yet."""

    def count(self, collection: str) -> int: ...

    def get(self, collection: str, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """The stored records among `ids`, in the order of `ids`; what is not stored is left out."""

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        """For each row of `queries` (n, dim) its k nearest, best first. Raises UsageError for a wrong filter."""

    def drop(self, collection: str) -> None:
        """Removes a collection; one that is not there is no error."""

    def collections(self) -> list[str]: ...

    def publish(self, pointer: Pointer) -> None:
        """Points `pointer.index` at its collection: one atomic write, seen whole or not at all."""

    def pointers(self) -> dict[str, Pointer]:
        """Every index's pointer, read afresh."""

    def reopen(self) -> VectorStore:
        """A new client that shares nothing with this one's caches: what a restarted reader would see."""

    def close(self) -> None: ...


def embedded(url: str) -> bool:
    """Whether the store is files that one process has open (https://cookbook.chromadb.dev/core/system_constraints/)."""
    return url.startswith("chroma+file:")


def open_store(url: str) -> VectorStore:
    """The store behind `url`, which need not answer yet; raises UsageError for a URL of no known kind."""
    if url.startswith("chroma+"):
        from imgsearch.stores.chroma import ChromaStore

        return ChromaStore(url)
    raise UsageError(f"no store understands {url!r}; use chroma+file:///folder or chroma+http://host:8000")
