"""The ingest job: fills a new collection from the embedded shards, verifies it, measures its recall, publishes it, and
writes a report.

A collection is published only after its vectors have been counted, and those of a sample read back. Until then, the
index serves the previous run, whose collection is kept for a rollback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from imgsearch.errors import PermanentError
from imgsearch.runs import parts
from imgsearch.runs.documents import Facets, Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.runs.parts import BadRow
from imgsearch.runs.texts import MOST_TEXTS
from imgsearch.settings import IndexSettings
from imgsearch.storage import Storage
from imgsearch.stores import DamagedStore, Pointer, VectorStore
from imgsearch.vectors import Vectors
from searcher.ingest import projection
from searcher.ingest.facets import FacetCounts
from searcher.ingest.fill import Filler
from searcher.ingest.map_files import MapWriter
from searcher.ingest.metrics import IngestMetrics
from searcher.ingest.publish import publish
from searcher.ingest.report import Result, bad_csv, report
from searcher.ingest.run_reader import DamagedShard, RunReader, Shard, same_model
from searcher.ingest.samples import PartEnds, Samples
from searcher.ingest.verify import SAMPLES, Mismatch, verify
from searcher.recall import tuning
from searcher.recall.measure import Measured, measure
from searcher.table import clusters
from searcher.table.writer import TableWriter

log = logging.getLogger(__name__)


class Ingest:
    """Ingests one run."""

    def __init__(
        self,
        run: str,
        *,
        storage: Storage,
        store: VectorStore,
        settings: IndexSettings,
        metrics: IngestMetrics,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = RunFolder(run)
        self._storage = storage
        self._runs = RunReader(storage)
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._map_writer = MapWriter(storage, stopping=stopping)
        self._clock = clock
        self._now = now

    def run(self) -> tuple[Report, Pointer]:
        """Fills, verifies, publishes and reports. Returns the report, and the pointer that the index has then.

        A run that is published already, or was rolled back from, only gets a new report. A collection that is not
        published is filled again, once, if it is damaged or has other vectors than the run: a process that was killed
        wrote its files in part, or the shards are not those of the last ingest. A damaged shard is marked, so
        that the embedder makes it again. Raises PermanentError, and publishes nothing, for an invalid shard, part or
        collection."""
        plan = self._runs.plan(self._folder.run)
        try:
            return self._run_refilling(plan)
        except DamagedShard as error:
            self._storage.put(self._folder.damaged(error.run, error.shard), f"{error.sentence}\n".encode())
            self._drop_unpublished(plan)
            raise PermanentError(f"{error.sentence}: {_repair(plan, error)}") from error
        finally:
            self._store.close()

    def _run_refilling(self, plan: Plan) -> tuple[Report, Pointer]:
        try:
            return self._run(plan)
        except (DamagedStore, Mismatch) as error:
            if not self._drop_unpublished(plan):
                raise
            log.warning("the collection of run %s is filled again: %s", plan.run, error)
            return self._run(plan)

    def _run(self, plan: Plan) -> tuple[Report, Pointer]:
        start = self._clock()
        shards = list(self._runs.shards(plan))
        model = same_model(shards)
        bad = self._bad(shards)
        texts = self._runs.texts(shards, MOST_TEXTS)
        planned = plan.images + plan.kept - len(bad)
        self._metrics.planned.set(planned)
        collection = collection_name(plan.index, plan.run)
        self._store.create(collection, dim=model.dim, vectors=planned)
        sample, map_sample, facets = Samples(plan.run, SAMPLES), Samples(plan.run, projection.IMAGES), FacetCounts()
        ends = PartEnds()
        cluster_count = clusters.count(planned)
        cluster_sample = Samples(plan.run, clusters.SAMPLES * cluster_count)
        filler = Filler(self._runs, self._store, metrics=self._metrics, stopping=self._stopping, clock=self._clock)
        table = TableWriter(self._storage, plan.run, dim=model.dim)
        rows, added = filler.fill(collection, shards, [sample, map_sample, cluster_sample, ends], facets, table)
        _check_counts(plan, rows=rows, bad=len(bad))
        self._storage.put(self._folder.bad_list, bad_csv(bad))
        if rows == 0:
            raise PermanentError(
                f"none of the {len(bad)} images of run {plan.run} can be used, so nothing was published; "
                f"{self._folder.bad_list} has the reason for each"
            )
        self._store.finish(collection)
        with self._metrics.timed("verify"):
            found_itself = verify(self._store, collection, run=plan.run, rows=rows, samples=sample, ends=ends)
            # Again with a new client, which sees the collection as a restarted searcher would.
            self._store = self._store.reopen()
            verify(self._store, collection, run=plan.run, rows=rows, samples=sample, ends=ends)
        with self._metrics.timed("table"):
            centroids = clusters.centroids(cluster_sample.vectors(), cluster_count) if cluster_count else None
        with self._metrics.timed("recall"):
            measured = self._measured(collection, shards, sample, texts, centroids, rows=rows)
            recall_warning = tuning.warning(measured.figures, self._settings.recall, _effort(measured))
            if recall_warning:
                log.warning("index %s, run %s: %s", plan.index, plan.run, recall_warning)
        with self._metrics.timed("table"):
            if centroids is not None and measured.clusters is not None:
                table.finish(clusters.to_batch(centroids, measured.clusters), compared=measured.compared)
            else:
                table.finish()
        with self._metrics.timed("publish"):
            pointer = publish(self._store, self._storage, self._pointer(plan, model, collection, rows, measured))
        with self._metrics.timed("facets"):
            document = Facets(plan.run, plan.index, rows, facets.most_frequent())
            self._storage.put(self._folder.facets, document.to_json())
        with self._metrics.timed("map"):
            self._map_writer.write(plan, rows, map_sample)
        result = Result(
            collection=collection,
            pointer=pointer,
            rows=rows,
            added=added,
            bad=bad,
            sampled=len(sample.records),
            found_itself=found_itself,
            measured=measured,
            recall_warning=recall_warning,
            seconds=self._clock() - start,
            stages=self._metrics.stage_seconds(),
        )
        written = report(plan, shards, result)
        self._storage.put(self._folder.report, written.to_json())
        return written, pointer

    def _measured(
        self,
        collection: str,
        shards: Sequence[Shard],
        sample: Samples,
        texts: Vectors,
        centroids: Vectors | None,
        *,
        rows: int,
    ) -> Measured:
        measured = measure(
            self._store,
            collection,
            sample.vectors(),
            [record.id for record in sample.records],
            texts,
            ((table["id"].to_pylist(), parts.vectors(table)) for table in self._runs.tables(shards)),
            centroids=centroids,
            images=rows,
            target=self._settings.recall,
            stopping=self._stopping,
        )
        for figure in measured.figures:
            log.info(
                "recall@%d of %s: %.4f, of the worst twentieth %.4f, with %s",
                figure["k"],
                figure["queries"],
                figure["mean"],
                figure["worst"],
                _effort(measured),
            )
        return measured

    def _bad(self, shards: Sequence[Shard]) -> list[BadRow]:
        """The bad images of all parts, in the order of the shards."""
        with self._metrics.timed("read"):
            return [row for shard in shards for row in self._runs.bad(shard)]

    def _drop_unpublished(self, plan: Plan) -> bool:
        """Drops the collection of the run, unless an index serves it or can be rolled back to it. Returns whether there
        was one to drop. A part that is made again may have its thumbnails at other places than the stored vectors of
        an earlier ingest have."""
        collection = collection_name(plan.index, plan.run)
        pointers = [pointer for current in self._store.pointers().values() for pointer in (current, current.previous)]
        published = {pointer.collection for pointer in pointers if pointer is not None}
        if collection in published or collection not in self._store.collections():
            return False
        self._store.drop(collection)
        return True

    def _pointer(self, plan: Plan, model: ShardDone, collection: str, rows: int, measured: Measured) -> Pointer:
        return Pointer(
            index=plan.index,
            run=plan.run,
            collection=collection,
            model=plan.model,
            fingerprint=model.fingerprint,
            dim=model.dim,
            images=rows,
            source=plan.source,
            published=self._now().isoformat(timespec="seconds"),
            recall=measured.figures,
            candidates=measured.candidates,
        )


def _effort(measured: Measured) -> str:
    if measured.compared:
        return f"{measured.compared:,} rows of the table compared"
    return f"{measured.candidates:,} candidates"


def _repair(plan: Plan, damaged: DamagedShard) -> str:
    """How to repair a damaged shard."""
    if damaged.run != plan.run and not plan.shards:
        return "this update embeds nothing, so index everything again, without --update"
    of_base = f" of run {damaged.run}, which this run updates" if damaged.run != plan.run else ""
    return f"give the same command again, which repairs shard {damaged.shard}{of_base}"


def _check_counts(plan: Plan, *, rows: int, bad: int) -> None:
    planned = plan.images + plan.kept
    if rows + bad != planned:
        raise PermanentError(
            f"run {plan.run} has {planned} images in its plan, but {rows} vectors and {bad} bad images; "
            "index again with a new --run"
        )
