"""A loaded model that many requests share: batched calls, a cache of text vectors, and admission control."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

from imgsearch.encoder import Encoder, Pixels
from imgsearch.pictures import decode
from imgsearch.settings import SearchSettings
from imgsearch.vectors import Vector
from searcher.search.admission import Admission
from searcher.search.batcher import BatchQueue
from searcher.search.metrics import Metrics
from searcher.search.threads import Threads, gather

VectorCache = MutableMapping[tuple[str, str], Vector]
"""Vectors of texts by (fingerprint of the model, text)."""


@dataclass(frozen=True, eq=False)
class _Image:
    pixels: Pixels


class Model:
    """A loaded encoder as coroutines. Texts and images have a queue each, and the queues take turns. A model lives on
    one event loop and has nothing to close."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        threads: Threads,
        cache: VectorCache,
        admission: Admission,
        limits: SearchSettings,
        metrics: Metrics,
    ) -> None:
        self.name = encoder.model
        self.fingerprint = encoder.fingerprint
        self.dim = encoder.dim
        self._encoder = encoder
        self._threads = threads
        self._cache = cache
        self._admission = admission
        self._limits = limits
        self._metrics = metrics
        self._texts = BatchQueue(threads.model, self._encode_texts, max_batch=limits.batch_texts)
        self._images = BatchQueue(threads.model, self._encode_images, max_batch=limits.batch_images)

    async def vectors(self, items: Sequence[str | bytes]) -> list[Vector]:
        """The vectors of texts and of encoded images, in their order.

        Raises what the encoder raises, BadImage for an image that cannot be decoded, and Problem 429, before anything
        is encoded, where too many queries wait."""
        vectors = [self._cached(item) for item in items]
        missing = [item for item, vector in zip(items, vectors, strict=True) if vector is None]
        if missing:
            with self._admission.admit(len(missing)):  # before images are decoded: that takes memory and time, too
                encoded = iter(await gather([self._encode(item) for item in missing]))
            vectors = [next(encoded) if vector is None else vector for vector in vectors]
        return [vector for vector in vectors if vector is not None]

    def _cached(self, item: str | bytes) -> Vector | None:
        if isinstance(item, bytes):
            return None
        vector = self._cache.get((self.fingerprint, item))
        (self._metrics.cache_misses if vector is None else self._metrics.cache_hits).inc()
        return vector

    async def _encode(self, item: str | bytes) -> Vector:
        if isinstance(item, bytes):
            return await self._images.submit(_Image(await self._threads.decode(self._pixels, item)))
        vector = await self._texts.submit(item)
        with suppress(ValueError):  # cachetools raises it where the cache's size is 0
            self._cache[self.fingerprint, item] = vector
        return vector

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        self._metrics.batch_texts.observe(len(texts))
        with self._timed("text", len(texts)):
            vectors = self._encoder.encode_texts(texts)
        return [vector.copy() for vector in vectors]  # a view would keep the whole batch in the cache

    def _encode_images(self, images: list[_Image]) -> list[Vector]:
        self._metrics.batch_images.observe(len(images))
        with self._timed("image", len(images)):
            return list(self._encoder.encode_images([image.pixels for image in images]))

    @contextmanager
    def _timed(self, kind: str, queries: int) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds = perf_counter() - start
        self._metrics.encode_seconds.labels(kind).observe(seconds)
        self._admission.observe(queries, seconds)

    def _pixels(self, data: bytes) -> Pixels:
        picture = decode(data, max_pixels=self._limits.max_pixels, target=self._encoder.size)
        return self._encoder.prepare(picture.image)
