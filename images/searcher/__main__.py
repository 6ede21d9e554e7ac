"""The searcher's programs: `python -m searcher ingest|indexes|runs|report|planned|bad|evaluate|rollback|
forget|restore|serve`.

The last line that a program prints is its result, as JSON."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from imgsearch import stage
from imgsearch.errors import ExitCode, TemporaryError
from imgsearch.escapes import to_json
from imgsearch.metrics import exposed
from imgsearch.settings import Settings
from imgsearch.storage import Storage
from imgsearch.stores import DamagedStore, Pointer, VectorStore, embedded, open_store
from searcher.admin import deletion, reports
from searcher.admin.indexes import find_pointer, index_entry, list_indexes
from searcher.admin.rollback import roll_back

if TYPE_CHECKING:
    from imgsearch.runs.documents import Report
    from searcher.ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

STORE_SECONDS = 60.0
"""The longest wait for the store."""
RETRY_SECONDS = 1.0


def ingest(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Fills a collection with the run, verifies it, and publishes it."""
    from searcher.ingest.metrics import IngestMetrics

    metrics = IngestMetrics()
    with exposed(metrics.registry, settings.metrics.port):
        store = _store(settings, stopping)
        report, pointer = _ingest(settings.run.id, store, settings, metrics, stopping)
    return {
        "index": report.index,
        "collection": report.collection,
        "images": report.images,
        "bad": report.bad,
        "kept": report.kept,
        "removed": report.removed,
        "published": pointer.run,
    }


def indexes(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Lists the published indexes, or the one of the run."""
    return list_indexes(_store(settings, stopping), Storage(settings.storage.uri), settings.run.index)


def runs(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Lists the published runs, the last one first."""
    return reports.newest(reports.read_all(Storage(settings.storage.uri)))


def report(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Shows the report of the run."""
    return reports.compact(reports.read(Storage(settings.storage.uri), settings.run.id))


def planned(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Shows the base of the run, if the run is planned."""
    return reports.planned(Storage(settings.storage.uri), settings.run.id)


def bad(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Writes the list of the run's bad images to stdout: a CSV file as one string of JSON."""
    csv = reports.bad_images(Storage(settings.storage.uri), settings.run.id)
    return {"run": settings.run.id, "bytes": _write_document(csv.decode())}


def evaluate(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Evaluates the index, and the one to compare it with. Writes the figures to stdout, as one line of JSON."""
    from imgsearch.encoder.openclip import load_encoder
    from searcher.evaluation.figures import document
    from searcher.evaluation.job import Evaluation
    from searcher.table.files import TableFiles, cache_folder

    store, storage = _store(settings, stopping), Storage(settings.storage.uri)
    names = [name for name in (settings.run.index, settings.evaluate.against) if name is not None]
    pointers = [find_pointer(store, storage, name) for name in names]
    evaluation = Evaluation(
        settings.evaluate,
        storage=storage,
        store=store,
        tables=TableFiles(storage, cache_folder(os.environ)),
        load_encoder=load_encoder,
        stopping=stopping,
    )
    evaluated = [evaluation.evaluate(pointer) for pointer in pointers]
    return {"indexes": names, "bytes": _write_document(document(evaluated))}


def rollback(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Points the index at its previous run."""
    store, storage = _store(settings, stopping), Storage(settings.storage.uri)
    return index_entry(roll_back(store, storage, settings.run.index))


def forget(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Deletes the run, unless an index needs it."""
    store, storage = _store(settings, stopping), Storage(settings.storage.uri)
    return {"run": settings.run.id, "objects": deletion.delete_run(store, storage, settings.run.id)}


def restore(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Rebuilds the store from the run folders."""
    from searcher.admin.restore import restore
    from searcher.ingest.metrics import IngestMetrics

    def ingested(run: str, store: VectorStore) -> Pointer:
        return _ingest(run, store, settings, IngestMetrics(), stopping)[1]

    url, storage = settings.store.url, Storage(settings.storage.uri)
    if not embedded(url):
        # It may be a damaged store that is to be restored.
        with suppress(DamagedStore), closing(_store(settings, stopping)):
            pass
    return restore(url, storage, run=settings.run.id or None, ingest=ingested)


def serve(settings: Settings) -> ExitCode:
    """Serves searches."""
    from searcher.server.serve import serve as serve_http

    return serve_http(settings)


def _ingest(
    run: str, store: VectorStore, settings: Settings, metrics: IngestMetrics, stopping: threading.Event
) -> tuple[Report, Pointer]:
    from searcher.ingest.job import Ingest

    return Ingest(
        run,
        storage=Storage(settings.storage.uri),
        store=store,
        settings=settings.index,
        metrics=metrics,
        stopping=stopping,
    ).run()


def _write_document(document: Any) -> int:
    """Writes a document that is too large for a result to stdout, and returns its size in bytes. It is one line of
    JSON: the log of a container drops a carriage return before a line feed."""
    line = to_json(document).encode()
    sys.stdout.buffer.write(line + b"\n")
    return len(line)


def _store(settings: Settings, stopping: threading.Event) -> VectorStore:
    """The store, as soon as it answers: it may be starting, and a NetworkPolicy takes seconds to admit a new pod.

    Raises TemporaryError if it does not answer within STORE_SECONDS, and Interrupted."""

    def wait(seconds: float) -> None:
        if stopping.wait(seconds):
            raise stage.Interrupted

    store = open_store(settings.store.url)
    retrying = Retrying(
        retry=retry_if_exception_type(TemporaryError),
        stop=stop_after_delay(STORE_SECONDS),
        wait=wait_fixed(RETRY_SECONDS),
        sleep=wait,
        before_sleep=_log_retry,
        reraise=True,
    )
    retrying(store.collections)
    return store


def _log_retry(attempt: RetryCallState) -> None:
    log.info("%s; retrying in %s s", attempt.outcome and attempt.outcome.exception(), RETRY_SECONDS)


STAGES: dict[str, stage.Stage] = {
    "ingest": ingest,
    "indexes": indexes,
    "runs": runs,
    "report": report,
    "planned": planned,
    "bad": bad,
    "evaluate": evaluate,
    "rollback": rollback,
    "forget": forget,
    "restore": restore,
}


if __name__ == "__main__":
    sys.exit(stage.main("searcher", STAGES, sys.argv[1:], os.environ, serve=serve))
