"""Files on the disk as a source: image files in a folder, or Parquet files that match a pattern."""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.sources import Content
from imgsearch.sources.files import MAX_BYTES, File, ImageFiles, count
from imgsearch.sources.parquet import DataFile, ParquetSource
from imgsearch.sources.uri import DiskFolder, DiskParquet, folder_before_wildcard
from imgsearch.sources.values import printable


def open_folder(uri: DiskFolder) -> ImageFiles:
    return ImageFiles(Folder(uri.folder))


def open_parquet(uri: DiskParquet) -> ParquetSource:
    pattern = os.path.abspath(uri.pattern)
    return ParquetSource(uri.with_path(pattern), LocalFiles(pattern), column=uri.column)


class Folder:
    """Files below one folder. Links to files inside it are followed, links to folders are not."""

    def __init__(self, path: str) -> None:
        self.uri = os.path.abspath(path)

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """Holds one folder's entries at a time."""
        if not os.path.isdir(self.uri):
            problem = "is a file" if os.path.exists(self.uri) else "does not exist"
            raise UsageError(f"{self.uri} {problem}: name the folder that contains the images")
        folders = [("", self.uri)]
        while folders:
            key, path = folders.pop()
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        inner = posixpath.join(key, printable(entry.name))
                        is_folder = entry.is_dir(follow_symlinks=False)
                        if entry.name.startswith("."):
                            count(skipped, "hidden folders" if is_folder else "hidden files")
                        elif is_folder:
                            folders.append((inner, entry.path))
                        elif entry.is_symlink() and os.path.isdir(entry.path):
                            count(skipped, "links to folders")
                        else:
                            yield File(inner, entry.path, partial(_measure, entry))
            except PermissionError as error:
                raise PermanentError(
                    f"no permission to list the folder {printable(path)}: change its permissions, or move it away"
                ) from error
            except OSError as error:
                raise TemporaryError(f"could not list {printable(path)}: {error.strerror}") from error

    def check(self) -> None:
        if not os.path.isdir(self.uri):
            raise PermanentError(f"the folder {self.uri} does not exist: is its volume mounted?")

    def lines(self, file: File) -> Iterator[bytes]:
        if not os.path.isfile(file.path):
            raise UsageError(f"{file.path} is not a file, or is a broken link: correct it")
        try:
            with open(file.path, "rb") as lines:
                yield from lines
        except OSError as error:
            raise UsageError(f"{file.path} cannot be read: {error.strerror}") from error

    def read(self, key: str) -> Content:
        path = os.path.join(self.uri, key)
        try:
            return self._content(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
            if os.path.lexists(path):
                raise BadImage("read", "the file is a broken link") from error
            raise NotFound(f"{self.uri} has no image {key!r}") from error
        except PermissionError as error:
            raise BadImage("read", "no permission to read the file: change its permissions") from error
        except OSError as error:
            raise BadImage("read", f"reading failed: {error.strerror}") from error

    def _content(self, path: str) -> Content:
        real = os.path.realpath(path, strict=True)
        if not real.startswith(os.path.join(os.path.realpath(self.uri), "")):
            raise BadImage("read", "it is a link that leads out of the folder")
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe blocks
            raise BadImage("read", "not a regular file")
        if status.st_size > MAX_BYTES:
            raise BadImage("read", f"the file has more than {MAX_BYTES} bytes")
        with open(real, "rb") as file:
            etag = _etag(os.fstat(file.fileno()))  # of the open file: another one may have its name by now
            data = file.read()
            if _etag(os.fstat(file.fileno())) != etag:
                raise BadImage("read", "the file was changed while it was read", changed=True)
        return Content(data, etag)


class LocalFiles:
    """Parquet files that match a pattern such as `data/**/*.parquet`, or the one file of that name."""

    def __init__(self, pattern: str) -> None:
        self._pattern = os.path.abspath(pattern)

    def files(self) -> list[DataFile]:
        files = []
        for key, path in self._paths.items():
            try:
                status = os.stat(path)
            except OSError as error:
                raise PermanentError(f"{path}: {error.strerror}; correct it, or move it away") from error
            files.append(DataFile(key, status.st_size, _etag(status)))
        return files

    def open(self, path: str, etag: str = "") -> tuple[AbstractContextManager[Any], str]:
        """Opens only files that match the pattern. A changed file is read as it is now."""
        if path not in self._paths:
            raise FileNotFoundError(f"no file {path!r} matches {self._pattern}")
        file = pa.OSFile(self._paths[path])
        # After the file was opened: if another one has its name by then, the images of the file count as changed.
        return file, _etag(os.stat(self._paths[path]))

    def features(self) -> Mapping[str, Any]:
        return {}

    @cached_property
    def _paths(self) -> dict[str, str]:
        """The matching files, by their path relative to the folder before the first wildcard."""
        if os.path.isfile(self._pattern):  # a name may contain what looks like a wildcard
            return {os.path.basename(printable(self._pattern)): self._pattern}
        paths = sorted(path for path in glob.glob(self._pattern, recursive=True) if not os.path.isdir(path))
        if not paths:
            hint = f"; name the files in it as '{self._pattern}/*.parquet'" if os.path.isdir(self._pattern) else ""
            raise UsageError(f"no file matches {self._pattern}{hint}")
        root = folder_before_wildcard(self._pattern)
        return {printable(os.path.relpath(path, root)): path for path in paths}


def _measure(entry: os.DirEntry[str]) -> tuple[int, str]:
    """The size and the etag. For a broken link, those of the link itself: an update must notice when it changes."""
    for follow in (True, False):
        try:
            status = entry.stat(follow_symlinks=follow)
        except OSError:
            continue
        return status.st_size, _etag(status)
    return 0, "gone"


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
