"""Vector stores: the protocol for ingest and search. Every store passes the same contract tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.documents import RecallFigure
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vector, Vectors


@dataclass(frozen=True)
class Record:
    """One image in a store."""

    id: str
    metadata: Mapping[str, Any]
    """The source's metadata, with the source's own names: any text is a name."""
    vector: Vector | None = None
    """Of length 1; None if it was not requested."""
    internal: Mapping[str, Any] = field(default_factory=dict)
    """Fields for the searcher, which no filter finds; records.record lists them."""


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    id: str
    score: float
    """Cosine similarity in [-1, 1]."""
    metadata: Mapping[str, Any]
    vector: Vector | None = None
    internal: Mapping[str, Any] = field(default_factory=dict)


class Neighbour(NamedTuple):
    """One result of a search, without its record."""

    id: str
    score: float
    """Cosine similarity in [-1, 1]."""


@dataclass(frozen=True)
class Pointer:
    """The published run of an index, with everything that a searcher needs to answer from it."""

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
    candidates: int = 100
    """The neighbours to request for the first 100 results: ingest measured the recall with them. The default is that of
    a run of an earlier version."""
    previous: Pointer | None = None
    """The run that a rollback publishes again; its own `previous` is None, since two collections are kept."""
    recall: list[RecallFigure] = field(default_factory=list, hash=False)
    """As in the report of the run; empty in a pointer of an earlier version."""

    def check_weights(self, fingerprint: str) -> None:
        """Raises PermanentError if a loaded model has other weights than the model of the run's vectors."""
        if fingerprint != self.fingerprint:
            raise PermanentError(
                f"the weights of {self.model} here ({fingerprint[:12]}) differ from those of run {self.run} "
                f"({self.fingerprint[:12]}); provide the same weights, or index again"
            )


class DamagedStore(PermanentError):
    """Files of the store are damaged. The run folders contain all that is in it."""

    def __init__(self, url: str, damage: str) -> None:
        super().__init__(
            f"the vector store {url} is damaged ({damage}): rebuild it with `controller restore`, which embeds nothing"
        )


class VectorStore(Protocol):
    """Collections of vectors, compared by cosine similarity, and one pointer for each index. Calls block; any thread
    may call. A store holds any metadata that records.filterable returns.

    Every method raises TemporaryError if the store does not answer, NotFound if the collection does not exist, and
    DamagedStore."""

    def create(self, collection: str, *, dim: int, vectors: int) -> None:
        """Creates an empty collection for about this number of vectors; an existing one stays as it is."""

    def finish(self, collection: str) -> None:
        """Ends the filling of a collection: the store may then do what it does once for all vectors. It can be called
        again, and vectors can still be added."""

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        """The `ids` that are not stored yet."""

    def add(self, collection: str, records: Sequence[Record]) -> None:
        """Stores records (with vectors) whose ids are not stored yet."""

    def count(self, collection: str) -> int: ...

    def get(self, collection: str, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """The stored records among `ids`, in the order of `ids`."""

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        """For each row of `queries` (n, dim) its k nearest, best first. A larger k costs little, and with it an
        approximate search misses fewer of the nearest."""

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        """The records of the k nearest, with their scores."""

    def drop(self, collection: str) -> None:
        """Deletes a collection, if it exists."""

    def collections(self) -> list[str]: ...

    def publish(self, pointer: Pointer) -> None:
        """Publishes the run under `pointer.index`, with one atomic write."""

    def pointers(self) -> dict[str, Pointer]:
        """The pointer of every index, read without a cache."""

    def reopen(self) -> VectorStore:
        """A new client without the caches of this one: it sees the same data as a restarted reader."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """A kind of store. The scheme of a URL names it."""

    opener: str
    """The function that opens a URL, as `module:function`."""
    example: str
    """A URL, for messages."""
    embedded: bool = False
    """Whether the store is files that only one process may open."""


KINDS = {
    # https://cookbook.chromadb.dev/core/system_constraints/
    "chroma+file": Kind("imgsearch.stores.chroma:ChromaStore", "chroma+file:///folder", embedded=True),
    "chroma+http": Kind("imgsearch.stores.chroma:ChromaStore", "chroma+http://host:8000"),
    "chroma+https": Kind("imgsearch.stores.chroma:ChromaStore", "chroma+https://host:443"),
}
"""The kinds, by scheme. A new store needs a line here, and a module with the function that its `opener` names."""


def embedded(url: str) -> bool:
    """Whether the store is files that only one process may open."""
    return (kind := _kind(url)) is not None and kind.embedded


def open_store(url: str) -> VectorStore:
    """The store with this URL, which need not answer yet; raises UsageError if the URL is invalid."""
    kind = _kind(url)
    if kind is None:
        raise UsageError(f"invalid store {url!r}: use {' or '.join(kind.example for kind in KINDS.values())}")
    # By name: each store needs its own libraries, and a program installs only those that it uses.
    store: VectorStore = resolve_name(kind.opener)(url)
    return store


@contextmanager
def rebuilding(url: str) -> Iterator[str]:
    """The URL of the store to fill again. That of a server is the store itself.

    An embedded store is a new one in the folder `<folder>.restored`, which replaces the store after the block. An error
    keeps both, so that the next call continues, unless the new one is damaged. `<folder>.old` exists only between two
    renames; a killed call leaves it, and the next one puts it back or deletes it."""
    if not embedded(url):
        yield url
        return
    scheme, _, path = url.partition("://")
    folder = Path(unquote(path)).resolve()
    new, old = folder.with_name(f"{folder.name}.restored"), folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    try:
        yield f"{scheme}://{quote(str(new))}"
    except DamagedStore:
        shutil.rmtree(new)
        raise
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _kind(url: str) -> Kind | None:
    return KINDS.get(url.partition(":")[0])
