"""A model that many requests share: what comes while it is busy waits, and enters its next call together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from imgsearch.encoder import Encoder, Pixels
from imgsearch.pictures import decode
from imgsearch.settings import SearchSettings
from searcher.metrics import Metrics
from searcher.threads import Threads

Vector = NDArray[np.float32]
"""(dim,), of length 1."""


class VectorCache:
    """Vectors of text queries by (fingerprint of the model, text); the least recently used goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    def get(self, fingerprint: str, text: str) -> Vector | None:
        vector = self._vectors.get((fingerprint, text))
        if vector is not None:
            self._vectors.move_to_end((fingerprint, text))
        return vector

    def put(self, fingerprint: str, text: str, vector: Vector) -> None:
        self._vectors[fingerprint, text] = vector
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


class Model:
    """A loaded encoder as coroutines. Lives on one event loop; has nothing to close."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        threads: Threads,
        cache: VectorCache,
        limits: SearchSettings,
        metrics: Metrics,
    ) -> None:
        self.name = encoder.model
        self.fingerprint = encoder.fingerprint
        self.dim = encoder.dim
        self._encoder = encoder
        self._threads = threads
        self._cache = cache
        self._limits = limits
        self._metrics = metrics
        self._queue: deque[str] = deque()
        self._in_flight: dict[str, asyncio.Future[Vector]] = {}
        self._consumer: asyncio.Task[None] | None = None

    async def text(self, text: str) -> Vector:
        """The vector of a text; what the encoder raises, everyone who waits for that call gets."""
        known = self._cache.get(self.fingerprint, text)
        if known is not None:
            self._metrics.cache_hits.inc()
            return known
        self._metrics.cache_misses.inc()
        future = self._in_flight.get(text)
        if future is None:
            future = self._in_flight[text] = asyncio.get_running_loop().create_future()
            self._queue.append(text)
            self._consumer = self._consumer or asyncio.create_task(self._consume())
        with self._metrics.queue.track_inprogress():
            # Shielded: one client that leaves must not take the vector away from the others.
            return await asyncio.shield(future)

    async def image(self, data: bytes) -> Vector:
        """The vector of an encoded image; raises BadImage where it is none."""
        pixels = await self._threads.decode(self._pixels, data)
        with self._metrics.queue.track_inprogress():
            return await self._threads.model(self._encode_image, pixels)

    async def _consume(self) -> None:
        while self._queue:
            texts = [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.batch_texts))]
            try:
                vectors = dict(zip(texts, await self._threads.model(self._encode_texts, texts), strict=True))
            except Exception as error:  # whatever it was, those who wait must hear of it
                for text in texts:
                    self._in_flight.pop(text).set_exception(error)
            else:
                for text, vector in vectors.items():
                    self._cache.put(self.fingerprint, text, vector)
                    self._in_flight.pop(text).set_result(vector)
        self._consumer = None

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        self._metrics.batch_texts.observe(len(texts))
        start = perf_counter()
        vectors = self._encoder.encode_texts(texts)
        self._metrics.encode_seconds.labels("text").observe(perf_counter() - start)
        return [vector.copy() for vector in vectors]  # a view would keep the whole batch in the cache

    def _pixels(self, data: bytes) -> Pixels:
        picture = decode(data, max_pixels=self._limits.max_pixels, target=self._encoder.size)
        return self._encoder.prepare(picture.image)

    def _encode_image(self, pixels: Pixels) -> Vector:
        start = perf_counter()
        vectors = self._encoder.encode_images([pixels])
        self._metrics.encode_seconds.labels("image").observe(perf_counter() - start)
        return np.asarray(vectors[0])
