"""Publishes a verified collection: moves the pointer of its index."""

from __future__ import annotations

import logging
from dataclasses import replace

from imgsearch.stores import Pointer, VectorStore

log = logging.getLogger(__name__)


def publish(store: VectorStore, pointer: Pointer) -> Pointer:
    """Points the index at the run, keeps the previous run for a rollback, and drops the one before that.

    Returns the pointer that the index has then. A run that is published already only gets the candidates that were
    measured now. One that was rolled back from changes nothing: a repeated ingest must not undo a rollback."""
    current = store.pointers().get(pointer.index)
    if current is not None and pointer.run == current.run:
        measured = replace(current, candidates=pointer.candidates)
        if measured != current:
            store.publish(measured)
        return measured
    if current is not None and current.previous is not None and pointer.run == current.previous.run:
        return current
    pointer = replace(pointer, previous=None if current is None else replace(current, previous=None))
    store.publish(pointer)
    log.info("published %s as %s", pointer.collection, pointer.index)
    if current is not None and current.previous is not None:
        store.drop(current.previous.collection)
    return pointer
