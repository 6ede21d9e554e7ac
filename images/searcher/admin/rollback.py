"""Rollback: an index serves its previous run again."""

from __future__ import annotations

from dataclasses import replace

from imgsearch.errors import UsageError
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore
from searcher.admin.indexes import find_pointer


def roll_back(store: VectorStore, storage: Storage, index: str) -> Pointer:
    """Points the index at its previous run. A second rollback returns to the current one.

    Raises UsageError for an index that does not exist or has no previous run, and PermanentError for a lost one."""
    current = find_pointer(store, storage, index)
    if current.previous is None:
        raise UsageError(f"index {current.index} has no previous run")
    previous = replace(current.previous, previous=replace(current, previous=None))
    store.publish(previous)
    return previous
