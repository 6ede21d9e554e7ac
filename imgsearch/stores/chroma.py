"""Chroma as a VectorStore, embedded or over HTTP. The one door to `chromadb`.

The pointer of an index is the metadata of an empty collection `pointer.<index>`. Chroma replaces the metadata of a
collection in one transaction, so every reader, in any process, sees either the old pointer or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import ChromaError, InvalidArgumentError, NotFoundError

from imgsearch import typed_json
from imgsearch.errors import NotFound, PermanentError, TemporaryError, UsageError, first_line
from imgsearch.stores import Filter, Hit, Pointer, Record, VectorStore, chroma_dialect
from imgsearch.vectors import Vector, Vectors

POINTER = "pointer."
TIMEOUT = httpx.Timeout(60, connect=5)
"""Seconds. A server on a lost node never answers; a server that replays its log after a start is slow."""


class ChromaStore:
    """A VectorStore (see imgsearch.stores) in one Chroma. It connects at the first call, so a program may start before
    its store."""

    def __init__(self, url: str) -> None:
        """`url` is `chroma+file:///folder` (created if it does not exist) or `chroma+http://host:port`."""
        self._url = url
        self._connect = _connector(url)
        self._client: Any = None
        self._max_batch = 0
        self._handles: dict[str, Any] = {}
        self._opening = threading.Lock()

    def create(self, collection: str, *, dim: int) -> None:
        del dim  # Chroma takes it from the first vector, and refuses other ones
        with self._translated(collection):
            self._connected().get_or_create_collection(
                collection, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
            )

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
                    metadatas=[chroma_dialect.to_chroma(record.metadata) for record in chunk],
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
                for id, metadata, vector in zip(response["ids"], response["metadatas"], embeddings, strict=True):
                    records[id] = Record(id, chroma_dialect.from_chroma(metadata), _vector(vector))
        return [records[id] for id in ids if id in records]

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        with self._translated(collection):
            response = self._call(
                collection,
                "query",
                query_embeddings=queries,
                n_results=k,
                where=chroma_dialect.where(where) if where else None,
                include=["distances", *_include(vectors)],
            )
        embeddings = response["embeddings"] if vectors else [[None] * len(ids) for ids in response["ids"]]
        return [
            [
                Hit(id, 1.0 - distance, chroma_dialect.from_chroma(metadata), _vector(vector))
                for id, distance, metadata, vector in zip(*row, strict=True)
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
        return [name for name in self._names() if not name.startswith(POINTER)]

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
        for name in self._names():
            if name.startswith(POINTER):
                with self._translated(name):
                    metadata = self._connected().get_collection(name, embedding_function=None).metadata
                pointer = typed_json.parse(
                    Pointer,
                    str((metadata or {}).get("pointer", "")),
                    f"the pointer of index {name.removeprefix(POINTER)}",
                    advice="delete the damaged store, and restore it from the run folders (docs/backup.md)",
                )
                pointers[pointer.index] = pointer
        return pointers

    def reopen(self) -> VectorStore:
        # Embedded clients of one folder share their memory until the last of them is closed.
        self.close()
        return ChromaStore(self._url)

    def close(self) -> None:
        self._handles.clear()
        if self._client is not None:
            self._client.close()

    def _names(self) -> list[str]:
        names: list[str] = []
        with self._translated("the list of collections"):
            while page := self._connected().list_collections(limit=100, offset=len(names)):
                names += [collection.name for collection in page]
        return names

    def _connected(self) -> Any:
        with self._opening:
            if self._client is None:
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
        handle = self._handles[collection] = self._connected().get_collection(collection, embedding_function=None)
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
            raise UsageError(f"Chroma refused the request for {collection!r}: {first_line(error)}") from error
        except (httpx.HTTPError, ConnectionError) as error:
            raise TemporaryError(f"Chroma at {self._url} does not answer: {first_line(error)}") from error
        except ChromaError as error:
            reason = first_line(error)
            if "disk is full" in reason or "No space left" in reason:
                raise PermanentError(
                    f"no space left on the disk of {self._url}: free some space and repeat the command"
                ) from error
            raise TemporaryError(f"Chroma at {self._url} failed: {reason}") from error
        except Exception as error:
            if type(error) is not Exception:
                raise
            # chromadb raises it for a response that is not Chroma's, such as a proxy's 502.
            reason = first_line(error.__context__ or error)
            raise TemporaryError(f"Chroma at {self._url} does not answer: {reason}") from error


def _connector(url: str) -> Callable[[], Any]:
    """A function that makes a client; raises UsageError if `url` is invalid."""
    settings = ChromaSettings(anonymized_telemetry=False)
    with suppress(ValueError):  # such as a port that is not a number
        parts = urlsplit(url)
        if parts.scheme == "chroma+file" and parts.path.startswith("/"):
            folder = Path(unquote(parts.path))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot create the folder {folder}: {error.strerror}") from error
            return partial(chromadb.PersistentClient, folder, settings=settings)
        if parts.scheme in ("chroma+http", "chroma+https") and parts.hostname:
            tls = parts.scheme == "chroma+https"
            return partial(_http_client, url, parts.hostname, parts.port or (443 if tls else 8000), tls, settings)
    raise UsageError(f"invalid store {url!r}: use chroma+file:///folder or chroma+http://host:8000")


def _http_client(url: str, host: str, port: int, tls: bool, settings: ChromaSettings) -> Any:
    address = f"[{host}]" if ":" in host else host
    # Checked first, since chromadb's client has no timeout while it connects.
    httpx.get(f"{'https' if tls else 'http'}://{address}:{port}/api/v2/heartbeat", timeout=TIMEOUT).raise_for_status()
    try:
        client = chromadb.HttpClient(address, port, ssl=tls, settings=settings)
    except ValueError as error:  # chromadb raises it if the server does not answer
        raise TemporaryError(f"Chroma at {url} does not answer: {first_line(error)}") from error
    client._server._session.timeout = TIMEOUT  # chromadb has no setting for it
    return client


def _include(vectors: bool) -> list[str]:
    return ["metadatas", "embeddings"] if vectors else ["metadatas"]


def _vector(vector: Any) -> Vector | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)
