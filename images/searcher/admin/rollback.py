"""Rollback: an index serves its previous run again."""

from __future__ import annotations

from dataclasses import replace

from imgsearch.errors import UsageError
from imgsearch.stores import Pointer, VectorStore
from searcher.admin.indexes import find_pointer


def roll_back(store: VectorStore, index: str) -> Pointer:
    """Points the index at its previous run. A second rollback returns to the current one.

    Raises UsageError for an index that does not exist or has no previous run."""
    current = find_pointer(store, index)
    if current.previous is None:
        raise UsageError(f"index {current.index} has no previous run")
    previous = replace(current.previous, previous=replace(current, previous=None))
    store.publish(previous)
    return previous
