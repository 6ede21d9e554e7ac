"""Stand-ins that need no model, no server and no disk; they pass the same contract tests as the real ones."""

from __future__ import annotations

import hashlib
import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from imgsearch.encoder import Pixels
from imgsearch.errors import NotFound, UsageError
from imgsearch.sources import Content, Item, SourceImage
from imgsearch.sources.values import Metadata
from imgsearch.stores import Hit, Neighbour, Pointer, Record, VectorStore
from imgsearch.stores.filters import Filter, Joined, Operator
from imgsearch.vectors import Vectors

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


class FakeEncoder:
    """A "model" that knows colours: an image's vector is its mean colour, a text's that of its colour words.

    Words that are no colour count too, in directions of their own: different texts have different vectors.
    """

    preprocessing = "fake"
    dim = 16
    size = 8
    device = "cpu"
    workers = 1
    batch = 4
    device_memory = 0

    def __init__(self, model: str = "fake/colours", *, fingerprint: str | None = None) -> None:
        self.model = model
        self.fingerprint = fingerprint or hashlib.sha256(model.encode()).hexdigest()
        self.unblocked = threading.Event()
        """Cleared, every call waits until it is set: a busy model."""
        self.unblocked.set()
        self.call_started = threading.Event()
        """Set when a call has begun."""
        self.failure: Exception | None = None
        """What every call raises instead of answering."""
        self.text_calls: list[list[str]] = []
        self.image_calls: list[int] = []
        self.prepared_count = 0
        self.threads: set[int] = set()

    def prepare(self, image: Image.Image) -> Pixels:
        self.prepared_count += 1
        return np.asarray(image.convert("RGB").resize((self.size, self.size)), dtype=np.uint8)

    def encode_images(self, batch: Sequence[Pixels]) -> Vectors:
        self._begin()
        self.image_calls.append(len(batch))
        return np.stack([self._vector(pixels.mean(axis=(0, 1))) for pixels in batch])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self._begin()
        self.text_calls.append(list(texts))
        return np.stack([self._text(text.lower().split()) for text in texts])

    def _begin(self) -> None:
        self.threads.add(threading.get_ident())
        self.call_started.set()
        assert self.unblocked.wait(30), "the test never opened the gate"
        if self.failure:
            raise self.failure

    def _text(self, tokens: Sequence[str]) -> Vectors:
        colours = [COLOURS[token] for token in tokens if token in COLOURS]
        return self._vector(np.mean(colours, axis=0) if colours else np.zeros(3), tokens)

    def _vector(self, colour: Any, tokens: Iterable[str] = ()) -> Vectors:
        vector = np.zeros(self.dim, np.float32)
        vector[:3] = np.asarray(colour) / 255
        vector[3] = 0.1  # black, too, has a direction
        for token in tokens:
            if token not in COLOURS:
                digest = hashlib.sha256(token.encode()).digest()
                vector[4:] += np.frombuffer(digest[: self.dim - 4], np.uint8) / 255 - 0.5
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


class InMemoryStore:
    """A VectorStore in dictionaries, with Chroma's reading of filters."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._collections: dict[str, dict[str, Record]] = {}
        self._pointers: dict[str, Pointer] = {}

    def create(self, collection: str, *, dim: int, vectors: int) -> None:
        with self._lock:
            self._collections.setdefault(collection, {})

    def finish(self, collection: str) -> None:
        self._records(collection)

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        return set(ids) - self._records(collection).keys()

    def add(self, collection: str, records: Sequence[Record]) -> None:
        with self._lock:
            stored = self._records(collection)
            for record in records:
                stored.setdefault(record.id, record)

    def count(self, collection: str) -> int:
        return len(self._records(collection))

    def get(self, collection: str, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        stored = self._records(collection)
        records = [stored[id] for id in ids if id in stored]
        return [
            Record(item.id, dict(item.metadata), item.vector if vectors else None, dict(item.internal))
            for item in records
        ]

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        rows = self.search(collection, queries, k=k, where=where)
        return [[Neighbour(hit.id, hit.score) for hit in row] for row in rows]

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        with self._lock:
            records = list(self._records(collection).values())
        matching = [item for item in records if not where or matches(where, item.metadata)]
        if not matching:
            return [[] for _ in queries]
        matrix = np.stack([item.vector for item in matching if item.vector is not None])
        if matrix.shape[1] != queries.shape[1]:
            raise UsageError(f"{collection} has vectors of {matrix.shape[1]} numbers, the query {queries.shape[1]}")
        rows = []
        for query in queries:
            scores = matrix @ (query / np.linalg.norm(query))
            order = np.argsort(-scores, kind="stable")[:k]
            rows.append(
                [
                    Hit(
                        matching[i].id,
                        float(scores[i]),
                        dict(matching[i].metadata),
                        matching[i].vector if vectors else None,
                        dict(matching[i].internal),
                    )
                    for i in order
                ]
            )
        return rows

    def drop(self, collection: str) -> None:
        with self._lock:
            self._collections.pop(collection, None)

    def collections(self) -> list[str]:
        with self._lock:
            return list(self._collections)

    def publish(self, pointer: Pointer) -> None:
        with self._lock:
            self._pointers[pointer.index] = pointer

    def pointers(self) -> dict[str, Pointer]:
        with self._lock:
            return dict(self._pointers)

    def reopen(self) -> VectorStore:
        reopened = InMemoryStore()
        reopened._lock, reopened._collections, reopened._pointers = self._lock, self._collections, self._pointers
        return reopened

    def close(self) -> None:
        """Nothing is open."""

    def _records(self, collection: str) -> dict[str, Record]:
        with self._lock:
            try:
                return self._collections[collection]
            except KeyError:
                raise NotFound(f"the store has no collection {collection!r}") from None


class InMemorySource:
    """A Source of images that are given as bytes by key."""

    def __init__(self, uri: str, images: Mapping[str, bytes]) -> None:
        self.uri = uri
        self.skipped: Counter[str] = Counter()
        self._images = dict(images)

    def replace(self, key: str, data: bytes) -> None:
        """Another image under the same key."""
        self._images[key] = data

    def items(self) -> Iterator[Item]:
        for key, data in self._images.items():
            yield Item(key=key, size=len(data), etag=hashlib.sha256(data).hexdigest())

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        yield from ()

    def image_keys(self, item: Item) -> Iterator[str]:
        yield item.key

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        for item in list(items)[skip:]:
            yield SourceImage(item.key, item.etag, item.metadata, partial(self._load, item.key))

    def _load(self, key: str) -> Content:
        data = self.read(key)
        return Content(data, hashlib.sha256(data).hexdigest())

    def read(self, key: str) -> bytes:
        try:
            return self._images[key]
        except KeyError:
            raise NotFound(f"{self.uri} has no image {key!r}") from None


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_NEGATED: dict[str, Operator] = {"ne": "eq", "nin": "in", "not_contains": "contains"}


def matches(where: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether `metadata` passes the filter. A field that is absent passes every negation."""
    if isinstance(where, Joined):
        return (all if where.join == "and" else any)([matches(part, metadata) for part in where.parts])
    if where.operator in _NEGATED:
        return not matches(replace(where, operator=_NEGATED[where.operator]), metadata)
    value = metadata.get(where.field)
    if where.operator == "in":
        return any(_comparable(value, item) and value == item for item in where.values)
    if where.operator == "contains":
        return isinstance(value, list) and any(_comparable(item, where.value) and item == where.value for item in value)
    return _comparable(value, where.value) and _COMPARE[where.operator](value, where.value)


def _comparable(a: Any, b: Any) -> bool:
    """int and float are; bool is a kind of its own, although Python counts it among the ints."""
    return _kind(a) == _kind(b)


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)
