"""The items of a run, sorted, joined and compared on the disk: ten million items need no more memory than ten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.tables import encode_metadata
from imgsearch.sources import Item
from imgsearch.sources.values import Metadata

COLUMNS = "key, unit, first, images, size, etag, metadata"
TABLES = f"""
PRAGMA cache_size = -16384;  -- KiB
PRAGMA journal_mode = OFF;
CREATE TABLE items (
    {COLUMNS},
    metadata_rows DEFAULT 0 CHECK (metadata_rows <= 1),
    version AS (substr(etag, 1, instr(etag || '@', '@') - 1)),
    PRIMARY KEY (key, unit)
) WITHOUT ROWID;
CREATE TABLE base (
    {COLUMNS},
    first_key,  -- the key of the item's first image
    version AS (substr(etag, 1, instr(etag || '@', '@') - 1)),
    PRIMARY KEY (key, unit)
) WITHOUT ROWID;
CREATE TABLE gone (key PRIMARY KEY) WITHOUT ROWID;
"""
VALUES = "(:key, :unit, :first, :images, :size, :etag, :metadata"
SAME = "base.version = items.version AND base.metadata = items.metadata"
WANTED = f"FROM items LEFT JOIN base USING (key, unit) WHERE base.key IS NULL OR NOT ({SAME})"
DROPPED = f"FROM base LEFT JOIN items USING (key, unit) WHERE items.key IS NULL OR NOT ({SAME})"

CHANGED = "changed"
"""The etag of an item of the base whose content may be of another version. No item of a source has it, so an update
embeds the item again."""

Row = Mapping[str, Any]
"""A row of tables.ITEMS."""


class Totals(NamedTuple):
    """The sums over the items that a run embeds."""

    items: int
    images: int
    bytes: int


class Items:
    """The current items of the source, and the items of an earlier run, the base. Use it in a `with`.

    SQLite keeps them in an unnamed temporary file in the folder TMPDIR."""

    def __init__(self, image_keys: Callable[[Item], Iterable[str]]) -> None:
        """`image_keys`: see Source."""
        self._image_keys = image_keys

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
                f"the disk of temporary files is too small for the listing ({error}): "
                "enlarge it, or set TMPDIR to another folder"
            ) from error

    def add(self, items: Iterable[Item], metadata: Iterable[tuple[str, Metadata]]) -> None:
        """Adds the items of the source. Metadata of a missing file makes an item of size 0 without an etag.

        Raises UsageError for two items with one key, and for two rows of metadata with one key."""
        self._insert(
            f"INSERT INTO items ({COLUMNS}) VALUES {VALUES})",
            ({**vars(item), "metadata": encode_metadata(item.metadata)} for item in items),
            duplicate="the source has two images called {key!r}: rename one",
        )
        self._insert(
            f"INSERT INTO items ({COLUMNS}, metadata_rows) VALUES {VALUES}, 1) "
            "ON CONFLICT DO UPDATE SET metadata = excluded.metadata, metadata_rows = metadata_rows + 1",
            ({**vars(Item(key, size=0)), "metadata": encode_metadata(values)} for key, values in metadata),
            duplicate="the metadata has two rows for {key!r}: remove one",
        )

    def add_base(self, rows: Iterable[Row], dropped: Iterable[str]) -> None:
        """Adds the rows of an earlier run's plan, and removes the image keys that this run dropped. Begin with the run
        that indexed everything, then add each update."""
        self._db.executemany("INSERT INTO gone VALUES (?)", ((key,) for key in dropped))
        self._db.execute("DELETE FROM base WHERE first_key IN gone")
        self._db.execute("DELETE FROM gone")
        self._db.executemany(
            f"INSERT INTO base ({COLUMNS}, first_key) VALUES {VALUES}, :first_key)",
            ({**row, "first_key": next(iter(self._image_keys(to_item(row))))} for row in rows),
        )

    def wanted(self) -> Iterator[dict[str, Any]]:
        """The new and the changed items as rows of tables.ITEMS, by key, then unit."""
        columns = ", ".join(f"items.{name}" for name in COLUMNS.split(", "))
        query = f"SELECT {columns} {WANTED} ORDER BY items.key, items.unit"
        yield from map(dict, self._db.execute(query))

    def totals(self) -> Totals:
        """The sums over `wanted`."""
        sums = "count(*), total(items.images), total(items.size)"
        return Totals(*map(int, self._db.execute(f"SELECT {sums} {WANTED}").fetchone()))

    def dropped(self) -> Iterator[str]:
        """The keys of all images of the base items that are gone or changed."""
        for row in self._db.execute(f"SELECT base.* {DROPPED} ORDER BY base.key, base.unit"):
            yield from self._image_keys(to_item(row))

    def kept(self) -> int:
        """The number of unchanged images of the base."""
        return self._number(f"SELECT total(base.images) FROM base JOIN items USING (key, unit) WHERE {SAME}")

    def removed(self) -> int:
        """The number of images of the base that the source has no longer. For a smaller unit, the difference."""
        removed = "total(max(0, base.images - coalesce(items.images, 0)))"
        return self._number(f"SELECT {removed} {DROPPED}")

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _insert(self, statement: str, rows: Iterable[Row], *, duplicate: str) -> None:
        current: Row = {}

        def tracked() -> Iterator[Row]:
            nonlocal current
            for row in rows:
                current = row
                yield row

        try:
            self._db.executemany(statement, tracked())
        except sqlite3.IntegrityError as error:
            raise UsageError(duplicate.format(key=current["key"])) from error


def to_item(row: Row | sqlite3.Row) -> Item:
    """The item of a row, without its metadata."""
    return Item(row["key"], row["size"], row["etag"], unit=row["unit"], first=row["first"], images=row["images"])
