"""The items of a run, sorted, joined and compared on disk: ten million need no more memory than ten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.tables import encode_metadata
from imgsearch.sources import Item, Metadata

COLUMNS = "key, row_group, first_row, images, size, etag, metadata"
TABLES = f"""
PRAGMA cache_size = -16384;  -- KiB
PRAGMA journal_mode = OFF;
CREATE TABLE items (
    {COLUMNS},
    described DEFAULT 0 CHECK (described <= 1),  -- how many rows of metadata it has
    version AS (substr(etag, 1, instr(etag || '@', '@') - 1)),
    PRIMARY KEY (key, row_group)
) WITHOUT ROWID;
CREATE TABLE base (
    {COLUMNS},
    version AS (substr(etag, 1, instr(etag || '@', '@') - 1)),
    PRIMARY KEY (key, row_group)
) WITHOUT ROWID;
CREATE TABLE gone (key PRIMARY KEY) WITHOUT ROWID;
"""
VALUES = "VALUES (:key, :row_group, :first_row, :images, :size, :etag, :metadata)"
SAME = "base.version = items.version AND base.metadata = items.metadata"
WANTED = f"FROM items LEFT JOIN base USING (key, row_group) WHERE base.key IS NULL OR NOT ({SAME})"
DROPPED = f"FROM base LEFT JOIN items USING (key, row_group) WHERE items.key IS NULL OR NOT ({SAME})"


class Totals(NamedTuple):
    items: int
    images: int
    bytes: int


class Items:
    """What the source has now, and what an earlier run had. Both empty at first; use it in a `with`.

    Kept by SQLite in a temporary file without a name, in the folder that TMPDIR says."""

    def __enter__(self) -> Self:
        self._db = sqlite3.connect("")
        self._db.executescript(TABLES)
        self._db.row_factory = sqlite3.Row
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise PermanentError(
                f"the listing found no room on the disk of temporary files ({error}): "
                "give it more, or another folder in TMPDIR"
            ) from error

    def add(self, items: Iterable[Item], metadata: Iterable[tuple[str, Metadata]]) -> None:
        """Takes in the source. Metadata of a file that is not there makes an item of size 0 with no etag.

        Raises UsageError where a key, or metadata of a key, comes twice."""
        self._insert(
            f"INSERT INTO items ({COLUMNS}) {VALUES}",
            ({**vars(item), "metadata": encode_metadata(item.metadata)} for item in items),
            twice="the source has two images called {key!r}: rename one",
        )
        self._insert(
            f"INSERT INTO items ({COLUMNS}, described) VALUES (:key, -1, 0, 1, 0, '', :metadata, 1) "
            "ON CONFLICT DO UPDATE SET metadata = excluded.metadata, described = described + 1",
            ({"key": key, "metadata": encode_metadata(values)} for key, values in metadata),
            twice="the metadata has two rows for {key!r}: remove one",
        )

    def add_base(self, rows: Iterable[Mapping[str, Any]], dropped: Iterable[str]) -> None:
        """Takes in an earlier run, after the one that it is itself based on: its `dropped` image keys go, its
        `rows` (of schema.ITEMS) come."""
        self._db.executemany("INSERT INTO gone VALUES (?)", ((key,) for key in dropped))
        self._db.execute(
            "DELETE FROM base WHERE CASE row_group WHEN -1 THEN key ELSE key || '#' || first_row END IN gone"
        )
        self._db.execute("DELETE FROM gone")
        self._db.executemany(f"INSERT INTO base {VALUES}", rows)

    def wanted(self) -> Iterator[dict[str, Any]]:
        """The new and the changed items as rows of schema.ITEMS, by key, then row group."""
        columns = ", ".join(f"items.{name}" for name in COLUMNS.split(", "))
        query = f"SELECT {columns} {WANTED} ORDER BY items.key, items.row_group"
        yield from map(dict, self._db.execute(query))

    def totals(self) -> Totals:
        """Of `wanted`."""
        sums = "count(*), total(items.images), total(items.size)"
        return Totals(*map(int, self._db.execute(f"SELECT {sums} {WANTED}").fetchone()))

    def dropped(self) -> Iterator[str]:
        """Image keys of the base that are gone or changed; for a row group, those of all its rows."""
        for row in self._db.execute(f"SELECT base.* {DROPPED} ORDER BY base.key, base.row_group"):
            if row["row_group"] == -1:
                yield row["key"]
            else:
                yield from (f"{row['key']}#{row['first_row'] + n}" for n in range(row["images"]))

    def kept(self) -> int:
        """How many images of the base are unchanged."""
        return self._number(f"SELECT total(base.images) FROM base JOIN items USING (key, row_group) WHERE {SAME}")

    def removed(self) -> int:
        """How many images of the base are gone; a row group that shrank has lost the difference."""
        lost = "total(max(0, base.images - coalesce(items.images, 0)))"
        return self._number(f"SELECT {lost} {DROPPED}")

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _insert(self, statement: str, rows: Iterable[Mapping[str, Any]], *, twice: str) -> None:
        latest: Mapping[str, Any] = {}

        def noted() -> Iterator[Mapping[str, Any]]:
            nonlocal latest
            for row in rows:
                latest = row
                yield row

        try:
            self._db.executemany(statement, noted())
        except sqlite3.IntegrityError as error:
            raise UsageError(twice.format(key=latest["key"])) from error
