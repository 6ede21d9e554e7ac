"""The Parquet files of the parts of a shard, which mark the parts as complete."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.runs.digests import file_name
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage


class Markers:
    """The markers of one shard."""

    def __init__(self, storage: Storage, folder: RunFolder, shard: int) -> None:
        self._storage = storage
        self._folder = folder
        self._shard = shard

    def names(self) -> list[str]:
        """The keys of the existing markers, by the number of their parts."""
        keys = self._storage.keys(self._folder.shard(self._shard))
        return sorted(key for key in keys if file_name(key).startswith("part-"))

    def delete(self, names: Sequence[str], first: int) -> None:
        """Deletes those of part number `first` and of all later parts, the last one first: a process that is killed
        meanwhile leaves consecutive parts.

        `names`: the result of an earlier call of `names`. A part that another process has written since then stays."""
        begin = self._folder.part(self._shard, first)
        for name in reversed(names):
            if name >= begin:
                self._storage.remove(name)
