"""Image files in folders within folders as a source, be it a folder of a disk or a prefix of a bucket."""

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
from imgsearch.sources import Item, Metadata, SourceImage, metadata, printable

# fmt: off
IMAGES = {
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jp2",
    "ico", "ppm", "pgm", "pbm", "tga",
}
# fmt: on
MAX_BYTES = 2**30
"""A larger file is refused before it fills the memory; a raw bitmap of the most pixels allowed is smaller."""
MAX_REASONS = 50
"""After so many different endings the rest is counted together: the count must stay small."""
NOT_UTF8 = re.compile(r"\\udc[89a-f][0-9a-f]")
"""How `printable` writes a byte of a file name that is not UTF-8."""


@dataclass(frozen=True)
class File:
    """A file that is not hidden."""

    key: str
    """Path relative to the tree, with `/`."""
    path: str
    """Where it is, as a message names it."""
    measure: Callable[[], tuple[int, str]]
    """Its size and etag; may ask the disk, so only what becomes an item is measured."""


class Tree(Protocol):
    """Where the files are. Any thread may call."""

    @property
    def uri(self) -> str:
        """As given, made absolute."""

    def walk(self, skipped: Counter[str]) -> Iterator[File]:
        """Every file that is not hidden, with flat memory; what is hidden is counted in `skipped`.

        Raises UsageError where there is no such tree, PermanentError where a part of it may not be listed,
        TemporaryError where the place does not answer."""

    def check(self) -> None:
        """Raises where the whole tree is gone or out of reach: that is no fault of its images."""

    def lines(self, file: File) -> Iterator[bytes]:
        """The lines of a metadata file; raises UsageError where it cannot be read."""

    def read(self, key: str) -> bytes:
        """The bytes of the file, at most MAX_BYTES; `key` is the key of an image. Raises NotFound, BadImage."""


class ImageFiles:
    """Image files of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.uri = tree.uri
        self.skipped: Counter[str] = Counter()
        self._tree = tree
        self._described: list[File] = []

    def items(self) -> Iterator[Item]:
        """Every file with an image's ending, whether it can be read or not; `load` finds that out.

        Raises UsageError where there is no image, and what walking the tree raises."""
        self.skipped.clear()
        self._described.clear()
        empty = True
        for file in self._tree.walk(self.skipped):
            kind = ending(file.key)
            if kind in IMAGES:
                empty = False
                size, etag = file.measure()
                yield Item(key=file.key, size=size, etag=etag)
            elif posixpath.basename(file.key) in metadata.NAMES:
                self._described.append(file)
            else:
                count(self.skipped, f".{kind} files" if kind else "files without an ending")
        if empty:
            parquet = f"; its Parquet files are named '{self.uri}/*.parquet'" if self.skipped[".parquet files"] else ""
            raise UsageError(f"{self.uri} holds no image files{parquet}")

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        """Rows of every metadata.jsonl and metadata.csv; their `file_name` is relative to their own folder.

        Raises UsageError, naming file and line, for a row that cannot be read."""
        for file in self._described:
            folder = posixpath.dirname(file.key)
            for name, values in metadata.rows(file.path, self._tree.lines(file)):
                yield posixpath.normpath(posixpath.join(folder, printable(name))), values

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """Raises where the whole tree is gone."""
        self._tree.check()
        for item in islice(items, skip, None):
            yield SourceImage(item.key, item.etag, item.metadata, partial(self._load, item))

    def read(self, key: str) -> bytes:
        """Serves image files inside the tree and nothing else, whatever `key` says."""
        hidden = any(part.startswith(".") for part in key.split("/"))
        if hidden or key.startswith("/") or posixpath.normpath(key) != key or ending(key) not in IMAGES:
            raise NotFound(f"{self.uri} has no image {key!r}")
        data = self._tree.read(key)
        if not data:
            raise BadImage("read", "the file is empty")
        return data

    def _load(self, item: Item) -> bytes:
        if not item.etag:  # no listing had it
            wrong = "there is no such file" if ending(item.key) in IMAGES else "its name has no image's ending"
            raise BadImage("read", f"named in the metadata, but {wrong}")
        try:
            return self.read(item.key)
        except NotFound as error:
            if NOT_UTF8.search(item.key):
                raise BadImage("read", "its name is not UTF-8: rename it") from error
            self._tree.check()
            raise BadImage("read", "the file was there when it was listed, and is gone now") from error


def ending(name: str) -> str:
    return os.path.splitext(name)[1].lower().removeprefix(".")


def count(skipped: Counter[str], reason: str) -> None:
    known = reason in skipped or len(skipped) < MAX_REASONS
    skipped[printable(reason) if known else "other files"] += 1
