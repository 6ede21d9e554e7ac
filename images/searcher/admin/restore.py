"""Rebuilds the vector store from the run folders: ingests the published run of each index again, and embeds nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Any

from imgsearch import stage
from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.documents import Report
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.storage import Storage
from imgsearch.stores import DamagedStore, Pointer, VectorStore, embedded, open_store, rebuilding
from searcher.admin import reports
from searcher.ingest.run_reader import RunReader

log = logging.getLogger(__name__)

Ingested = Callable[[str, VectorStore], Pointer]
"""Ingests a run into a store; returns the pointer that its index has then."""


def restore(url: str, storage: Storage, *, run: str | None, ingest: Ingested) -> dict[str, Any]:
    """Fills the store again; `run` replaces the published run of its index. Returns a stage's result.

    An embedded store is built anew beside the old one, and replaces it when it is complete; the same call resumes. In a
    server, each collection is dropped and filled again; with `run`, that of this run only. Before anything is dropped,
    every file of the runs is read.

    Raises UsageError where the storage has no published run, or not this one, DamagedShard, and PermanentError for a
    server that cannot read its database, and for a report that cannot be read where the store has no pointers."""
    served = []
    with rebuilding(url) as new:
        chosen = _chosen(url, storage, run=run)
        for index_run in chosen.values():
            RunReader(storage).check(index_run)
        for index in sorted(chosen):
            log.info("restoring run %s of index %s", chosen[index], index)
            with closing(open_store(new)) as store:
                if new == url:
                    store.drop(collection_name(index, chosen[index]))
                served.append(ingest(chosen[index], store))
    return _result(served)


def _chosen(url: str, storage: Storage, *, run: str | None) -> dict[str, str]:
    """The runs to restore, by index."""
    pointers = _pointers(url)
    found, unreadable = reports.try_all(storage)
    if unreadable and not pointers:
        raise unreadable[0]
    planned = {pointer.run for pointer in pointers.values() if storage.exists(RunFolder(pointer.run).plan)}
    chosen = choose(pointers, found, planned=planned, run=run)
    if run is not None and not embedded(url):
        return {index: index_run for index, index_run in chosen.items() if index_run == run}
    return chosen


def choose(
    pointers: Mapping[str, Pointer], found: list[Report], *, planned: Collection[str], run: str | None
) -> dict[str, str]:
    """The run of each index: `run`; else the one that the store still names, if it is `planned` (has a plan.json: an
    ingest may have ended after it published the run, and before it wrote its report); else the last published one.
    Pure."""
    chosen = {index: report.run for index, report in reports.last_published(found).items()}
    chosen |= {index: pointer.run for index, pointer in pointers.items() if pointer.run in planned}
    if run is not None:
        index = next((report.index for report in found if report.run == run), None)
        if index is None:
            raise UsageError(f"run {run!r} was never published: `controller runs` lists the published runs")
        previous = pointers[index].previous if index in pointers else None
        if previous and previous.run == run:
            raise UsageError(f"run {run} is the previous run of index {index}: use `controller rollback {index}`")
        chosen[index] = run
    if not chosen:
        raise UsageError("the storage has no published run, so there is nothing to restore")
    return chosen


def _pointers(url: str) -> Mapping[str, Pointer]:
    """The pointers of the store; none where an embedded store cannot be read."""
    try:
        with closing(open_store(url)) as store:
            return store.pointers()
    except DamagedStore as error:
        if embedded(url):
            return {}
        raise PermanentError(
            f"{url} cannot read its database: stop Chroma, delete its files, start it, and repeat the command"
        ) from error


def _result(served: list[Pointer]) -> dict[str, Any]:
    """As many indexes as a stage's result can hold."""
    entries = [{"index": pointer.index, "run": pointer.run, "images": pointer.images} for pointer in served]
    result: dict[str, Any] = {"restored": entries, "left_out": 0}
    while stage.size(result) > stage.RESULT_LIMIT:
        entries.pop()
        result["left_out"] += 1
    return result
