"""Objects in a bucket as a source: image files below a prefix, or Parquet files that match a pattern."""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from wcmatch.glob import GLOBSTAR, globmatch

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources import Content
from imgsearch.sources.files import IMAGES, MAX_BYTES, File, ImageFiles, count, extension
from imgsearch.sources.parquet import DataFile, ParquetSource
from imgsearch.sources.uri import BucketParquet, BucketPrefix
from imgsearch.storage import Entry, Storage

LINES_BYTES = 2**20
"""Bytes of a metadata file that are read at once."""


def open_prefix(uri: BucketPrefix) -> ImageFiles:
    return ImageFiles(Prefix(Storage(uri.text)))


def open_parquet(uri: BucketParquet) -> ParquetSource:
    files = ObjectFiles(Storage(uri.root), unquote(uri.pattern.removeprefix(f"{uri.root}/")))
    return ParquetSource(uri.with_path(uri.pattern), files, column=uri.column)


class Prefix:
    """Objects below a prefix, as a tree: `/` in their names separates folders."""

    def __init__(self, storage: Storage) -> None:
        self.uri = storage.uri
        self._storage = storage

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """Size and etag come from the listing, without a request for each object."""
        empty, folder = True, ""
        for entry in self._storage.entries():
            empty = False
            if not entry.size and extension(entry.key) not in IMAGES:  # a web console's mark of a folder
                continue
            if not (path := _hidden_path(entry.key)):
                yield File(entry.key, f"{self.uri}/{entry.key}", partial(_measure, entry))
            elif path == entry.key:
                count(skipped, "hidden files")
            elif path != folder:  # the objects of one folder follow each other
                count(skipped, "hidden folders")
                folder = path
        if empty:
            raise UsageError(f"{self.uri} has no objects: check the bucket and the prefix")

    def check(self) -> None:
        if next(self._storage.entries(), None) is None:
            raise PermanentError(f"{self.uri} has no objects any more: check whether they were moved")

    def lines(self, file: File) -> Iterator[bytes]:
        size, _ = file.measure()
        with io.BufferedReader(Reader(self._storage, file.key, size), LINES_BYTES) as lines:
            yield from lines

    def read(self, key: str) -> Content:
        """An object without permission is a bad image only if the other objects can still be listed."""
        try:
            data, entry = self._storage.get_with_entry(key, limit=MAX_BYTES)
            return Content(data, entry.etag)
        except NotFound:
            raise
        except PermanentError as error:
            self.check()
            raise BadImage("read", str(error)) from error


class ObjectFiles:
    """Parquet objects that match a pattern such as `data/**/*.parquet`, or the one object of that name."""

    def __init__(self, storage: Storage, pattern: str) -> None:
        self._uri = f"{storage.uri}/{pattern}"
        self._storage = storage
        self._pattern = pattern

    def files(self) -> list[DataFile]:
        files = [DataFile(entry.key, entry.size, entry.etag) for entry in self._entries()]
        if not files:
            is_folder = next(self._storage.entries(self._pattern), None) is not None
            hint = f"; name the files in it as '{self._uri}/*.parquet'" if is_folder else ""
            raise UsageError(f"no object matches {self._uri}{hint}")
        return sorted(files, key=lambda file: file.path)

    def open(self, path: str, etag: str = "") -> tuple[Reader, str]:
        """Opens only objects that match the pattern. A changed object is read as it is now."""
        if path != self._pattern and not matches(path, self._pattern):
            raise NotFound(f"no object {path!r} matches {self._uri}")
        entry = self._storage.entry(path)
        return Reader(self._storage, path, entry.size), entry.etag

    def features(self) -> Mapping[str, Any]:
        return {}

    def _entries(self) -> Iterator[Entry]:
        try:
            yield self._storage.entry(self._pattern)  # a name may contain what looks like a wildcard
        except NotFound:
            if glob.has_magic(self._pattern):
                yield from (entry for entry in self._storage.entries() if matches(entry.key, self._pattern))


class Reader(io.RawIOBase):
    """An object as a file, without read-ahead: the callers read exactly the ranges that they need."""

    def __init__(self, storage: Storage, key: str, size: int) -> None:
        self._storage = storage
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        buffer[:length] = self._storage.get_range(self._key, self._position, length)
        self._position += length
        return length


def matches(key: str, pattern: str) -> bool:
    """Matches as on a disk: `*` stays within one folder, `**` is any number of folders, and both skip hidden files."""
    # wcmatch has more syntax than Python's glob: escapes, `[^…]` and `[[:…:]]`.
    escaped = re.sub(r"\[(!?)([\^\[])", r"[\1\\\2", pattern.replace("\\", r"\\"))
    return bool(globmatch(key, escaped, flags=GLOBSTAR))


def _measure(entry: Entry) -> tuple[int, str]:
    return entry.size, entry.etag


def _hidden_path(key: str) -> str:
    """The path of the first hidden folder or file in `key`; empty if nothing in it is hidden."""
    names = key.split("/")
    depth = next((n for n, name in enumerate(names, 1) if name.startswith(".")), 0)
    return posixpath.join(*names[:depth]) if depth else ""
