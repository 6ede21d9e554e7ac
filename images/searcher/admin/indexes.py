"""The published indexes, as the controller lists them, and those that the store has lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgsearch.errors import PermanentError, UsageError
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore
from searcher.admin import reports

MOST_LOST = 20
"""The most lost indexes in a result, which has a limit."""


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


def list_indexes(store: VectorStore, storage: Storage) -> dict[str, Any]:
    """All indexes, by name, and the first MOST_LOST lost ones."""
    pointers = store.pointers()
    return {
        "indexes": [index_entry(pointer) for _, pointer in sorted(pointers.items())],
        "lost": list(lost_indexes(pointers, storage))[:MOST_LOST],
    }


def index_entry(pointer: Pointer) -> dict[str, Any]:
    """One index in a stage's result."""
    return {
        "index": pointer.index,
        "run": pointer.run,
        "images": pointer.images,
        "model": pointer.model,
        "source": pointer.source,
        "published": pointer.published,
        "previous": pointer.previous and pointer.previous.run,
    }
