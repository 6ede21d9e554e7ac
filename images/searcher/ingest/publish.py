"""Publishes a verified collection: moves the pointer of its index."""

from __future__ import annotations

import logging
from dataclasses import replace

from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore

log = logging.getLogger(__name__)


def publish(store: VectorStore, storage: Storage, pointer: Pointer) -> Pointer:
    """Points the index at the run, keeps the previous run for a rollback, and drops the collection and the table of the
    one before that.

    Returns the pointer that the index has then. Of a run that is published already, the recall and the candidates are
    replaced, which were measured again, and the number of images, which a repaired shard may change. A run
    that was rolled back from changes nothing: a repeated ingest must not undo a rollback."""
    current = store.pointers().get(pointer.index)
    if current is not None and pointer.run == current.run:
        again = replace(current, recall=pointer.recall, candidates=pointer.candidates, images=pointer.images)
        if again != current:
            store.publish(again)
        return again
    if current is not None and current.previous is not None and pointer.run == current.previous.run:
        return current
    pointer = replace(pointer, previous=None if current is None else replace(current, previous=None))
    store.publish(pointer)
    log.info("published %s as %s", pointer.collection, pointer.index)
    if current is not None and current.previous is not None:
        store.drop(current.previous.collection)
        folder = RunFolder(current.previous.run)
        storage.remove(folder.table)  # first: with it, the table would be complete
        storage.delete(folder.table_files)
    return pointer
