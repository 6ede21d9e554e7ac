"""Fills a collection with the vectors of a run. Vectors that an earlier ingest has added are not added again."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from imgsearch.runs.parts import rows
from imgsearch.stage import check_stopping
from imgsearch.stores import Record, VectorStore
from imgsearch.stores.records import record
from searcher.ingest.facets import FacetCounts
from searcher.ingest.metrics import IngestMetrics
from searcher.ingest.run_reader import RunReader, Shard, check_count
from searcher.ingest.samples import PartEnds, Samples
from searcher.table.writer import TableWriter

log = logging.getLogger(__name__)

BATCH_SECONDS = 1.0
"""The intended duration of one call of the store: long enough to be efficient, short enough not to delay searches."""
FIRST_BATCH = 500
SMALLEST_BATCH = 50
LARGEST_BATCH = 5_000
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class LoadedPart:
    """The records of one part."""

    shard: Shard
    images: int
    """The number of all its rows, with those that a later update has dropped."""
    records: list[Record]
    missing: list[Record]
    """The records that the store does not contain yet."""


class BatchSize:
    """The number of records for the next call of the store, computed from the duration of the last call."""

    def __init__(self) -> None:
        self.records = FIRST_BATCH

    def for_remaining(self, remaining: int) -> int:
        """The size of the next batch, such that all batches of `remaining` records have about the same size."""
        return -(-remaining // max(1, round(remaining / self.records)))

    def observe(self, records: int, seconds: float) -> None:
        """Moves half of the way to the size that would take BATCH_SECONDS."""
        ideal = records * BATCH_SECONDS / max(seconds, 1e-3)
        self.records = int(min(max((self.records + ideal) / 2, SMALLEST_BATCH), LARGEST_BATCH))


class Filler:
    """Fills collections."""

    def __init__(
        self,
        runs: RunReader,
        store: VectorStore,
        *,
        metrics: IngestMetrics,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = runs
        self._store = store
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock

    def fill(
        self,
        collection: str,
        shards: Sequence[Shard],
        samples: Sequence[Samples | PartEnds],
        facets: FacetCounts,
        table: TableWriter,
    ) -> tuple[int, int]:
        """Adds the missing vectors. Returns the number of rows in the shards, and the number of vectors added.

        All records go to `samples`, `facets` and `table`. Raises DamagedShard for a part that is not as it was written,
        before a vector of it is added, and Interrupted between two batches."""
        # An empty collection needs no lookup: every vector is missing.
        is_empty = self._store.count(collection) == 0
        missing = set[str] if is_empty else partial(self._store.missing, collection)
        size = BatchSize()
        rows = added = 0
        logged = self._clock()
        total = sum(shard.done.images for shard in shards)
        counts: Counter[str] = Counter()
        for part in self._parts(shards, missing, table):
            for sample in samples:
                sample.add(part.records)
            with self._metrics.timed("facets"):
                facets.add(record.metadata for record in part.records)
            self._add(collection, part.missing, size)
            rows += len(part.records)
            added += len(part.missing)
            counts[part.shard.name] += part.images
            if self._clock() - logged >= PROGRESS_SECONDS:
                logged = self._clock()
                log.info("stored %d of %d", rows, total, extra={"done": rows, "total": total})
        log.info("stored %d of %d", rows, total, extra={"done": rows, "total": total})
        for shard in shards:
            check_count(shard, "vectors", counted=counts[shard.name], expected=shard.done.images)
        return rows, added

    def _add(self, collection: str, records: Sequence[Record], size: BatchSize) -> None:
        added = 0
        while remaining := len(records) - added:
            check_stopping(self._stopping)
            batch = records[added : added + size.for_remaining(remaining)]
            start = self._clock()
            with self._metrics.timed("store"):
                self._store.add(collection, batch)
            seconds = self._clock() - start
            size.observe(len(batch), seconds)
            self._metrics.batch(len(batch), seconds)
            added += len(batch)

    def _parts(
        self, shards: Sequence[Shard], missing: Callable[[list[str]], set[str]], table: TableWriter
    ) -> Iterator[LoadedPart]:
        """All parts. The next part is loaded, and added to the table, while the caller stores the current one."""
        parts = [(shard, number) for shard in shards for number in range(shard.done.parts)]
        with ThreadPoolExecutor(1, "read") as reader:
            pending = reader.submit(self._load, *parts[0], missing, table) if parts else None
            for next_part in [*parts[1:], None]:
                assert pending is not None
                part = pending.result()
                pending = reader.submit(self._load, *next_part, missing, table) if next_part else None
                yield part

    def _load(
        self, shard: Shard, number: int, missing: Callable[[list[str]], set[str]], table: TableWriter
    ) -> LoadedPart:
        with self._metrics.timed("read"):
            read = self._runs.part(shard, number)
            records = _records(read.kept, shard, number)
            missing_ids = missing([record.id for record in records])
        with self._metrics.timed("table"):
            table.add(records)
        part = LoadedPart(shard, read.images, records, [record for record in records if record.id in missing_ids])
        self._metrics.parts.inc()
        self._metrics.present.inc(len(part.records) - len(part.missing))
        return part


def _records(table: pa.Table, shard: Shard, part: int) -> list[Record]:
    return [record(row, run=shard.folder.run, shard=shard.done.shard, part=part) for row in rows(table)]
