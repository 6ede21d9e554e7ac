"""The grammar of source URIs: one class for each kind of source. It imports no library, for the controller.

A new source needs a class here, in KINDS, and a module with the function that its `opener` names.
"""

from __future__ import annotations

import glob
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Self
from urllib.parse import parse_qsl, unquote

from imgsearch.errors import UsageError

HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:\?(.*))?")
BUCKET = re.compile(r"(s3|gs|az)://")
PARQUET = re.compile(r"(.+\.parquet)(?:\?(.*))?")
SCHEME = re.compile(r"[a-z0-9+.-]+://")


@dataclass(frozen=True)
class SourceUri(ABC):
    """A valid URI of one kind of source."""

    text: str
    """The URI of the user."""

    opener: ClassVar[str]
    """The function that makes a Source of this URI, as `module:function`."""

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self | None:
        """Returns None if `text` is a URI of another kind. Raises UsageError for an invalid URI of this kind."""

    @property
    @abstractmethod
    def image_prefix(self) -> str:
        """The URI of an image of this source, up to the image's key."""

    @property
    def path(self) -> str | None:
        """The path or pattern of the shell that the user gave; None if the user gave a URI."""
        return None

    def with_path(self, path: str) -> str:
        """The same URI with another path; the same URI if the user gave no path."""
        return self.text


@dataclass(frozen=True)
class HubDataset(SourceUri):
    """`hf://datasets/OWNER/NAME?split=train`, with `column`, `config` and `revision` where they are needed."""

    name: str
    split: str | None = None
    column: str | None = None
    config: str | None = None
    revision: str | None = None

    opener: ClassVar[str] = "imgsearch.sources.hub:open_dataset"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        if not text.startswith("hf://"):
            return None
        match = HUB.fullmatch(text)
        if not match:
            raise UsageError(f"invalid dataset {text!r}: use hf://datasets/OWNER/NAME?split=train")
        return cls(text, match[1], **_options(text, match[2], ("split", "column", "config", "revision")))

    @property
    def image_prefix(self) -> str:
        return _folder(self.text.partition("?")[0])


@dataclass(frozen=True)
class Parquet(SourceUri):
    """A Parquet file, or a pattern of Parquet files, and the column with the images."""

    pattern: str
    column: str | None = None

    @property
    def image_prefix(self) -> str:
        return _folder(self.root)

    @property
    def root(self) -> str:
        """Keys are relative to this folder."""
        return folder_before_wildcard(self.pattern)

    def with_path(self, path: str) -> str:
        return path + self.text.removeprefix(self.pattern)


@dataclass(frozen=True)
class BucketParquet(Parquet):
    """`s3://bucket/data/**/*.parquet` (`gs://`, `az://`), with `?column=` where it is needed."""

    opener: ClassVar[str] = "imgsearch.sources.objects:open_parquet"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = PARQUET.fullmatch(text)
        return cls(text, match[1], **_options(text, match[2], ("column",))) if match and BUCKET.match(text) else None


@dataclass(frozen=True)
class BucketPrefix(SourceUri):
    """`s3://bucket/prefix` (`gs://`, `az://`)."""

    opener: ClassVar[str] = "imgsearch.sources.objects:open_prefix"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        return cls(text) if BUCKET.match(text) else None

    @property
    def image_prefix(self) -> str:
        return _folder(self.text)


@dataclass(frozen=True)
class DiskParquet(Parquet):
    """`data/**/*.parquet`, also as `file://` URI, with `?column=` where it is needed."""

    opener: ClassVar[str] = "imgsearch.sources.folder:open_parquet"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = PARQUET.fullmatch(_disk_path(text))
        return cls(text, match[1], **_options(text, match[2], ("column",))) if match else None

    @property
    def path(self) -> str | None:
        return None if SCHEME.match(self.text) else self.pattern


@dataclass(frozen=True)
class DiskFolder(SourceUri):
    """`photos`, also as `file://` URI."""

    folder: str

    opener: ClassVar[str] = "imgsearch.sources.folder:open_folder"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        folder = _disk_path(text)
        return cls(text, folder) if folder else None

    @property
    def image_prefix(self) -> str:
        return _folder(self.text)

    @property
    def path(self) -> str | None:
        return None if SCHEME.match(self.text) else self.folder

    def with_path(self, path: str) -> str:
        return path


KINDS: tuple[type[SourceUri], ...] = (HubDataset, BucketParquet, BucketPrefix, DiskParquet, DiskFolder)
"""The kinds, in the order in which `parse_source` tries them."""


def parse_source(text: str) -> SourceUri:
    """The parsed URI of a source; raises UsageError if it is invalid. Nothing is opened."""
    for kind in KINDS:
        if uri := kind.parse(text):
            return uri
    raise UsageError(
        f"invalid source {text!r}: use a folder, a .parquet file or pattern, either of them also in a bucket "
        "(s3://bucket/prefix, gs://…, az://…), or hf://datasets/OWNER/NAME?split=train"
    )


def folder_before_wildcard(pattern: str) -> str:
    """The folder that contains all possible matches of `pattern`. It does not depend on the existing files."""
    folder = posixpath.dirname(pattern)
    while glob.has_magic(folder):
        folder = posixpath.dirname(folder)
    return folder


def _options(text: str, query: str | None, known: Collection[str]) -> dict[str, str]:
    """The options after the `?`; raises UsageError for a name that is not in `known`."""
    options = dict(parse_qsl(query or "", keep_blank_values=True))
    if unknown := sorted(options.keys() - set(known)):
        raise UsageError(f"{text} has the unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return {name: value for name, value in options.items() if value}


def _disk_path(text: str) -> str:
    """The path of a `file://` URI or of a plain path; empty for a URI with another scheme."""
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://"))
    return "" if SCHEME.match(text) else text


def _folder(uri: str) -> str:
    return f"{uri.rstrip('/')}/"
