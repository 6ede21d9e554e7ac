"""Parquet files with images in a column, as a source: planned and read by row group."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources import Item, Metadata, SourceImage, plain, printable

FOOTERS = 8
"""How many footers are read at once: over a network, each is mostly waiting."""
BATCH_BYTES = 2**26
"""About how much of a row group is in memory at a time."""
BATCH_ROWS = 256
READ_BYTES = 2**23
"""How much is read at once of a column, so that a row group of any size is a stream."""
KEY = re.compile(r"([^\0]+)#(0|[1-9][0-9]{0,17})")
DAMAGED = (pa.ArrowException, OSError, ValueError, IndexError, NotFound)
"""What a file that is gone raises, or pyarrow for bytes that are not what their footer says."""


@dataclass(frozen=True)
class DataFile:
    path: str
    """Relative, with `/`."""
    size: int
    etag: str


class DataFiles(Protocol):
    """Where the Parquet files are. Any thread may call."""

    def files(self) -> Sequence[DataFile]:
        """Raises UsageError where there is none."""

    def open(self, path: str, etag: str = "") -> AbstractContextManager[Any]:
        """A file object with random access: the version that `etag` names, the newest without one.

        What it and reading raise is in DAMAGED, or an ImgsearchError."""

    def features(self) -> Mapping[str, Any]:
        """The columns as `datasets.Features.to_dict` describes them, for files that do not say so themselves;
        empty where nobody does."""


class ParquetSource:
    """Images in the rows of Parquet files. An image's key is `path#row`."""

    def __init__(self, uri: str, files: DataFiles, *, column: str | None = None) -> None:
        self.uri = uri
        self.skipped: Counter[str] = Counter()
        self._files = files
        self._column = column

    def items(self) -> Iterator[Item]:
        """Every row group that has rows; only footers are read.

        Raises UsageError where there are no rows or no images, PermanentError for a damaged file."""
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

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        for item in items:
            if skip < item.images:
                yield from self._images(item, skip)
            skip = max(0, skip - item.images)

    def read(self, key: str) -> bytes:
        """Reads the image column of its row group, up to its row."""
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
            if item.first_row <= row < item.first_row + item.images:
                try:
                    cell, _ = next(self._rows(item, row - item.first_row, described=False))
                except DAMAGED as error:
                    raise BadImage("read", f"its row group cannot be read: {first_line(error)}") from error
                return _encoded(cell)
        raise missing

    def _row_groups(self, file: DataFile) -> list[Item]:
        items, first_row = [], 0
        try:
            with self._opened(file.path, file.etag) as parquet:
                find_columns(parquet.schema_arrow, wanted=self._column, path=file.path)
                groups = [parquet.metadata.row_group(n) for n in range(parquet.num_row_groups)]
        except DAMAGED as error:
            raise PermanentError(
                f"{file.path} cannot be read as Parquet ({first_line(error)}): replace it, or move it away"
            ) from error
        for number, group in enumerate(groups):
            if group.num_rows:
                size = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
                items.append(
                    Item(
                        key=file.path,
                        size=size,
                        etag=file.etag,
                        images=group.num_rows,
                        row_group=number,
                        first_row=first_row,
                    )
                )
            first_row += group.num_rows
        return items

    def _images(self, item: Item, skip: int) -> Iterator[SourceImage]:
        """The images of a row group from its row `skip` on: as many as planned, whatever the file holds."""
        row = skip
        reason = "the file has fewer rows than it had when it was listed"
        try:
            for cell, metadata in self._rows(item, skip):
                if row < item.images:
                    key = f"{item.key}#{item.first_row + row}"
                    yield SourceImage(key, item.etag, metadata, partial(_encoded, cell))
                    row += 1
        except DAMAGED as error:
            reason = f"its row group cannot be read: {first_line(error)}"
        for lost in range(row, item.images):
            yield SourceImage(f"{item.key}#{item.first_row + lost}", item.etag, {}, partial(_refuse, reason))

    def _rows(self, item: Item, skip: int, *, described: bool = True) -> Iterator[tuple[Any, Metadata]]:
        """The image cell and the metadata of each row from `skip` on."""
        with self._opened(item.key, item.etag) as parquet:
            schema = parquet.schema_arrow
            image, others = find_columns(schema, wanted=self._column, path=item.key)
            others = others if described else []
            features = (_features(schema) or self._files.features()) if others else {}
            labels = {name: names for name in others if (names := _class_names(features.get(name)))}
            group = parquet.metadata.row_group(item.row_group)
            mean = max(1, group.total_byte_size // max(1, group.num_rows))
            for batch in parquet.iter_batches(
                batch_size=max(1, min(BATCH_ROWS, BATCH_BYTES // mean)),
                row_groups=[item.row_group],
                columns=[image, *others],
            ):
                wanted = batch.slice(skip)
                skip = max(0, skip - len(batch))
                cells = wanted.column(image)
                for number, metadata in enumerate(_described(wanted.select(others), labels)):
                    yield cells[number].as_py(), metadata

    @contextmanager
    def _opened(self, path: str, etag: str) -> Iterator[pq.ParquetFile]:
        # By default pyarrow fetches the whole row group first.
        with (
            self._files.open(path, etag) as file,
            pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as parquet,
        ):
            yield parquet


def find_columns(schema: pa.Schema, *, wanted: str | None, path: str) -> tuple[str, list[str]]:
    """The column with the images, and those with metadata. Without `wanted`, a column that `datasets` called an
    image goes before a struct with bytes, and that before plain bytes.

    Raises UsageError, naming the columns, where `wanted` holds no images, or where it is None and there is no
    such column or more than one."""
    features = _features(schema)
    structs = [field.name for field in schema if _is_struct(field.type)]
    binaries = [field.name for field in schema if _is_binary(field.type)]
    named = [name for name in structs + binaries if _kind(features.get(name)) == "Image"]
    found = named or structs or binaries
    if wanted is not None:
        if wanted not in structs + binaries:
            raise UsageError(f"{path} has no images in a column {wanted!r}; it has {_list(schema.names)}")
        found = [wanted]
    if not found:
        raise UsageError(f"no column of {path} holds image bytes; it has {_list(schema.names)}")
    if len(found) > 1:
        raise UsageError(f"{path} has several columns with images: name one of {_list(found)} with ?column=")
    return found[0], [name for name in schema.names if name not in structs + binaries]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and any(f.name == "bytes" and _is_binary(f.type) for f in kind)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What `datasets` writes into the footer."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(feature: Any) -> list[str]:
    """Of a class, or of a list of them."""
    if _kind(feature) in ("List", "LargeList", "Sequence"):
        feature = feature.get("feature")
    names = feature.get("names") if _kind(feature) == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _described(batch: pa.RecordBatch, labels: Mapping[str, Sequence[str]]) -> Iterator[Metadata]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(column.type):  # nanoseconds do not fit Python's datetime
            column = column.cast(pa.string())
        columns[name] = column.to_pylist()
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in columns.items()}
        yield plain({name: _label(value, labels.get(name)) for name, value in values.items()})


def _label(value: Any, names: Sequence[str] | None) -> Any:
    """`-1` is what datasets write where a label is not known."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_label(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _encoded(cell: Any) -> bytes:
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and path:
        raise BadImage("read", f"the row has no bytes, only the path {path!r}: write the images into the file")
    if not data:
        raise BadImage("read", "the row has no image")
    return data  # type: ignore[no-any-return]


def _refuse(reason: str) -> bytes:
    raise BadImage("read", reason)


def first_line(error: Exception) -> str:
    return next(filter(None, str(error).splitlines()), type(error).__name__)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def open_pattern(pattern: str, *, column: str | None = None) -> ParquetSource:
    """Parquet files on the disk: a path, or a pattern such as `data/**/*.parquet`."""
    files = LocalFiles(pattern)
    return ParquetSource(with_column(files.pattern, column), files, column=column)


def with_column(pattern: str, column: str | None) -> str:
    return f"{pattern}?column={quote(column)}" if column else pattern


class LocalFiles:
    """Files on the disk that match a pattern. Keys are relative to the folder before the first wildcard, so
    that a file which comes later changes none of them."""

    def __init__(self, pattern: str) -> None:
        self.pattern = os.path.abspath(pattern)

    def files(self) -> list[DataFile]:
        files = []
        for key, path in self._paths.items():
            try:
                about = os.stat(path)
            except OSError as error:
                raise PermanentError(f"{path}: {error.strerror}; correct it, or move it away") from error
            files.append(DataFile(key, about.st_size, f"{about.st_mtime_ns:x}-{about.st_size:x}"))
        return files

    def open(self, path: str, etag: str = "") -> AbstractContextManager[Any]:
        """Only files that match the pattern are there; of a changed one, the version that is there now."""
        if path not in self._paths:
            raise FileNotFoundError(f"no file {path!r} matches {self.pattern}")
        return pa.OSFile(self._paths[path])  # type: ignore[no-any-return]

    def features(self) -> Mapping[str, Any]:
        return {}

    @cached_property
    def _paths(self) -> dict[str, str]:
        if os.path.isfile(self.pattern):
            return {os.path.basename(printable(self.pattern)): self.pattern}
        root = self.pattern
        while glob.has_magic(root):
            root = os.path.dirname(root)
        found = sorted(path for path in glob.glob(self.pattern, recursive=True) if not os.path.isdir(path))
        if not found:
            hint = f"; name the files in it as '{self.pattern}/*.parquet'" if os.path.isdir(self.pattern) else ""
            raise UsageError(f"no file matches {self.pattern}{hint}")
        return {printable(os.path.relpath(path, root)): path for path in found}
