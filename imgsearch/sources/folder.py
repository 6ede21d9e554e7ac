"""A folder on the disk, with all its sub-folders, as a place with image files."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator
from functools import partial

from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.sources import printable
from imgsearch.sources.files import MAX_BYTES, File, ImageFiles, count


def open_folder(path: str) -> ImageFiles:
    return ImageFiles(Folder(path))


class Folder:
    """Files below one folder. Links to files inside it are followed, links to folders are not."""

    def __init__(self, path: str) -> None:
        self.uri = os.path.abspath(path)

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """One folder's entries at a time."""
        if not os.path.isdir(self.uri):
            wrong = "is a file" if os.path.exists(self.uri) else "is not there"
            raise UsageError(f"{self.uri} {wrong}: name the folder that holds the images")
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
                    f"the folder {printable(path)} may not be listed: change its permissions, or move it away"
                ) from error
            except OSError as error:
                raise TemporaryError(f"could not list {printable(path)}: {error.strerror}") from error

    def check(self) -> None:
        if not os.path.isdir(self.uri):
            raise PermanentError(f"the folder {self.uri} is not there: is its volume mounted?")

    def lines(self, file: File) -> Iterator[bytes]:
        if not os.path.isfile(file.path):
            raise UsageError(f"{file.path} is no file, or a link to one that is not there: correct it")
        try:
            with open(file.path, "rb") as lines:
                yield from lines
        except OSError as error:
            raise UsageError(f"{file.path} cannot be read: {error.strerror}") from error

    def read(self, key: str) -> bytes:
        path = os.path.join(self.uri, key)
        try:
            return self._bytes(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
            if os.path.lexists(path):
                raise BadImage("read", "it is a link to a file that is not there") from error
            raise NotFound(f"{self.uri} has no image {key!r}") from error
        except PermissionError as error:
            raise BadImage("read", "it may not be read: change its permissions") from error
        except OSError as error:
            raise BadImage("read", f"the system says: {error.strerror}") from error

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


def _measure(entry: os.DirEntry[str]) -> tuple[int, str]:
    """Of a link that leads nowhere, its own, so that an update sees when that changes."""
    for follow in (True, False):
        try:
            about = entry.stat(follow_symlinks=follow)
        except OSError:
            continue
        return about.st_size, f"{about.st_mtime_ns:x}-{about.st_size:x}"
    return 0, "gone"
