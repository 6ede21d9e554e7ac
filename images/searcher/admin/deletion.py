"""Deletion of a run: its collection and its folder."""

from __future__ import annotations

from collections.abc import Iterator

from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.runs.documents import Plan, Report
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.storage import Storage
from imgsearch.stores import VectorStore
from imgsearch.typed_json import DamagedDocument
from searcher.admin.indexes import lost_indexes


def delete_run(store: VectorStore, storage: Storage, run: str) -> int:
    """Deletes the run, and returns the number of deleted objects.

    Raises UsageError for a run that does not exist, or that an index needs: the index serves it, can be rolled back to
    it, or updates it; if the store has lost the index, it is restored from it."""
    pointers = store.pointers()
    for index, last in lost_indexes(pointers, storage).items():
        if run in _lineage(storage, last):
            raise UsageError(
                f"run {run} is needed by index {index}, which the vector store does not have any more: restore it with "
                "`controller restore`"
            )
    for pointer in pointers.values():
        for needed in filter(None, (pointer, pointer.previous)):
            if run in _lineage(storage, needed.run):
                raise UsageError(
                    f"run {run} is needed by index {pointer.index}, which serves or can be rolled back to run "
                    f"{needed.run}; publish newer runs first"
                )
    store.drop(collection_name(_index(store, storage, run), run))
    return storage.delete(RunFolder(run).root)


def _index(store: VectorStore, storage: Storage, run: str) -> str:
    """The index of a run, also with a damaged plan: a run that cannot be repaired can be deleted."""
    folder = RunFolder(run)
    try:
        return Plan.from_json(storage.get(folder.plan), folder.plan).index
    except NotFound as error:
        raise UsageError(f"run {run!r} does not exist; `controller runs` lists the runs") from error
    except DamagedDocument as error:
        if not storage.exists(folder.report):
            collections = [name for name in store.collections() if name.endswith(collection_name("", run))]
            raise PermanentError(
                f"{error.problem}, so the index of run {run} is unknown: delete the folder {folder.root} of the "
                f"storage, and the run's collection in the store (candidates: {', '.join(collections) or 'none'})"
            ) from error
        return Report.from_json(storage.get(folder.report), folder.report).index


def _lineage(storage: Storage, run: str) -> Iterator[str]:
    """The run, and the runs that it updates: their folders contain some of its rows and thumbnails."""
    ancestor: str | None = run
    while ancestor is not None:
        yield ancestor
        name = RunFolder(ancestor).plan
        ancestor = Plan.from_json(storage.get(name), name).base
