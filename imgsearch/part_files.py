"""The files of a finished shard in the storage. Each is compared with its digest while it is read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from imgsearch.errors import NotFound, PermanentError
from imgsearch.runs import digests, parts, texts
from imgsearch.runs.digests import Damaged
from imgsearch.runs.documents import ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.runs.parts import BadRow
from imgsearch.storage import Storage
from imgsearch.vectors import Vector


class PartFiles:
    """The parts and the texts of one shard. Every method raises Damaged for a file that is missing, or not as it was
    written.

    A part of an earlier version has no digests. Its tables are checked as far as they can be read, and its thumbnails
    by their size."""

    def __init__(self, storage: Storage, folder: RunFolder, done: ShardDone) -> None:
        self._storage = storage
        self._folder = folder
        self._done = done

    def rows(self, part: int) -> pa.Table:
        """The rows of a part. Raises PermanentError for a part of another model than its shard."""
        name = self._folder.part(self._done.shard, part)
        table, header = parts.from_bytes(self._bytes(name), name)
        if (header.fingerprint, header.dim) != (self._done.fingerprint, self._done.dim):
            raise PermanentError(f"{name} has another model than its shard; index again with a new --run")
        return table

    def bad(self, part: int) -> list[BadRow]:
        """The bad images of a part."""
        name = self._folder.bad(self._done.shard, part)
        return parts.bad_from_bytes(self._bytes(name), name)

    def check_thumbnails(self, part: int, rows: pa.Table) -> None:
        """Reads the whole archive, a piece at a time. Without a digest, it compares the size with the rows of the part
        only."""
        name = self._folder.thumbs(self._done.shard, part)
        try:
            if digests.file_name(name) in self._done.digests:
                digests.check(self._storage.sha256(name), self._done.digests, name)
                return
            size = self._storage.entry(name).size
        except NotFound as error:
            raise _missing(name) from error
        end = pc.max(pc.add(rows["thumb_offset"], rows["thumb_length"].cast(pa.int64()))).as_py() or 0
        if size < end:
            raise Damaged(name, f"is damaged (it has {size} bytes, its thumbnails end at byte {end})")

    def texts(self) -> dict[str, Vector]:
        """The vectors of the texts, by text. A small shard, and a shard of an earlier version, has none."""
        name = self._folder.texts(self._done.shard)
        if digests.file_name(name) not in self._done.digests:
            return {}
        return texts.from_bytes(self._bytes(name), name, dim=self._done.dim)

    def counts(self, part: int) -> tuple[int, int]:
        """The numbers of vectors and of bad images of a part. Reads all its files."""
        bad, rows = self.bad(part), self.rows(part)
        self.check_thumbnails(part, rows)
        return len(rows), len(bad)

    def _bytes(self, name: str) -> bytes:
        try:
            data = self._storage.get(name)
        except NotFound as error:
            raise _missing(name) from error
        digests.check(digests.digest(data), self._done.digests, name)
        return data


def _missing(name: str) -> Damaged:
    return Damaged(name, "does not exist, although its shard is done")
