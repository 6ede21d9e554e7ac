"""The searcher's programs: `python -m searcher ingest|indexes|runs|report|bad|evaluate|rollback|forget|serve`."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from imgsearch import stage
from imgsearch.errors import ExitCode, NotFound, TemporaryError, UsageError
from imgsearch.metrics import exposed
from imgsearch.runs.documents import Plan
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.settings import Settings
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore, open_store
from searcher.admin import reports

log = logging.getLogger(__name__)

STORE_SECONDS = 60.0


def ingest(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Loads the run into the store, verifies and publishes it."""
    from searcher.ingest.job import Ingest
    from searcher.ingest.metrics import IngestMetrics

    metrics = IngestMetrics()
    with exposed(metrics.registry, settings.metrics.port):
        work = Ingest(
            settings.run.id,
            storage=Storage(settings.storage.uri),
            store=_store(settings, stopping),
            metrics=metrics,
            stopping=stopping,
        )
        report, pointer = work.run()
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
    """Says which indexes are published."""
    store = _store(settings, stopping)
    return {"indexes": [_line(pointer) for _, pointer in sorted(store.pointers().items())]}


def runs(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Says which runs were published, the last one first."""
    return reports.newest(reports.read_all(Storage(settings.storage.uri)))


def report(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Says what became of the run's images."""
    return reports.compact(reports.read(Storage(settings.storage.uri), settings.run.id))


def bad(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Writes every image of the run that could not be used to stdout, as CSV."""
    folder = RunFolder(settings.run.id)
    try:
        listed = Storage(settings.storage.uri).get(folder.bad_list)
    except NotFound as error:
        raise UsageError(
            f"run {folder.run} has no list of bad images yet: it is written when the run is ingested; "
            f"`controller status {folder.run}` says how far it is"
        ) from error
    sys.stdout.buffer.write(listed)
    return {"run": folder.run, "bytes": len(listed)}


def evaluate(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Measures the index, and the one that it is compared with. Writes what came of it to stdout, one line of JSON."""
    from imgsearch.encoder.openclip import load_encoder
    from searcher.evaluation.measure import Evaluation, document

    store = _store(settings, stopping)
    names = [name for name in (settings.run.index, settings.evaluate.against) if name is not None]
    pointers = [_pointer(store, name) for name in names]
    evaluation = Evaluation(
        settings.evaluate,
        storage=Storage(settings.storage.uri),
        store=store,
        load_encoder=load_encoder,
        stopping=stopping,
    )
    told = json.dumps(document([evaluation.of(pointer) for pointer in pointers]), ensure_ascii=False).encode()
    sys.stdout.buffer.write(told + b"\n")
    return {"indexes": names, "bytes": len(told)}


def rollback(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Points the index at the run that was published before; again, and it points forward."""
    store = _store(settings, stopping)
    current = _pointer(store, settings.run.index)
    if current.previous is None:
        raise UsageError(f"index {current.index} has no earlier run to go back to")
    earlier = replace(current.previous, previous=replace(current, previous=None))
    store.publish(earlier)
    return _line(earlier)


def forget(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Removes the collection and the folder of a run that no index serves, would roll back to, or was updated from."""
    store = _store(settings, stopping)
    storage = Storage(settings.storage.uri)
    folder = RunFolder(settings.run.id)
    for pointer in store.pointers().values():
        for needed in filter(None, (pointer, pointer.previous)):
            if folder.run in _lineage(storage, needed.run):
                raise UsageError(
                    f"run {folder.run} is needed by index {pointer.index}, which serves or can roll back to run "
                    f"{needed.run}: publish newer runs first"
                )
    try:
        planned = Plan.from_json(storage.get(folder.plan), folder.plan)
    except NotFound as error:
        raise UsageError(f"no run is called {folder.run!r}; `controller runs` lists them") from error
    store.drop(collection_name(planned.index, folder.run))
    return {"run": folder.run, "objects": storage.delete(folder.root)}


def _lineage(storage: Storage, run: str) -> Iterator[str]:
    """A run and those that it updates: its rows and thumbnails lie in all their folders."""
    at: str | None = run
    while at is not None:
        yield at
        name = RunFolder(at).plan
        at = Plan.from_json(storage.get(name), name).base


def serve(settings: Settings) -> ExitCode:
    from searcher.server.serve import serve as answer

    return answer(settings)


def _store(settings: Settings, stopping: threading.Event) -> VectorStore:
    """The store, once it answers: it may just be starting, and a NetworkPolicy takes seconds to let a new pod in.

    Raises TemporaryError where it does not within STORE_SECONDS."""
    store = open_store(settings.store.url)
    given_up = time.monotonic() + STORE_SECONDS
    while True:
        try:
            store.collections()
            return store
        except TemporaryError as error:
            if time.monotonic() >= given_up:
                raise
            log.info("%s; asking again", error)
        if stopping.wait(1.0):
            raise stage.Interrupted


def _pointer(store: VectorStore, index: str) -> Pointer:
    pointers = store.pointers()
    if index not in pointers:
        raise UsageError(f"no index is called {index!r}; there are: {', '.join(sorted(pointers)) or 'none yet'}")
    return pointers[index]


def _line(pointer: Pointer) -> dict[str, Any]:
    return {
        "index": pointer.index,
        "run": pointer.run,
        "images": pointer.images,
        "model": pointer.model,
        "source": pointer.source,
        "published": pointer.published,
        "previous": pointer.previous and pointer.previous.run,
    }


STAGES: dict[str, stage.Stage] = {
    "ingest": ingest,
    "indexes": indexes,
    "runs": runs,
    "report": report,
    "bad": bad,
    "evaluate": evaluate,
    "rollback": rollback,
    "forget": forget,
}


if __name__ == "__main__":
    sys.exit(stage.main("searcher", STAGES, sys.argv[1:], os.environ, serve=serve))
