"""Repairs shards that an ingest found to be damaged: their damaged parts, those behind them, and their texts are made
again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from embedder.markers import Markers
from imgsearch.errors import NotFound, PermanentError
from imgsearch.part_files import PartFiles
from imgsearch.runs.digests import Damaged
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage

log = logging.getLogger(__name__)


class DamagedShard(NamedTuple):
    """A shard of this run, or of a run that it updates."""

    run: str
    shard: int


def damaged_shards(storage: Storage, plan: Plan, shard: int) -> Iterator[DamagedShard]:
    """The shards that the process of `shard` repairs: its own, and its share of those of the runs before."""
    for key in storage.keys(RunFolder(plan.run).damaged_shards):
        *_, run, name = key.removesuffix(".txt").split("/")
        if name.isdecimal():  # a person may have put another file there
            number = int(name)
            if number == shard if run == plan.run else number % plan.shards == shard:
                yield DamagedShard(run, number)


def reopen(storage: Storage, damaged: DamagedShard) -> None:
    """Deletes the done.json of a damaged shard, and the markers of the parts to make again. Reads all its files.

    Does nothing if they are as they were written: the error was in reading them."""
    folder = RunFolder(damaged.run)
    name = folder.done(damaged.shard)
    try:
        done = ShardDone.from_json(storage.get(name), name)
        if _is_intact(storage, folder, done):
            return
    except NotFound:  # an earlier process was killed in the middle of the repair
        return
    except PermanentError as error:
        log.warning("%s. It is made again from the parts", error)
    storage.remove(name)


def _is_intact(storage: Storage, folder: RunFolder, done: ShardDone) -> bool:
    """Whether all files are as done.json describes them. Deletes the markers from the first damaged part on.

    Raises PermanentError if done.json is of another model than the parts."""
    files, markers = PartFiles(storage, folder, done), Markers(storage, folder, done.shard)
    names = markers.names()
    images = bad = 0
    for part in range(done.parts):
        try:
            part_images, part_bad = files.counts(part)
        except Damaged as error:
            log.warning("%s: parts %d to %d are made again", error.sentence, part, done.parts - 1)
            markers.delete(names, part)
            return False
        images, bad = images + part_images, bad + part_bad
    if (images, bad) != (done.images, done.bad):
        # Only without digests. Any of the parts may be the wrong one.
        log.warning("the parts of shard %d have other counts than its done.json: they are made again", done.shard)
        markers.delete(names, 0)
        return False
    try:
        files.texts()
    except Damaged as error:
        log.warning("%s: the texts are made again", error.sentence)
        return False
    return True
