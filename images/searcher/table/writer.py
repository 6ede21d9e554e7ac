"""Writes the table of a run while its records stream by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from imgsearch.errors import NotFound
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Table
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Record
from searcher.table.columns import Rows, to_bytes

FILE_ROWS = 20_000
FILE_BYTES = 2**26
"""The most rows of a file, and bytes of their metadata: they are in memory while the file is made."""
ENCODER = json.JSONEncoder(ensure_ascii=False)
FIELDS = 200
"""Fields with columns. Field names that differ in every image would fill the memory and the disk."""


class TableWriter:
    """Writes the files of a table in the order of the records, and `table.json` last. The memory is that of one file.

    A file that an earlier ingest wrote stays if it has the same content: a searcher may have mapped it into memory."""

    def __init__(
        self, storage: Storage, run: str, *, dim: int, file_rows: int = FILE_ROWS, file_bytes: int = FILE_BYTES
    ) -> None:
        self._storage = storage
        self._folder = RunFolder(run)
        self._dim = dim
        self._file_rows = file_rows
        self._file_bytes = file_bytes
        self._pending = Rows()
        self._pending_bytes = 0
        self._rows = 0
        self._files = 0
        self._fields: set[str] = set()
        self._all_fields = True
        self._digests: dict[str, str] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Adds the next records, with their vectors."""
        texts = [ENCODER.encode(record.metadata) for record in records]
        first = 0
        for row, (record, text) in enumerate(zip(records, texts, strict=True)):
            rows = len(self._pending) + row - first
            if rows == self._file_rows or (rows and self._pending_bytes + len(text) > self._file_bytes):
                self._add(records[first:row], texts[first:row])
                self._write_file()
                first = row
            self._pending_bytes += len(text)
            if not record.metadata.keys() <= self._fields:
                self._add_fields(record.metadata)
        self._add(records[first:], texts[first:])

    def _add(self, records: Sequence[Record], texts: Sequence[str]) -> None:
        if records:
            self._pending.add(records, texts)

    def _add_fields(self, metadata: Mapping[str, Any]) -> None:
        for field in metadata:
            if field not in self._fields and len(self._fields) < FIELDS:
                self._fields.add(field)
        self._all_fields = self._all_fields and metadata.keys() <= self._fields

    def finish(self, clusters: pa.RecordBatch | None = None, *, compared: int = 0) -> None:
        """Writes the last file, the `clusters` (clusters.to_batch), and then `table.json`. `compared`: Table.compared;
        0 without clusters."""
        self._write_file()
        if clusters is not None:
            self._write(self._folder.table_clusters, to_bytes(clusters))
        document = Table(
            run=self._folder.run,
            rows=self._rows,
            dim=self._dim,
            files=self._files,
            fields=sorted(self._fields),
            all_fields=self._all_fields,
            digests=self._digests,
            compared=compared,
        )
        self._storage.put(self._folder.table, document.to_json())

    def _write_file(self) -> None:
        if not len(self._pending):
            return
        self._write(self._folder.table_file(self._files), to_bytes(self._pending.batch(self._fields)))
        self._files += 1
        self._rows += len(self._pending)
        self._pending, self._pending_bytes = Rows(), 0

    def _write(self, name: str, data: bytes) -> None:
        written = digest(data)
        if not self._is_there(name, written):
            self._storage.put(name, data)
        self._digests[file_name(name)] = written

    def _is_there(self, name: str, expected: str) -> bool:
        try:
            return self._storage.sha256(name) == expected
        except NotFound:
            return False
