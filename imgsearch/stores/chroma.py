"""Chroma as a VectorStore, embedded or over HTTP. With chroma_clients.py, it is the one door
to `chromadb`.

The pointer of an index is the metadata of an empty collection `pointer.<index>`. Chroma replaces the metadata of a
collection in one transaction, so every reader, in any process, sees either the old pointer or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import httpx
import numpy as np
from chromadb.errors import ChromaError, InvalidArgumentError, NotFoundError

from imgsearch import typed_json
from imgsearch.errors import NotFound, PermanentError, TemporaryError, UsageError, first_line
from imgsearch.stores import DamagedStore, Hit, Neighbour, Pointer, Record, VectorStore, chroma_dialect, chroma_graphs
from imgsearch.stores.chroma_clients import connector, folder
from imgsearch.stores.chroma_files import ChromaFiles, is_damage
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vector, Vectors

POINTER = "pointer."
PAGE = 100
"""Collections in one response of the store."""


class ChromaStore:
    """A VectorStore (see imgsearch.stores) in one Chroma. It connects at the first call, so a program may start before
    its store."""

    def __init__(self, url: str) -> None:
        """`url` is `chroma+file:///folder` (created if it does not exist) or `chroma+http://host:port`."""
        self._url = url
        self._connect = connector(url)
        self._files = ChromaFiles(path) if (path := folder(url)) else None
        self._client: Any = None
        self._max_batch = 0
        self._handles: dict[str, Any] = {}
        self._opening = threading.Lock()

    def create(self, collection: str, *, dim: int, vectors: int) -> None:
        del dim  # Chroma takes it from the first vector, and refuses other ones
        graph = {"space": "cosine", **chroma_graphs.parameters(vectors)}
        with self._translated(collection):
            self._connected().get_or_create_collection(
                collection, configuration={"hnsw": graph}, embedding_function=None
            )

    def finish(self, collection: str) -> None:
        # Chroma reads it when it loads the graph again: then it adds the vectors that it has not written, and writes.
        graph = {"sync_threshold": chroma_graphs.SYNC_THRESHOLD}
        with self._translated(collection), warnings.catch_warnings():
            # Of its own note that the collection has no embedding function.
            warnings.filterwarnings("ignore", "legacy embedding function", DeprecationWarning)
            self._call(collection, "modify", configuration={"hnsw": graph})

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        stored: set[str] = set()
        with self._translated(collection):
            for chunk in self._chunks(ids):
                stored.update(self._call(collection, "get", ids=list(chunk), include=[])["ids"])
        return set(ids) - stored

    def add(self, collection: str, records: Sequence[Record]) -> None:
        with self._translated(collection):
            for chunk in self._chunks(records):
                self._call(
                    collection,
                    "add",
                    ids=[record.id for record in chunk],
                    embeddings=np.stack([cast(Vector, record.vector) for record in chunk]),
                    metadatas=[chroma_dialect.to_chroma(record.metadata, record.internal) for record in chunk],
                )

    def count(self, collection: str) -> int:
        with self._translated(collection):
            return int(self._call(collection, "count"))

    def get(self, collection: str, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        records: dict[str, Record] = {}
        with self._translated(collection):
            for chunk in self._chunks(ids):
                response = self._call(collection, "get", ids=list(chunk), include=_include(vectors))
                embeddings = response["embeddings"] if vectors else [None] * len(response["ids"])
                for id, stored, vector in zip(response["ids"], response["metadatas"], embeddings, strict=True):
                    metadata, internal = self._fields(stored)
                    records[id] = Record(id, metadata, _vector(vector), internal)
        return [records[id] for id in ids if id in records]

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        # Chroma's `n_results` is the only effort of a query: hnswlib visits max(ef_search, n_results) candidates, and
        # Chroma reads a changed ef_search only when it loads the index again.
        response = self._query(collection, queries, k, where, include=["distances"])
        return [
            [Neighbour(id, 1.0 - distance) for id, distance in zip(*row, strict=True)]
            for row in zip(response["ids"], response["distances"], strict=True)
        ]

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        response = self._query(collection, queries, k, where, include=["distances", *_include(vectors)])
        embeddings = response["embeddings"] if vectors else [[None] * len(ids) for ids in response["ids"]]
        return [
            [
                Hit(id, 1.0 - distance, metadata, _vector(vector), internal)
                for id, distance, stored, vector in zip(*row, strict=True)
                for metadata, internal in [self._fields(stored)]
            ]
            for row in zip(response["ids"], response["distances"], response["metadatas"], embeddings, strict=True)
        ]

    def drop(self, collection: str) -> None:
        self._handles.pop(collection, None)
        try:
            with self._translated(collection):
                self._connected().delete_collection(collection)
        except NotFound:
            pass

    def collections(self) -> list[str]:
        return [name for name, _ in self._listed() if not name.startswith(POINTER)]

    def publish(self, pointer: Pointer) -> None:
        metadata = {"pointer": json.dumps(dataclasses.asdict(pointer))}
        name = POINTER + pointer.index
        with self._translated(name):
            # It is created with the pointer, so that no reader finds it without one. An existing one is replaced.
            collection = self._connected().get_or_create_collection(name, metadata=metadata, embedding_function=None)
            if collection.metadata != metadata:
                collection.modify(metadata=metadata)

    def pointers(self) -> dict[str, Pointer]:
        pointers = {}
        for name, metadata in self._listed():
            if name.startswith(POINTER):
                try:
                    pointer = typed_json.validated(Pointer, str(metadata.get("pointer", "")))
                except ValueError as error:
                    raise DamagedStore(self._url, f"pointer of index {name.removeprefix(POINTER)}: {error}") from error
                pointers[pointer.index] = pointer
        return pointers

    def reopen(self) -> VectorStore:
        # Embedded clients of one folder share their memory until the last of them is closed.
        self.close()
        return ChromaStore(self._url)

    def close(self) -> None:
        self._handles.clear()
        with self._opening:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _query(self, collection: str, queries: Vectors, k: int, where: Filter | None, *, include: list[str]) -> Any:
        with self._translated(collection):
            return self._call(
                collection,
                "query",
                query_embeddings=queries,
                n_results=k,
                where=chroma_dialect.where(where) if where else None,
                include=include,
            )

    def _fields(self, stored: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The metadata and the internal fields of a stored record."""
        try:
            return chroma_dialect.from_chroma(stored)
        except (ValueError, TypeError) as error:
            raise DamagedStore(self._url, f"the metadata of a record: {error}") from error

    def _listed(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The names of all collections, with their metadata. One request for up to PAGE collections: each searcher asks
        every few seconds."""
        listed: list[tuple[str, Mapping[str, Any]]] = []
        with self._translated("the list of collections"):
            while True:
                page = self._connected().list_collections(limit=PAGE, offset=len(listed))
                listed += [(collection.name, collection.metadata or {}) for collection in page]
                if len(page) < PAGE:
                    return listed

    def _connected(self) -> Any:
        with self._opening:
            if self._client is None:
                if self._files and (damage := self._files.damage()):
                    raise DamagedStore(self._url, damage)
                self._client = self._connect()
        return self._client

    def _call(self, collection: str, method: str, **arguments: Any) -> Any:
        """Calls a method of a collection. Keeps the collection's handle, since to look it up costs a query. If the
        collection was dropped and created again, the handle is invalid and is looked up again."""
        handle = self._handles.get(collection)
        if handle is not None:
            try:
                return getattr(handle, method)(**arguments)
            except NotFoundError:
                self._handles.pop(collection, None)
        handle = self._connected().get_collection(collection, embedding_function=None)
        if self._files and (damage := self._files.damage_of(str(handle.id))):
            raise DamagedStore(self._url, damage)
        self._handles[collection] = handle
        return getattr(handle, method)(**arguments)

    def _chunks(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        self._max_batch = self._max_batch or self._connected().get_max_batch_size()
        for start in range(0, len(values), self._max_batch):
            yield values[start : start + self._max_batch]

    @contextmanager
    def _translated(self, collection: str) -> Iterator[None]:
        try:
            yield
        except NotFoundError as error:
            self._handles.pop(collection, None)
            raise NotFound(f"the store has no collection {collection!r}") from error
        except (InvalidArgumentError, ValueError, TypeError) as error:
            reason = first_line(error)
            if isinstance(error, ChromaError) and is_damage(reason, embedded=False):
                raise DamagedStore(self._url, reason) from error
            raise UsageError(f"Chroma refused the request for {collection!r}: {reason}") from error
        except (httpx.HTTPError, ConnectionError) as error:
            raise TemporaryError(f"Chroma at {self._url} does not answer: {first_line(error)}") from error
        except ChromaError as error:
            reason = first_line(error)
            if "disk is full" in reason or "No space left" in reason:
                raise PermanentError(
                    f"no space left on the disk of {self._url}: free some space and repeat the command"
                ) from error
            if is_damage(reason, embedded=self._files is not None):
                raise DamagedStore(self._url, reason) from error
            raise TemporaryError(f"Chroma at {self._url} failed: {reason}") from error
        except Exception as error:
            if type(error) is not Exception:
                raise
            # chromadb raises it for a response that is not Chroma's, such as a proxy's 502.
            reason = first_line(error.__context__ or error)
            raise TemporaryError(f"Chroma at {self._url} does not answer: {reason}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of Rust; it has no public class
                raise
            raise DamagedStore(self._url, first_line(error)) from error


def _include(vectors: bool) -> list[str]:
    return ["metadatas", "embeddings"] if vectors else ["metadatas"]


def _vector(vector: Any) -> Vector | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)
