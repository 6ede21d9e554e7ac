"""The searcher's programs: `python -m searcher ingest|indexes|rollback|forget|serve`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from imgsearch import stage
from imgsearch.errors import ExitCode, UsageError
from imgsearch.layout import Plan, RunFolder, collection_name
from imgsearch.settings import Settings
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore, open_store


def ingest(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Loads the run into the store, verifies and publishes it."""
    from searcher.ingest import Ingest

    work = Ingest(
        settings.run.id,
        storage=Storage(settings.storage.uri),
        store=open_store(settings.store.url),
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
    store = open_store(settings.store.url)
    return {"indexes": [_line(pointer) for _, pointer in sorted(store.pointers().items())]}


def rollback(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Points the index at the run that was published before; again, and it points forward."""
    store = open_store(settings.store.url)
    current = _pointer(store, settings.run.index)
    if current.previous is None:
        raise UsageError(f"index {current.index} has no earlier run to go back to")
    earlier = replace(current.previous, previous=replace(current, previous=None))
    store.publish(earlier)
    return _line(earlier)


def forget(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Removes the collection and the folder of a run that no index serves, would roll back to, or was updated from."""
    store = open_store(settings.store.url)
    storage = Storage(settings.storage.uri)
    folder = RunFolder(settings.run.id)
    for pointer in store.pointers().values():
        for needed in filter(None, (pointer, pointer.previous)):
            if folder.run in _lineage(storage, needed.run):
                raise UsageError(
                    f"run {folder.run} is needed by index {pointer.index}, which serves or can roll back to run "
                    f"{needed.run}: publish newer runs first"
                )
    store.drop(collection_name(settings.run.index, folder.run))
    return {"run": folder.run, "objects": storage.delete(folder.root)}


def _lineage(storage: Storage, run: str) -> Iterator[str]:
    """A run and those that it updates: its rows and thumbnails lie in all their folders."""
    at: str | None = run
    while at is not None:
        yield at
        name = RunFolder(at).plan
        at = Plan.from_json(storage.get(name), name).base


def serve(settings: Settings) -> ExitCode:
    from searcher.serve import serve as answer

    return answer(settings)


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
    "rollback": rollback,
    "forget": forget,
}


if __name__ == "__main__":
    sys.exit(stage.main("searcher", STAGES, sys.argv[1:], os.environ, serve=serve))
