"""The published indexes, as the controller lists them."""

from __future__ import annotations

from typing import Any

from imgsearch.errors import UsageError
from imgsearch.stores import Pointer, VectorStore


def find_pointer(store: VectorStore, index: str) -> Pointer:
    """The pointer of an index. Raises UsageError for an index that does not exist."""
    pointers = store.pointers()
    if index not in pointers:
        raise UsageError(f"index {index!r} does not exist; the indexes are: {', '.join(sorted(pointers)) or 'none'}")
    return pointers[index]


def list_indexes(store: VectorStore) -> dict[str, Any]:
    """All indexes, by name."""
    return {"indexes": [index_entry(pointer) for _, pointer in sorted(store.pointers().items())]}


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
