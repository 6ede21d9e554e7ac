"""Writes the table of a run while its records stream by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imgsearch.errors import NotFound
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Table
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Record
from searcher.table import columns

FILE_ROWS = 20_000
FILE_BYTES = 2**26
"""The most rows of a file, and bytes of their metadata: they are in memory while the file is made."""
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
        self._records: list[Record] = []
        self._metadata: list[str] = []
        self._bytes = 0
        self._rows = 0
        self._fields: set[str] = set()
        self._all_fields = True
        self._digests: dict[str, str] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Adds the next records, with their vectors."""
        for record in records:
            text = json.dumps(record.metadata, ensure_ascii=False)
            if len(self._records) == self._file_rows or self._bytes + len(text) > self._file_bytes:
                self._write_file()
            # As float16, as the table has it. The vector itself is a view, which would keep the whole part in memory.
            self._records.append(replace(record, vector=np.asarray(record.vector, np.float16)))
            self._metadata.append(text)
            self._bytes += len(text)
            for field in record.metadata:
                if field not in self._fields:
                    if len(self._fields) < FIELDS:
                        self._fields.add(field)
                    else:
                        self._all_fields = False

    def finish(self) -> None:
        """Writes the last file, and then `table.json`."""
        self._write_file()
        document = Table(
            run=self._folder.run,
            rows=self._rows,
            dim=self._dim,
            files=len(self._digests),
            fields=sorted(self._fields),
            all_fields=self._all_fields,
            digests=self._digests,
        )
        self._storage.put(self._folder.table, document.to_json())

    def _write_file(self) -> None:
        if not self._records:
            return
        data = columns.to_bytes(columns.batch(self._records, self._metadata, self._fields))
        name = self._folder.table_file(len(self._digests))
        written = digest(data)
        if not self._is_there(name, written):
            self._storage.put(name, data)
        self._digests[file_name(name)] = written
        self._rows += len(self._records)
        self._records, self._metadata, self._bytes = [], [], 0

    def _is_there(self, name: str, expected: str) -> bool:
        try:
            return self._storage.sha256(name) == expected
        except NotFound:
            return False
