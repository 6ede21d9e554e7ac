"""The published indexes, as the controller lists them, and those that the store has lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgsearch import stage
from imgsearch.errors import PermanentError, UsageError
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore
from searcher.admin import reports

MOST_LOST = 20
"""The most lost indexes in a result, which has to hold the others, too."""


def find_pointer(store: VectorStore, storage: Storage, index: str) -> Pointer:
    """The pointer of an index. Raises UsageError for an index that does not exist, and PermanentError for one that is
    lost."""
    pointers = store.pointers()
    if index not in pointers:
        lost = lost_indexes(pointers, storage)
        if index in lost:
            raise PermanentError(
                f"the vector store does not have index {index} any more, but the run folders do (run {lost[index]}): "
                "rebuild it with `controller restore`, which embeds nothing"
            )
        raise UsageError(f"index {index!r} does not exist; the indexes are: {', '.join(sorted(pointers)) or 'none'}")
    return pointers[index]


def lost_indexes(pointers: Mapping[str, Pointer], storage: Storage) -> dict[str, str]:
    """The indexes that were published and that the store does not have, each with its last published run."""
    published = reports.last_published(reports.read_all(storage))
    return {index: report.run for index, report in sorted(published.items()) if index not in pointers}


def list_indexes(store: VectorStore, storage: Storage, index: str = "") -> dict[str, Any]:
    """The indexes and the lost ones, by name, or only the one with this name. `left_out` has the numbers of those that
    a stage's result cannot hold."""
    pointers = store.pointers()
    lost = [name for name in lost_indexes(pointers, storage) if index in ("", name)]
    served = [index_entry(pointer) for name, pointer in sorted(pointers.items()) if index in ("", name)]
    entries: list[dict[str, Any]] = []
    left_out = {"indexes": len(served), "lost": len(lost[MOST_LOST:])}
    result = {"indexes": entries, "lost": lost[:MOST_LOST], "left_out": left_out}
    for entry in served:
        entries.append(entry)
        if stage.size(result) > stage.RESULT_LIMIT:
            entries.pop()
            break
    left_out["indexes"] -= len(entries)
    return result


def index_entry(pointer: Pointer) -> dict[str, Any]:
    """One index in a stage's result. `recall`: the mean, by kind of queries and by k."""
    recall: dict[str, dict[str, float]] = {}
    for figure in pointer.recall:
        recall.setdefault(figure["queries"], {})[str(figure["k"])] = figure["mean"]
    return {
        "index": pointer.index,
        "run": pointer.run,
        "images": pointer.images,
        "model": pointer.model,
        "source": pointer.source,
        "published": pointer.published,
        "recall": recall,
        "previous": pointer.previous and pointer.previous.run,
    }
