"""Image files as a source: below a folder of a disk, or below a prefix of a bucket."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

from imgsearch.errors import BadImage, NotFound, UsageError
from imgsearch.sources import Content, Item, SourceImage, metadata
from imgsearch.sources.values import Metadata, printable

# fmt: off
IMAGES = {
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jp2",
    "ico", "ppm", "pgm", "pbm", "tga",
}
# fmt: on
"""File extensions of images."""
MAX_BYTES = 2**30
"""A larger file is refused before it fills the memory; a raw bitmap with the most pixels allowed is smaller."""
MAX_REASONS = 50
"""Reasons that are counted separately. The other files are counted together, so that the counts stay small."""
NOT_UTF8 = re.compile(r"\\udc[89a-f][0-9a-f]")
"""A byte of a file name that is not UTF-8, as `printable` escapes it."""


@dataclass(frozen=True)
class File:
    """A file that is not hidden."""

    key: str
    """Path relative to the tree, with `/`."""
    path: str
    """Full path, for messages."""
    measure: Callable[[], tuple[int, str]]
    """Returns the size and the etag. It may read the disk, so it is called for images only."""


class Tree(Protocol):
    """The files of a folder or a prefix. Any thread may call."""

    @property
    def uri(self) -> str:
        """The URI that the tree was opened with, with an absolute path."""

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """Every file that is not hidden, with flat memory; counts hidden files and folders in `skipped`.

        Raises UsageError if the tree does not exist, PermanentError if a part of it may not be listed,
        TemporaryError if it does not answer."""

    def check(self) -> None:
        """Raises an error if the whole tree does not exist or does not answer: then its images are not bad."""

    def lines(self, file: File) -> Iterator[bytes]:
        """The lines of a metadata file; raises UsageError if it cannot be read."""

    def read(self, key: str) -> Content:
        """The file, at most MAX_BYTES of it, with the etag of the bytes that were read; `key` is the key of an image.
        Raises NotFound, BadImage."""


class ImageFiles:
    """Image files of a tree. An item is one file, and its key is the image's key."""

    def __init__(self, tree: Tree) -> None:
        self.uri = tree.uri
        self.skipped: Counter[str] = Counter()
        self._tree = tree
        self._metadata_files: list[File] = []

    def items(self) -> Iterator[Item]:
        """Every file with the extension of an image. Nothing is read.

        Raises UsageError if there is no image, and the errors of `Tree.walk`."""
        self.skipped.clear()
        self._metadata_files.clear()
        empty = True
        for file in self._tree.walk(self.skipped):
            suffix = extension(file.key)
            if suffix in IMAGES:
                empty = False
                size, etag = file.measure()
                yield Item(key=file.key, size=size, etag=etag)
            elif posixpath.basename(file.key) in metadata.NAMES:
                self._metadata_files.append(file)
            else:
                count(self.skipped, f".{suffix} files" if suffix else "files without an extension")
        if empty:
            parquet = f"; its Parquet files are named '{self.uri}/*.parquet'" if self.skipped[".parquet files"] else ""
            raise UsageError(f"{self.uri} holds no image files{parquet}")

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        """Rows of every metadata.jsonl and metadata.csv; their `file_name` is relative to the file's own folder.

        Raises UsageError, with the file and line, for a row that cannot be read."""
        for file in self._metadata_files:
            folder = posixpath.dirname(file.key)
            for name, values in metadata.rows(file.path, self._tree.lines(file)):
                yield posixpath.normpath(posixpath.join(folder, printable(name))), values

    def image_keys(self, item: Item) -> Iterator[str]:
        yield item.key

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """Raises an error if the whole tree does not exist."""
        self._tree.check()
        for item in islice(items, skip, None):
            yield SourceImage(item.key, item.etag, item.metadata, partial(self._load, item))

    def read(self, key: str) -> bytes:
        """Reads only image files inside the tree, for any `key`."""
        data = self._read(key).data
        if not data:
            raise BadImage("read", "the file is empty")
        return data

    def _read(self, key: str) -> Content:
        hidden = any(part.startswith(".") for part in key.split("/"))
        if hidden or key.startswith("/") or posixpath.normpath(key) != key or extension(key) not in IMAGES:
            raise NotFound(f"{self.uri} has no image {key!r}")
        return self._tree.read(key)

    def _load(self, item: Item) -> Content:
        if not item.etag:  # it was not listed
            problem = "the file does not exist" if extension(item.key) in IMAGES else "its name has no image extension"
            raise BadImage("read", f"named in the metadata, but {problem}")
        try:
            content = self._read(item.key)
        except NotFound as error:
            if NOT_UTF8.search(item.key):
                raise BadImage("read", "its name is not UTF-8: rename it") from error
            self._tree.check()
            raise BadImage("read", "the file was deleted after it was listed", changed=True) from error
        if not content.data:  # perhaps while somebody writes it
            raise BadImage("read", "the file is empty", changed=content.etag != item.etag)
        return content


def extension(name: str) -> str:
    """The extension of a file name, in lower case and without the dot."""
    return os.path.splitext(name)[1].lower().removeprefix(".")


def count(skipped: Counter[str], reason: str) -> None:
    """Counts one more file that is skipped for `reason`."""
    known = reason in skipped or len(skipped) < MAX_REASONS
    skipped[printable(reason) if known else "other files"] += 1
