"""Checks the files of an embedded Chroma before it opens them. Chroma answers some damage with other results, and some
ends its process.

    chroma.sqlite3   metadata, the vectors that no index has yet, and the names of the collections
    <segment>/       the HNSW index of a collection (hnsw_files.py), once it has `sync_threshold` vectors
"""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from imgsearch.stores import hnsw_files

DATABASE = "chroma.sqlite3"
SEGMENTS = """
SELECT collections.id, collections.dimension, segments.id, max_seq_id.seq_id IS NOT NULL
FROM segments JOIN collections ON segments.collection = collections.id
LEFT JOIN max_seq_id ON max_seq_id.segment_id = segments.id
WHERE segments.scope = 'VECTOR'
"""
DAMAGE = re.compile(
    r"malformed|not a database|hnsw|Error finding id|Error getting embedding|error occurred while decoding|"
    r"Failed to pull logs|Failed to receive response|Inconsistent hash|Could not deserialize|no such (table|column)"
)
"""In the errors of Chroma 1.5.9 for damaged files, embedded and as a server."""
ENVIRONMENT = re.compile(r"locked|unable to open|readonly|disk I/O|[Pp]ermission denied|Too many open files|timed out")
"""In its errors with a cause outside of its files. An embedded Chroma has no network, so the rest is damage."""


class _Segment(NamedTuple):
    dim: int | None
    id: str
    has_files: bool
    """Whether Chroma has written the index to its folder."""


def is_damage(message: str, *, embedded: bool) -> bool:
    """Whether an error of Chroma has damaged files as its cause."""
    return DAMAGE.search(message) is not None or (embedded and ENVIRONMENT.search(message) is None)


class ChromaFiles:
    """The files of one embedded Chroma. Do not call it while Chroma has them open in this process, except
    `damage_of`: two libraries that open one SQLite file in a process release each other's locks
    (https://sqlite.org/howtocorrupt.html, 2.2.1)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unchecked: dict[str, _Segment] = {}
        """By the id of the collection."""
        self._checking = threading.Lock()

    def damage(self) -> str | None:
        """The damage of the database as `FILE: PROBLEM`; None if none is found. An empty folder is a new store.

        It finds a missing or shortened file and damage of the pages that list the collections. Chroma finds damage of
        other pages when it reads them, but not changed text or numbers."""
        file = self._folder / DATABASE
        if not file.exists() or not file.stat().st_size:
            return f"{DATABASE}: missing" if self._has_index() else None
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as database:
                self._unchecked = {id: _Segment(*row) for id, *row in database.execute(SEGMENTS)}
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such "):
                return None  # locked, or no permission: Chroma says so
            return f"{DATABASE}: {error}" if self._has_index() else None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            return f"{DATABASE}: {error}"
        return None

    def damage_of(self, collection: str) -> str | None:
        """The damage of the index of a collection, in the same form. `collection` is its id. A collection that did not
        exist when `damage` was called is not damaged. The first call reads the whole index, as Chroma does
        before it answers."""
        with self._checking:
            segment = self._unchecked.get(collection)
            if segment is None:
                return None
            folder = self._folder / segment.id
            # Chroma loads an index only if it finds this file.
            has_files = segment.has_files or (folder / hnsw_files.METADATA).exists()
            if has_files and (found := hnsw_files.check(folder, dim=segment.dim)):
                return f"{segment.id}/{found}"
            del self._unchecked[collection]
            return None

    def _has_index(self) -> bool:
        return any(self._folder.glob("*/header.bin"))
