"""Parquet files with images in a column, as a source: planned and read by row group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError, first_line
from imgsearch.sources import Content, Item, SourceImage
from imgsearch.sources.columns import class_names, declared_features, find_columns, rows_metadata
from imgsearch.sources.values import Metadata

FOOTERS = 8
"""Footers that are read at once: over a network, most of the time is waiting."""
BATCH_BYTES = 2**26
"""Bytes of a row group in memory at a time, approximately."""
BATCH_ROWS = 256
READ_BYTES = 2**23
"""Bytes of a column that are read at once. A row group may be larger than the memory."""
KEY = re.compile(r"([^\0]+)#(0|[1-9][0-9]{0,17})")
DAMAGED = (pa.ArrowException, OSError, ValueError, IndexError, NotFound)
"""The errors for a file that does not exist any more, and pyarrow's errors for bytes that do not match the footer."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a listing."""

    path: str
    """Relative, with `/`."""
    size: int
    etag: str


class DataFiles(Protocol):
    """The Parquet files of a source. Any thread may call."""

    def files(self) -> Sequence[DataFile]:
        """Raises UsageError if there are none."""

    def open(self, path: str, etag: str = "") -> tuple[AbstractContextManager[Any], str]:
        """A file object with random access, and the etag of the version that it reads: the one with this `etag` where
        the source keeps versions, otherwise the newest one.

        Opening and reading raise an error of DAMAGED, or an ImgsearchError."""

    def features(self) -> Mapping[str, Any]:
        """The columns as `datasets.Features.to_dict` describes them, for files without features in their footer;
        empty if they are unknown."""


class ParquetSource:
    """Images in the rows of Parquet files. A unit of its items is a row group; an image's key is `path#row`."""

    def __init__(self, uri: str, files: DataFiles, *, column: str | None = None) -> None:
        self.uri = uri
        self.skipped: Counter[str] = Counter()
        self._files = files
        self._column = column

    def items(self) -> Iterator[Item]:
        """Every row group that has rows; only footers are read.

        Raises UsageError if there are no rows or no images, PermanentError for a damaged file."""
        empty = True
        with ThreadPoolExecutor(FOOTERS) as pool:
            for items in pool.map(self._row_groups, self._files.files()):
                for item in items:
                    empty = False
                    yield item
        if empty:
            raise UsageError(f"the Parquet files of {self.uri} have no rows")

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        return iter(())

    def image_keys(self, item: Item) -> Iterator[str]:
        return (_image_key(item, row) for row in range(item.images))

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        for item in items:
            if skip < item.images:
                yield from self._images(item, skip)
            skip = max(0, skip - item.images)

    def read(self, key: str) -> bytes:
        """Reads the image column of the row group, up to the row."""
        missing = NotFound(f"{self.uri} has no image {key!r}")
        parsed = KEY.fullmatch(key)
        if not parsed:
            raise missing
        row = int(parsed[2])
        try:
            items = self._row_groups(DataFile(parsed[1], 0, ""))
        except (UsageError, PermanentError) as error:
            raise missing from error
        for item in items:
            if item.first <= row < item.first + item.images:
                try:
                    with self._opened(item.key, item.etag) as (parquet, etag):
                        cell, _ = next(self._rows(parquet, item, row - item.first, with_metadata=False))
                except DAMAGED as error:
                    raise BadImage("read", f"its row group cannot be read: {first_line(error)}") from error
                return _content(cell, etag, listed=etag).data
        raise missing

    def _row_groups(self, file: DataFile) -> list[Item]:
        items, first = [], 0
        try:
            with self._opened(file.path, file.etag) as (parquet, _):
                find_columns(parquet.schema_arrow, wanted=self._column, path=file.path)
                groups = [parquet.metadata.row_group(n) for n in range(parquet.num_row_groups)]
        except DAMAGED as error:
            raise PermanentError(
                f"{file.path} cannot be read as Parquet ({first_line(error)}): replace it, or move it away"
            ) from error
        for number, group in enumerate(groups):
            if group.num_rows:
                size = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
                items.append(Item(file.path, size, file.etag, unit=number, first=first, images=group.num_rows))
            first += group.num_rows
        return items

    def _images(self, item: Item, skip: int) -> Iterator[SourceImage]:
        """The images of a row group from its row `skip` on: as many as planned, even if the file has changed."""
        row = skip
        reason = "the file has fewer rows than when it was listed"
        changed = True
        try:
            with self._opened(item.key, item.etag) as (parquet, etag):
                changed = etag != item.etag
                if changed and not _has_rows(parquet, item):
                    raise ValueError("the file was changed after it was listed, and has its rows elsewhere")
                for cell, metadata in self._rows(parquet, item, skip):
                    if row < item.images:
                        yield SourceImage(
                            _image_key(item, row), item.etag, metadata, partial(_content, cell, etag, listed=item.etag)
                        )
                        row += 1
        except DAMAGED as error:
            reason = f"its row group cannot be read: {first_line(error)}"
        for missing in range(row, item.images):
            yield SourceImage(_image_key(item, missing), item.etag, {}, partial(_refuse, reason, changed=changed))

    def _rows(
        self, parquet: pq.ParquetFile, item: Item, skip: int, *, with_metadata: bool = True
    ) -> Iterator[tuple[Any, Metadata]]:
        """The image cell and the metadata of each row from `skip` on."""
        schema = parquet.schema_arrow
        image, others = find_columns(schema, wanted=self._column, path=item.key)
        others = others if with_metadata else []
        features = (declared_features(schema) or self._files.features()) if others else {}
        labels = {name: names for name in others if (names := class_names(features.get(name)))}
        group = parquet.metadata.row_group(item.unit)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        for batch in parquet.iter_batches(
            batch_size=max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes)),
            row_groups=[item.unit],
            columns=[image, *others],
        ):
            rows = batch.slice(skip)
            skip = max(0, skip - len(batch))
            cells = rows.column(image)
            for number, metadata in enumerate(rows_metadata(rows.select(others), labels)):
                yield cells[number].as_py(), metadata

    @contextmanager
    def _opened(self, path: str, etag: str) -> Iterator[tuple[pq.ParquetFile, str]]:
        """The file, and the etag of the version that it reads."""
        opened, opened_etag = self._files.open(path, etag)
        # By default pyarrow fetches the whole row group first.
        with opened as file, pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as parquet:
            yield parquet, opened_etag


def _image_key(item: Item, row: int) -> str:
    return f"{item.key}#{item.first + row}"


def _has_rows(parquet: pq.ParquetFile, item: Item) -> bool:
    """Whether the unit of the item begins at the same row of the file as when it was listed: a key has the number of
    its row."""
    groups = range(min(item.unit, parquet.num_row_groups))
    return bool(sum(parquet.metadata.row_group(number).num_rows for number in groups) == item.first)


def _content(cell: Any, etag: str, *, listed: str) -> Content:
    changed = etag != listed
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and path:
        raise BadImage(
            "read", f"the row has no bytes, only the path {path!r}: write the images into the file", changed=changed
        )
    if not data:
        raise BadImage("read", "the row has no image", changed=changed)
    return Content(data, etag)


def _refuse(reason: str, *, changed: bool) -> Content:
    raise BadImage("read", reason, changed=changed)
