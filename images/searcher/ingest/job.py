"""From embedded shards to a published index: fill a fresh collection, verify it, move the pointer, report.

Nothing is published that has not been counted and found again; the index that was published before serves until
the pointer moves, and its collection stays for a rollback.
"""

from __future__ import annotations

import csv
import io
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from imgsearch.errors import PermanentError
from imgsearch.runs import parts
from imgsearch.runs.documents import Facets, Map, Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record, Vectors, VectorStore
from imgsearch.stores.records import record, thumbnail
from searcher.ingest import map
from searcher.ingest.facets import FacetCounts
from searcher.ingest.metrics import IngestMetrics
from searcher.ingest.parts import Embedded, Shard, same_model

log = logging.getLogger(__name__)

SAMPLES = 64
"""Vectors that are searched for before anything is published."""
THUMBNAIL_THREADS = 8
"""Each waits for the storage most of its time."""
BATCH_SECONDS = 1.0
"""One call of the store: long enough to be efficient, short enough that searches get their turn."""
FIRST_BATCH = 500
LARGEST_BATCH = 5_000
BAD_EXAMPLES = 20
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class Part:
    """One part, ready to be stored."""

    records: list[Record]
    missing: list[Record]
    """Those that the store does not have yet."""


class BatchSize:
    """How many records the next call should bring, from how long the last one took."""

    def __init__(self) -> None:
        self.records = FIRST_BATCH

    def of(self, left: int) -> int:
        """The next batch of `left` records, all of which are then in batches of about one size."""
        return -(-left // max(1, round(left / self.records)))

    def took(self, records: int, seconds: float) -> None:
        """Moves half of the way towards what would take BATCH_SECONDS."""
        fitting = records * BATCH_SECONDS / max(seconds, 1e-3)
        self.records = int(min(max((self.records + fitting) / 2, 50), LARGEST_BATCH))


class Samples:
    """A fair sample of the records offered to it (reservoir sampling, algorithm R, Vitter 1985), the same each time."""

    def __init__(self, run: str, size: int) -> None:
        self._random = random.Random(run)
        self._size = size
        self._seen = 0
        self.records: list[Record] = []

    def offer(self, records: list[Record]) -> None:
        for each in records:
            self._seen += 1
            if len(self.records) < self._size:
                self.records.append(_alone(each))
            elif (place := self._random.randrange(self._seen)) < self._size:
                self.records[place] = _alone(each)

    def vectors(self) -> Vectors:
        """(samples, dim)."""
        return np.stack([_vector(each) for each in self.records])


class Ingest:
    """Ingests one run."""

    def __init__(
        self,
        run: str,
        *,
        storage: Storage,
        store: VectorStore,
        metrics: IngestMetrics,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = RunFolder(run)
        self._storage = storage
        self._embedded = Embedded(storage)
        self._store = store
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        self._now = now

    def run(self) -> tuple[Report, Pointer]:
        """Fills, verifies, publishes and reports; returns the report and what the index points to then.

        A run that is published already, or was rolled back from, only gets its report again.

        Raises PermanentError, with nothing published, where a shard, a part or the collection is not as it must be."""
        start = self._clock()
        plan = self._embedded.plan(self._folder.run)
        shards = list(self._embedded.shards(plan))
        first = same_model(shards)
        with self._metrics.timed("read"):
            bad = self._bad(shards)
        self._metrics.planned.set(plan.images + plan.kept - len(bad))
        collection = collection_name(plan.index, plan.run)
        self._store.create(collection, dim=first.dim)
        samples = Samples(plan.run, SAMPLES)
        shown = Samples(plan.run, map.IMAGES)
        facets = FacetCounts()
        rows, added = self._fill(collection, shards, [samples, shown], facets)
        _check_counts(plan, rows=rows, bad=len(bad))
        self._storage.put(self._folder.bad_list, _csv(bad))
        if rows == 0:
            raise PermanentError(
                f"none of the {len(bad)} images of run {plan.run} can be used, so nothing was published; "
                f"{self._folder.bad_list} says why for each"
            )
        with self._metrics.timed("verify"):
            found = self._verify(collection, rows, samples)
            self._store = self._store.reopen()
            self._verify(collection, rows, samples)
        with self._metrics.timed("publish"):
            pointer = self._publish(plan, first, collection, rows)
        with self._metrics.timed("facets"):
            fields = Facets(plan.run, plan.index, rows, facets.most_frequent())
            self._storage.put(self._folder.facets, fields.to_json())
        with self._metrics.timed("map"):
            self._draw(plan, rows, shown)
        seconds = self._clock() - start
        own = [shard.done for shard in shards if shard.folder.run == plan.run]
        report = Report(
            run=plan.run,
            index=plan.index,
            source=plan.source,
            model=plan.model,
            fingerprint=first.fingerprint,
            dim=first.dim,
            collection=collection,
            published=pointer.published,
            shards=plan.shards,
            images=rows,
            bad=len(bad),
            kept=plan.kept,
            removed=plan.removed,
            skipped=plan.skipped,
            bad_reasons=dict(Counter(f"{row['stage']}: {row['reason']}" for row in bad).most_common(BAD_EXAMPLES)),
            bad_examples=bad[:BAD_EXAMPLES],
            embed_seconds=round(sum(done.seconds for done in own), 3),
            embed_stages=_summed([done.stages for done in own]),
            embed_bytes=sum(done.bytes for done in own),
            ingest_seconds=round(seconds, 3),
            ingest_stages=self._metrics.stage_seconds(),
            vectors_added=added,
            verified={"counted": rows, "sampled": len(samples.records), "found_itself": found},
        )
        self._storage.put(self._folder.report, report.to_json())
        return report, pointer

    def _bad(self, shards: list[Shard]) -> list[dict[str, str]]:
        """Every bad image that still counts, in the order of the shards."""
        return [
            {"key": row["key"], "stage": row["stage"], "reason": row["reason"]}
            for shard in shards
            for part in range(shard.done.parts)
            for row in self._embedded.bad(shard, part)
        ]

    def _parts(self, shards: list[Shard], missing: Callable[[list[str]], set[str]]) -> Iterator[Part]:
        """Every part, checked against its shard's done.json; the next one is made ready while this one is stored."""
        places = [(shard, part) for shard in shards for part in range(shard.done.parts)]
        with ThreadPoolExecutor(1, "read") as reader:
            ahead = reader.submit(self._part, *places[0], missing) if places else None
            for following in [*places[1:], None]:
                assert ahead is not None
                part = ahead.result()
                ahead = reader.submit(self._part, *following, missing) if following else None
                yield part

    def _part(self, shard: Shard, number: int, missing: Callable[[list[str]], set[str]]) -> Part:
        with self._metrics.timed("read"):
            records = _records(self._embedded.part(shard, number), shard, number)
            absent = missing([record.id for record in records])
        part = Part(records, [record for record in records if record.id in absent])
        self._metrics.parts.inc()
        self._metrics.present.inc(len(part.records) - len(part.missing))
        return part

    def _fill(
        self, collection: str, shards: list[Shard], samples: list[Samples], facets: FacetCounts
    ) -> tuple[int, int]:
        """Adds what is missing; returns how many rows there should be, and how many were added."""
        # Nothing is missing from an empty collection but everything: to ask costs, so it is not asked.
        probing = self._store.count(collection) > 0
        missing = partial(self._store.missing, collection) if probing else set[str]
        size = BatchSize()
        rows = added = 0
        logged = self._clock()
        total = sum(shard.done.images for shard in shards)
        for part in self._parts(shards, missing):
            for each in samples:
                each.offer(part.records)
            with self._metrics.timed("facets"):
                facets.add(record.metadata for record in part.records)
            rows += len(part.records)
            at = 0
            while left := len(part.missing) - at:
                self._go_on()
                batch = part.missing[at : at + size.of(left)]
                before = self._clock()
                with self._metrics.timed("store"):
                    self._store.add(collection, batch)
                seconds = self._clock() - before
                size.took(len(batch), seconds)
                self._metrics.batch(len(batch), seconds)
                at += len(batch)
            added += len(part.missing)
            if self._clock() - logged >= PROGRESS_SECONDS:
                logged = self._clock()
                log.info("stored %d of %d", rows, total, extra={"done": rows, "total": total})
        log.info("stored %d of %d", rows, total, extra={"done": rows, "total": total})
        return rows, added

    def _verify(self, collection: str, rows: int, samples: Samples) -> int:
        """Counts, and searches each sample; returns how many found themselves (the others found their twin)."""
        stored = self._store.count(collection)
        if stored != rows:
            raise PermanentError(
                f"collection {collection} holds {stored} vectors where the run has {rows}: "
                f"remove it with `controller cleanup {self._folder.run}`, then give the same command"
            )
        found = 0
        answers = self._store.search(collection, samples.vectors(), k=3, vectors=True)
        for sample, hits in zip(samples.records, answers, strict=True):
            best = hits[0]
            if best.id == sample.id:
                found += 1
            elif best.vector is None or not np.allclose(best.vector, _vector(sample), atol=1e-3):
                raise PermanentError(f"{sample.id} does not find itself in {collection}: nothing was published")
        return found

    def _publish(self, plan: Plan, done: ShardDone, collection: str, rows: int) -> Pointer:
        before = self._store.pointers().get(plan.index)
        if before is not None and plan.run in (before.run, before.previous and before.previous.run):
            # Published already, or rolled back from: a repeated ingest must not undo a person's rollback.
            return before
        pointer = Pointer(
            index=plan.index,
            run=plan.run,
            collection=collection,
            model=plan.model,
            fingerprint=done.fingerprint,
            dim=done.dim,
            images=rows,
            source=plan.source,
            published=self._now().isoformat(timespec="seconds"),
            previous=None if before is None else replace(before, previous=None),
        )
        self._store.publish(pointer)
        log.info("published %s as %s", collection, plan.index)
        if before is not None and before.previous is not None:
            self._store.drop(before.previous.collection)
        return pointer

    def _draw(self, plan: Plan, rows: int, shown: Samples) -> None:
        """Puts the map there, unless an earlier ingest has. The index serves without one, so a failure is only told."""
        if self._storage.exists(self._folder.map):
            return
        try:
            with ThreadPoolExecutor(THUMBNAIL_THREADS, "thumbnail") as pool:
                tiles = list(pool.map(self._tile, shown.records))
            self._go_on()
            places = map.places(shown.vectors())
            self._go_on()
            self._storage.put(self._folder.sprite, map.sprite(tiles))
            drawn = Map(
                run=plan.run,
                index=plan.index,
                images=rows,
                tile=map.TILE,
                columns=map.columns(len(tiles)),
                points=[
                    {"id": record.id, "x": round(float(x), 4), "y": round(float(y), 4)}
                    for record, (x, y) in zip(shown.records, places, strict=True)
                ],
            )
            self._storage.put(self._folder.map, drawn.to_json())
        except Interrupted:
            raise
        except Exception as error:
            log.warning("run %s has no map: %s", plan.run, error)

    def _tile(self, record: Record) -> Image.Image:
        self._go_on()
        return map.tile(self._storage.get_range(*thumbnail(record)))

    def _go_on(self) -> None:
        """Raises Interrupted where the process shall end."""
        if self._stopping.is_set():
            raise Interrupted


def _alone(record: Record) -> Record:
    """The record without the part that its vector is a view of."""
    return replace(record, vector=_vector(record).copy())


def _vector(record: Record) -> Vectors:
    assert record.vector is not None, "a part has a vector for each row"
    return record.vector


def _records(table: pa.Table, shard: Shard, part: int) -> list[Record]:
    return [record(row, run=shard.folder.run, shard=shard.done.shard, part=part) for row in parts.rows(table)]


def _check_counts(plan: Plan, *, rows: int, bad: int) -> None:
    planned = plan.images + plan.kept
    if rows + bad != planned:
        raise PermanentError(
            f"run {plan.run} planned {planned} images, but has {rows} vectors and {bad} bad ones: "
            "index again under a new --run"
        )


def _summed(stages: list[dict[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for each in stages:
        total.update(each)
    return {stage: round(seconds, 3) for stage, seconds in total.items()}


def _csv(rows: list[dict[str, Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ["key", "stage", "reason"])
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()
