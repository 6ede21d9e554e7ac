"""Embeds one shard, from its items to its done.json. Reading, decoding, encoding and writing overlap."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedder.metrics import EmbedMetrics
from embedder.overlap import batched, ordered_map
from embedder.part_writer import PartWriter
from embedder.parts import Finished, Parts, Row
from embedder.texts import ShardTexts
from imgsearch import machine
from imgsearch.encoder import Encoder, Pixels
from imgsearch.errors import BadImage, NotFound, PermanentError
from imgsearch.pictures import Decoder, thumbnail
from imgsearch.runs import digests, tables
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.runs.parts import BadRow
from imgsearch.settings import EmbedSettings
from imgsearch.sources import Content, Item, Source, SourceImage
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage

log = logging.getLogger(__name__)

READERS = 16
"""Threads that wait for a disk or a bucket, and do not compute."""


@dataclass(frozen=True)
class Read:
    """An image as it was read, or the reason why it could not be read."""

    source: SourceImage
    content: Content | BadImage


@dataclass(frozen=True)
class Prepared:
    """An image ready for the model."""

    source: SourceImage
    etag: str
    pixels: Pixels
    width: int
    height: int
    thumbnail: bytes


class ShardEmbedder:
    """Embeds shards of one run, and resumes after the last complete part of an earlier attempt."""

    def __init__(
        self,
        *,
        plan: Plan,
        settings: EmbedSettings,
        storage: Storage,
        source: Source,
        load_encoder: Callable[[], Encoder],
        metrics: EmbedMetrics,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._folder = RunFolder(plan.run)
        self._settings = settings
        self._storage = storage
        self._source = source
        self._load_encoder = load_encoder
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        self._decoder = Decoder(settings.max_pixels)

    def embed(self, shard: int) -> ShardDone:
        """Embeds the rest of `shard` and writes its done.json.

        If `stopping` is set meanwhile, writes the started part and raises Interrupted."""
        name = self._folder.done(shard)
        if done := self._done(name):
            log.info("shard %d is already done", shard)
            return done
        start = self._clock()
        items = self._items(shard)
        total = pc.sum(items["images"]).as_py()
        encoder = self._load_encoder()
        parts = Parts(self._storage, self._folder, shard, encoder=encoder)
        earlier = parts.progress()
        if earlier.done:
            figures = {"done": earlier.done, "total": total}
            log.info("resuming after %d of %d images", earlier.done, total, extra=figures)
        images = self._until_stopping(self._source.images(_items(items), earlier.done))
        writer = PartWriter(
            parts,
            earlier,
            part_images=self._plan.part_images,
            total=total,
            metrics=self._metrics,
            clock=self._clock,
        )
        with writer:
            for batch in self._embedded(images, encoder):
                writer.add(batch)
        progress = writer.progress
        if progress.done < total:
            raise Interrupted
        with self._metrics.timed("texts"):
            texts = ShardTexts(self._storage, self._folder, shard, encoder=encoder, stopping=self._stopping)
            text_digests = texts.write(images=progress.images, part_count=progress.parts, shards=self._plan.shards)
        done = ShardDone(
            shard=shard,
            images=progress.images,
            bad=progress.bad,
            parts=progress.parts,
            model=encoder.model,
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            bytes=self._metrics.total(self._metrics.read_bytes),
            seconds=round(self._clock() - start, 3),
            stages=self._metrics.stage_seconds(),
            device=encoder.device,
            digests={**progress.digests, **text_digests},
            changed=list(progress.changed),
        )
        self._storage.put(name, done.to_json())
        return done

    def _done(self, name: str) -> ShardDone | None:
        """The done.json; None if there is none, or a damaged one: the parts have everything to make it again."""
        try:
            return ShardDone.from_json(self._storage.get(name), name)
        except NotFound:
            return None
        except PermanentError as error:
            log.warning("%s. It is made again", error)
            return None

    def _items(self, shard: int) -> pa.Table:
        name = self._folder.items(shard)
        data = self._storage.get(name)
        digests.check(digests.digest(data), self._plan.digests, name)
        return tables.items_from_bytes(data, name)

    def _until_stopping(self, images: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Ends early when the process must stop: the images in flight still reach the started part."""
        for image in images:
            if self._stopping.is_set():
                return
            yield image

    def _embedded(self, images: Iterable[SourceImage], encoder: Encoder) -> Iterator[list[Finished]]:
        """Batches of finished images, in the order of `images`."""
        waiting = 2 * encoder.batch * encoder.workers

        def prepare(read: Read) -> Prepared | Finished:
            return self._prepare(read, encoder)

        def encode(batch: list[Prepared | Finished]) -> list[Finished]:
            return self._encode(batch, encoder)

        with ExitStack() as pools:
            readers = pools.enter_context(ThreadPoolExecutor(READERS, "read"))
            decoders = pools.enter_context(ThreadPoolExecutor(machine.cpus(), "decode"))
            encoders = pools.enter_context(ThreadPoolExecutor(encoder.workers, "encode"))
            read = ordered_map(
                readers, self._read, images, window=max(waiting, 2 * READERS), queued=self._queue("read")
            )
            prepared = ordered_map(decoders, prepare, read, window=waiting, queued=self._queue("decode"))
            batches = batched(prepared, lambda: encoder.batch)
            yield from ordered_map(encoders, encode, batches, window=encoder.workers + 1, queued=self._queue("encode"))

    def _queue(self, stage: str) -> Callable[[int], None]:
        return lambda change: self._metrics.queue(stage, change)

    def _read(self, image: SourceImage) -> Read:
        with self._metrics.timed("read"):
            try:
                content = image.load()
            except BadImage as bad:
                return Read(image, bad)
        self._metrics.read.inc()
        self._metrics.read_bytes.inc(len(content.data))
        return Read(image, content)

    def _prepare(self, read: Read, encoder: Encoder) -> Prepared | Finished:
        source, etag = read.source, read.source.etag
        try:
            if isinstance(read.content, BadImage):
                raise read.content
            etag = read.content.etag
            with self._metrics.timed("decode"):
                picture = self._decoder.decode(read.content.data, target=encoder.size)
                pixels = encoder.prepare(picture.image)
                small = thumbnail(picture.image, self._settings.thumbnail_px)
        except BadImage as bad:
            self._metrics.bad(bad.stage, bad.reason)
            row = BadRow(source.key, bad.stage, bad.reason, etag)
            return Finished(row, changed=bad.changed or etag != source.etag)
        self._metrics.decoded.inc()
        return Prepared(source, etag, pixels, picture.width, picture.height, small)

    def _encode(self, batch: list[Prepared | Finished], encoder: Encoder) -> list[Finished]:
        pixels = [image.pixels for image in batch if isinstance(image, Prepared)]
        with self._metrics.timed("encode"):
            vectors = iter(encoder.encode_images(pixels) if pixels else ())
        self._metrics.device_memory.set(encoder.device_memory)
        finished: list[Finished] = []
        for image in batch:
            if isinstance(image, Finished):
                finished.append(image)
                continue
            source = image.source
            row = Row(
                source.key, image.etag, source.metadata, next(vectors), image.width, image.height, image.thumbnail
            )
            finished.append(Finished(row, changed=image.etag != source.etag))
            self._metrics.encoded.inc()
        return finished


def _items(items: pa.Table) -> Iterator[Item]:
    """The items of a shard one by one: as a table they need a tenth of the memory of objects."""
    for batch in items.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield Item(**{**row, "metadata": tables.decode_metadata(row["metadata"])})
