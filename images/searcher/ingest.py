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
import pyarrow.compute as pc

from imgsearch import schema
from imgsearch.errors import NotFound, PermanentError
from imgsearch.layout import Plan, Report, RunFolder, ShardDone, collection_name
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record, Vectors, VectorStore
from searcher.ingest_metrics import IngestMetrics
from searcher.records import record

log = logging.getLogger(__name__)

SAMPLES = 64
BATCH_SECONDS = 1.0
"""One call of the store: long enough to be efficient, short enough that searches get their turn."""
FIRST_BATCH = 500
LARGEST_BATCH = 5_000
BAD_EXAMPLES = 20
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class Shard:
    """One embedded shard whose rows go into the collection."""

    folder: RunFolder
    done: ShardDone
    dropped: frozenset[str]
    """Keys that a later update removed or embedded anew."""


@dataclass(frozen=True)
class Part:
    """One part, ready to be stored."""

    table: pa.Table
    ids: list[str]
    records: list[Record]
    """Of those rows that the store does not have yet."""


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
    """A fair sample of all rows that pass by (reservoir sampling, algorithm R of Vitter 1985), the same each time."""

    def __init__(self, run: str) -> None:
        self._random = random.Random(run)
        self._seen = 0
        self.rows: list[tuple[str, Vectors]] = []

    def offer(self, ids: list[str], table: pa.Table) -> None:
        chosen: dict[int, int] = {}
        for row in range(len(ids)):
            self._seen += 1
            if len(self.rows) < SAMPLES:
                self.rows.append((ids[row], np.empty(0, np.float32)))
                chosen[len(self.rows) - 1] = row
            elif (place := self._random.randrange(self._seen)) < SAMPLES:
                chosen[place] = row
        if chosen:
            vectors = schema.vectors(table.take(list(chosen.values())))
            for place, row, vector in zip(chosen, chosen.values(), vectors, strict=False):
                self.rows[place] = (ids[row], vector)


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
        plan = self._plan(self._folder)
        shards = list(self._shards(plan))
        first = _same_model(shards)
        with self._metrics.timed("read"):
            bad = self._bad(shards)
        self._metrics.planned.set(plan.images + plan.kept - len(bad))
        collection = collection_name(plan.index, plan.run)
        self._store.create(collection, dim=first.dim)
        samples = Samples(plan.run)
        rows, added = self._fill(collection, shards, samples)
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
            verified={"counted": rows, "sampled": len(samples.rows), "found_itself": found},
        )
        self._storage.put(self._folder.report, report.to_json())
        return report, pointer

    def _plan(self, folder: RunFolder) -> Plan:
        try:
            return Plan.from_json(self._storage.get(folder.plan), folder.plan)
        except NotFound as error:
            raise PermanentError(f"run {folder.run} has no plan.json: plan it first") from error

    def _shards(self, plan: Plan, dropped: frozenset[str] = frozenset()) -> Iterator[Shard]:
        """The run's own shards, and those of the runs that it updates."""
        folder = RunFolder(plan.run)
        absent = []
        for number in range(plan.shards):
            name = folder.done(number)
            try:
                done = ShardDone.from_json(self._storage.get(name), name)
            except NotFound:
                absent.append(number)
                continue
            yield Shard(folder, done, dropped)
        if absent:
            raise PermanentError(
                f"{len(absent)} of {plan.shards} shards of run {plan.run} have no done.json (shard "
                f"{', '.join(map(str, absent[:5]))}{', …' if len(absent) > 5 else ''}): embed them first, by giving "
                "the same run-pipeline command again"
            )
        if plan.base is not None:
            table, _ = schema.from_bytes(self._storage.get(folder.dropped), folder.dropped)
            gone = dropped | frozenset(table["key"].to_pylist())
            yield from self._shards(self._plan(RunFolder(plan.base)), gone)

    def _bad(self, shards: list[Shard]) -> list[dict[str, str]]:
        """Every bad image that still counts, in the order of the shards."""
        rows = []
        for shard in shards:
            for part in range(shard.done.parts):
                name = shard.folder.bad(shard.done.shard, part)
                table, _ = self._read(name)
                rows += [row for row in table.drop_columns(["etag"]).to_pylist() if row["key"] not in shard.dropped]
        return rows

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
            part = self._checked_part(shard, number, missing)
        self._metrics.parts.inc()
        self._metrics.present.inc(len(part.ids) - len(part.records))
        return part

    def _checked_part(self, shard: Shard, number: int, missing: Callable[[list[str]], set[str]]) -> Part:
        name = shard.folder.part(shard.done.shard, number)
        table, about = self._read(name)
        if (about.get("fingerprint"), about.get("dim")) != (shard.done.fingerprint, str(shard.done.dim)):
            raise PermanentError(f"{name} was made with another model than its shard: index again under a new --run")
        if table.schema.remove_metadata() != schema.embeddings(shard.done.dim) or len(table) != int(about["images"]):
            raise PermanentError(f"{name} is not a part of this version of imgsearch: index again under a new --run")
        if shard.dropped:
            table = table.filter(pc.invert(pc.is_in(table["key"], pa.array(list(shard.dropped)))))
        ids = table["id"].to_pylist()
        return Part(table, ids, _records(table, missing(ids), shard, number))

    def _read(self, name: str) -> tuple[pa.Table, dict[str, str]]:
        try:
            return schema.from_bytes(self._storage.get(name), name)
        except NotFound as error:
            raise PermanentError(f"{name} is gone, though its shard is done: index again under a new --run") from error

    def _fill(self, collection: str, shards: list[Shard], samples: Samples) -> tuple[int, int]:
        """Adds what is missing; returns how many rows there should be, and how many were added."""
        # Nothing is missing from an empty collection but everything: to ask costs, so it is not asked.
        probing = self._store.count(collection) > 0
        missing = partial(self._store.missing, collection) if probing else set[str]
        size = BatchSize()
        rows = added = 0
        logged = self._clock()
        total = sum(shard.done.images for shard in shards)
        for part in self._parts(shards, missing):
            samples.offer(part.ids, part.table)
            rows += len(part.ids)
            at = 0
            while left := len(part.records) - at:
                if self._stopping.is_set():
                    raise Interrupted
                batch = part.records[at : at + size.of(left)]
                before = self._clock()
                with self._metrics.timed("store"):
                    self._store.add(collection, batch)
                seconds = self._clock() - before
                size.took(len(batch), seconds)
                self._metrics.batch(len(batch), seconds)
                at += len(batch)
            added += len(part.records)
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
        queries = np.stack([vector for _, vector in samples.rows])
        found = 0
        for (id, vector), hits in zip(
            samples.rows, self._store.search(collection, queries, k=3, vectors=True), strict=True
        ):
            best = hits[0]
            if best.id == id:
                found += 1
            elif best.vector is None or not np.allclose(best.vector, vector, atol=1e-3):
                raise PermanentError(f"{id} does not find itself in {collection}: nothing was published")
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


def _records(table: pa.Table, ids: set[str], shard: Shard, part: int) -> list[Record]:
    """The records of those rows whose id is among `ids`."""
    if len(ids) < len(table):
        table = table.filter(pc.is_in(table["id"], pa.array(list(ids), pa.string())))
    rows = table.drop_columns(["embedding"]).to_pylist()
    return [
        record(row, vector, run=shard.folder.run, shard=shard.done.shard, part=part)
        for row, vector in zip(rows, schema.vectors(table), strict=True)
    ]


def _same_model(shards: list[Shard]) -> ShardDone:
    if not shards:
        raise PermanentError("the run has no shard: there is nothing to publish")
    first = shards[0].done
    for shard in shards:
        for field in ("fingerprint", "dim"):
            if getattr(shard.done, field) != getattr(first, field):
                raise PermanentError(
                    f"{shard.folder.done(shard.done.shard)} has {field} {getattr(shard.done, field)}, "
                    f"shard {first.shard} has {getattr(first, field)}: one index needs one model; "
                    "index again under a new --run"
                )
    return first


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
