"""A folder of image files, with all its sub-folders, as a source."""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.sources import Item, Metadata, SourceImage, plain, printable

# fmt: off
IMAGES = {
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jp2",
    "ico", "ppm", "pgm", "pbm", "tga",
}
# fmt: on
METADATA = ("metadata.jsonl", "metadata.csv")
MAX_BYTES = 2**30
"""A larger file is refused before it fills the memory; a raw bitmap of the most pixels allowed is smaller."""
MAX_REASONS = 50
"""After so many different endings the rest is counted together: the count must stay small."""
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""No leading zeros: 00501 is a zip code. No nan or inf: they are words. No more digits than 64 bits hold."""
NOT_UTF8 = re.compile(r"\\udc[89a-f][0-9a-f]")
"""How `printable` writes a byte of a file name that is not UTF-8."""


class Folder:
    """Image files below one folder. Links to files inside it are followed, links to folders are not."""

    def __init__(self, path: str) -> None:
        self.uri = os.path.abspath(path)
        self.skipped: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        """Every file with an image's ending, whether it can be read or not; `load` finds that out.

        Raises UsageError where there is no folder or no image in it, PermanentError for a sub-folder that may
        not be listed, TemporaryError where the disk fails."""
        if not os.path.isdir(self.uri):
            wrong = "is a file" if os.path.exists(self.uri) else "is not there"
            raise UsageError(f"{self.uri} {wrong}: name the folder that holds the images")
        self.skipped.clear()
        empty = True
        for folder, entry in self._walk(self.skipped):
            if ending(entry.name) in IMAGES:
                empty = False
                size, etag = _measure(entry)
                yield Item(key=posixpath.join(folder, printable(entry.name)), size=size, etag=etag)
            elif entry.name not in METADATA:
                kind = ending(entry.name)
                _count(self.skipped, f".{printable(kind)} files" if kind else "files without an ending")
        if empty:
            parquet = f"; its Parquet files are named '{self.uri}/*.parquet'" if self.skipped[".parquet files"] else ""
            raise UsageError(f"{self.uri} holds no image files{parquet}")

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        """Rows of every metadata.jsonl and metadata.csv; their `file_name` is relative to their own folder.

        Raises UsageError, naming file and line, for a row that cannot be read."""
        for folder, entry in self._walk(Counter()):
            if entry.name in METADATA:
                rows = _json_rows if entry.name == "metadata.jsonl" else _csv_rows
                for name, values in rows(entry.path):
                    yield posixpath.normpath(posixpath.join(folder, printable(name))), values

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """Raises PermanentError where the whole folder is gone: that is no fault of its images."""
        if not os.path.isdir(self.uri):
            raise PermanentError(f"the folder {self.uri} is not there: is its volume mounted?")
        for item in islice(items, skip, None):
            yield SourceImage(item.key, item.etag, item.metadata, partial(self._load, item))

    def read(self, key: str) -> bytes:
        """Serves image files inside the folder and nothing else, whatever `key` says."""
        hidden = any(part.startswith(".") for part in key.split("/"))
        if hidden or key.startswith("/") or posixpath.normpath(key) != key or ending(key) not in IMAGES:
            raise NotFound(f"{self.uri} has no image {key!r}")
        path = os.path.join(self.uri, key)
        try:
            data = self._bytes(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
            if os.path.lexists(path):
                raise BadImage("read", "it is a link to a file that is not there") from error
            raise NotFound(f"{self.uri} has no image {key!r}") from error
        except PermissionError as error:
            raise BadImage("read", "it may not be read: change its permissions") from error
        except OSError as error:
            raise BadImage("read", f"the system says: {error.strerror}") from error
        if not data:
            raise BadImage("read", "the file is empty")
        return data

    def _load(self, item: Item) -> bytes:
        try:
            return self.read(item.key)
        except NotFound as error:
            raise BadImage("read", _why_missing(item)) from error

    def _bytes(self, path: str) -> bytes:
        real = os.path.realpath(path, strict=True)
        if not real.startswith(os.path.join(os.path.realpath(self.uri), "")):
            raise BadImage("read", "it is a link that leads out of the folder")
        about = os.stat(real)
        if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait for ever
            raise BadImage("read", "it is no regular file")
        if about.st_size > MAX_BYTES:
            raise BadImage("read", f"the file has more than {MAX_BYTES} bytes")
        with open(real, "rb") as file:
            return file.read()

    def _walk(self, skipped: Counter[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Every file that is not hidden, with the key of its folder; one folder's entries at a time."""
        folders = [("", self.uri)]
        while folders:
            key, path = folders.pop()
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        is_folder = entry.is_dir(follow_symlinks=False)
                        if entry.name.startswith("."):
                            _count(skipped, "hidden folders" if is_folder else "hidden files")
                        elif is_folder:
                            folders.append((posixpath.join(key, printable(entry.name)), entry.path))
                        elif entry.is_symlink() and os.path.isdir(entry.path):
                            _count(skipped, "links to folders")
                        else:
                            yield key, entry
            except PermissionError as error:
                raise PermanentError(
                    f"the folder {printable(path)} may not be listed: change its permissions, or move it away"
                ) from error
            except OSError as error:
                raise TemporaryError(f"could not list {printable(path)}: {error.strerror}") from error


def ending(name: str) -> str:
    return os.path.splitext(name)[1].lower().removeprefix(".")


def _count(skipped: Counter[str], reason: str) -> None:
    known = reason in skipped or len(skipped) < MAX_REASONS
    skipped[reason if known else "other files"] += 1


def _measure(entry: os.DirEntry[str]) -> tuple[int, str]:
    """Size and etag; of a link that leads nowhere, its own, so that an update sees when that changes."""
    for follow in (True, False):
        try:
            about = entry.stat(follow_symlinks=follow)
        except OSError:
            continue
        return about.st_size, f"{about.st_mtime_ns:x}-{about.st_size:x}"
    return 0, "gone"


def _why_missing(item: Item) -> str:
    if NOT_UTF8.search(item.key):
        return "its name is not UTF-8: rename it"
    if item.etag:
        return "the file was there when the folder was listed, and is gone now"
    if ending(item.key) not in IMAGES:
        return "named in the metadata, but its name has no image's ending"
    return "named in the metadata, but there is no such file"


def _json_rows(path: str) -> Iterator[tuple[str, Metadata]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            values = plain(row) if isinstance(row, dict) else None
        except (ValueError, RecursionError) as error:
            raise _bad_line(path, number, f"is not JSON ({error})") from error
        if values is None:
            raise _bad_line(path, number, "is not a JSON object")
        yield _file_name(path, number, values), values


def _csv_rows(path: str) -> Iterator[tuple[str, Metadata]]:
    rows = csv.DictReader(_lines(path), strict=True)
    try:
        for row in rows:
            if None in row or None in row.values():
                raise _bad_line(path, rows.line_num, "has not as many values as the first line has names")
            name = _file_name(path, rows.line_num, row)
            yield name, plain({column: _parse(value) for column, value in row.items()})
    except csv.Error as error:
        raise _bad_line(path, rows.reader.line_num, f"is not CSV ({error})") from error


def _lines(path: str) -> Iterator[str]:
    if not os.path.isfile(path):
        raise UsageError(f"{path} is no file, or a link to one that is not there: correct it")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _bad_line(path, number, "is not UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _file_name(path: str, number: int, row: dict[str, Any]) -> str:
    name = row.pop("file_name", None)
    if not isinstance(name, str) or not name:
        raise _bad_line(path, number, "names no image in `file_name`")
    return name


def _parse(value: str) -> str | int | float | None:
    if number := NUMBER.fullmatch(value):
        return float(value) if number[2] or number[3] else int(value)
    return value or None


def _bad_line(path: str, number: int, wrong: str) -> UsageError:
    return UsageError(f"{path}, line {number}, {wrong}: correct it")
