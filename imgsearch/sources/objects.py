"""Objects in a bucket as a source: image files below a prefix, or Parquet files that match a pattern."""

from __future__ import annotations

import glob
import io
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from urllib.parse import unquote

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources.files import IMAGES, MAX_BYTES, File, ImageFiles, count, ending
from imgsearch.sources.parquet import DataFile, ParquetSource, with_column
from imgsearch.storage import Entry, Storage

LINES_BYTES = 2**20
"""How much of a metadata file is asked for at once."""


def open_prefix(uri: str) -> ImageFiles:
    return ImageFiles(Prefix(Storage(uri)))


def open_pattern(pattern: str, *, column: str | None = None) -> ParquetSource:
    """Parquet objects: one, or a pattern such as `s3://bucket/data/**/*.parquet`."""
    root = posixpath.dirname(pattern)
    while glob.has_magic(root):
        root = posixpath.dirname(root)
    files = ObjectFiles(Storage(root), unquote(pattern.removeprefix(root + "/")))
    return ParquetSource(with_column(pattern, column), files, column=column)


class Prefix:
    """Objects below a prefix, as if it were a folder: the `/` in their names makes sub-folders."""

    def __init__(self, storage: Storage) -> None:
        self.uri = storage.uri
        self._storage = storage

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """Size and etag are those of the listing: nothing is asked about a single object."""
        empty, hidden = True, ""
        for entry in self._storage.entries():
            empty = False
            if not entry.size and ending(entry.key) not in IMAGES:  # how consoles keep a folder
                continue
            if not (dark := _hidden(entry.key)):
                yield File(entry.key, f"{self.uri}/{entry.key}", partial(_measure, entry))
            elif dark == entry.key:
                count(skipped, "hidden files")
            elif dark != hidden:  # what is below one prefix comes together
                count(skipped, "hidden folders")
                hidden = dark
        if empty:
            raise UsageError(f"there is nothing below {self.uri}: check the bucket and the prefix")

    def check(self) -> None:
        if next(self._storage.entries(), None) is None:
            raise PermanentError(f"nothing is left below {self.uri}: was it moved?")

    def lines(self, file: File) -> Iterator[bytes]:
        size, _ = file.measure()
        with io.BufferedReader(Reader(self._storage, file.key, size), LINES_BYTES) as lines:
            yield from lines

    def read(self, key: str) -> bytes:
        """A refusal is the fault of the one object only where the others can still be listed."""
        try:
            return self._storage.get(key, limit=MAX_BYTES)
        except NotFound:
            raise
        except PermanentError as error:
            self.check()
            raise BadImage("read", str(error)) from error


class ObjectFiles:
    """Parquet objects that match a pattern. Keys are relative to the prefix before the first wildcard, so that an
    object which comes later changes none of them."""

    def __init__(self, storage: Storage, pattern: str) -> None:
        self._uri = f"{storage.uri}/{pattern}"
        self._storage = storage
        self._pattern = pattern

    def files(self) -> list[DataFile]:
        found = [DataFile(entry.key, entry.size, entry.etag) for entry in self._entries()]
        if not found:
            is_folder = next(self._storage.entries(self._pattern), None) is not None
            hint = f"; name the files in it as '{self._uri}/*.parquet'" if is_folder else ""
            raise UsageError(f"no object matches {self._uri}{hint}")
        return sorted(found, key=lambda file: file.path)

    def open(self, path: str, etag: str = "") -> Reader:
        """Only objects that match the pattern are there; of a changed one, the version that is there now."""
        if path != self._pattern and not matches(path, self._pattern):
            raise NotFound(f"no object {path!r} matches {self._uri}")
        return Reader(self._storage, path, self._storage.entry(path).size)

    def features(self) -> Mapping[str, Any]:
        return {}

    def _entries(self) -> Iterator[Entry]:
        try:
            yield self._storage.entry(self._pattern)  # a name may hold what looks like a wildcard
        except NotFound:
            if glob.has_magic(self._pattern):
                yield from (one for one in self._storage.entries() if matches(one.key, self._pattern))


class Reader(io.RawIOBase):
    """An object as a file. Reads exactly the ranges that are asked for: only the caller knows how far it will read."""

    def __init__(self, storage: Storage, key: str, size: int) -> None:
        self._storage = storage
        self._key = key
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._place)
        if length <= 0:
            return 0
        buffer[:length] = self._storage.get_range(self._key, self._place, length)
        self._place += length
        return length


def matches(key: str, pattern: str) -> bool:
    """As a shell does it: `*` stays in one folder, `**` is any number of them, and neither finds what is hidden."""
    return _match(key.split("/"), pattern.split("/"))


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not names:
        return not patterns and not names
    here = not names[0].startswith(".") or patterns[0].startswith(".")
    if patterns[0] == "**":
        return _match(names, patterns[1:]) or (here and _match(names[1:], patterns))
    return here and fnmatchcase(names[0], patterns[0]) and _match(names[1:], patterns[1:])


def _measure(entry: Entry) -> tuple[int, str]:
    return entry.size, entry.etag


def _hidden(key: str) -> str:
    """The first folder or file on the way to `key` whose name begins with a dot; empty where none does."""
    names = key.split("/")
    dark = next((n for n, name in enumerate(names, 1) if name.startswith(".")), 0)
    return posixpath.join(*names[:dark]) if dark else ""
