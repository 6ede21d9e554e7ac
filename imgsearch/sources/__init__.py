"""Sources of images: one protocol, so that every source is planned, read and resumed in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Protocol

from imgsearch.sources.uri import parse_source
from imgsearch.sources.values import Metadata


@dataclass(frozen=True)
class Item:
    """One unit of a plan: a file that is one image, or a unit of a file with many images, such as a row group."""

    key: str
    """Path of the file relative to the source, with `/`."""
    size: int
    """In bytes, from the listing; 0 if it is unknown. It balances the shards."""
    etag: str = ""
    """Changes when the content changes: mtime and size, or the hash of an object. An update compares it up to an `@`.
    The part after the `@` selects the version to read (the hub: a commit). Empty for a file that was not listed."""
    unit: int = 0
    """Number of the unit within the file."""
    first: int = 0
    """Number of the unit's first image within the file."""
    images: int = 1
    metadata: Metadata = field(default_factory=dict)
    """Of a file that is one image. A unit of many images has the metadata in its rows."""


@dataclass(frozen=True)
class Content:
    """An image as it was read."""

    data: bytes
    """The encoded image."""
    etag: str
    """Of the version that was read. It is another one than the item's if the image was changed after the listing."""


@dataclass(frozen=True)
class SourceImage:
    """One image of a source. `load` reads it."""

    key: str
    """The id of the image is a hash of it."""
    etag: str
    """Of the item."""
    metadata: Metadata
    load: Callable[[], Content]
    """Raises BadImage("read", …) if the image cannot be read. Any thread may call."""


class Source(Protocol):
    """An open source. It keeps no pixels in memory."""

    @property
    def uri(self) -> str:
        """The URI of the source, with an absolute path. plan.json records it."""

    @property
    def skipped(self) -> Counter[str]:
        """The number of files that `items` has skipped, by reason."""

    def items(self) -> Iterator[Item]:
        """Every item once, in any order, with flat memory. Raises UsageError for a source without images,
        TemporaryError if the source does not answer."""

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        """The metadata in files beside the images (metadata.jsonl), by item key. Call it after `items` has ended. The
        plan joins the two."""

    def image_keys(self, item: Item) -> Iterator[str]:
        """The keys of the item's images, in their order, without I/O."""

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """The images of `items` in their order, without the first `skip`. An item always has `item.images` images: if
        its unit cannot be read, `load` of each image raises BadImage."""

    def read(self, key: str) -> bytes:
        """The encoded bytes of one image by its key. Raises NotFound, or BadImage if the image cannot be read."""


def open_source(uri: str) -> Source:
    """Opens the source with this URI; raises UsageError if the URI is invalid. Nothing is listed or read yet."""
    parsed = parse_source(uri)
    # By name: each source needs its own libraries, and a program installs only those that it uses.
    source: Source = resolve_name(parsed.opener)(parsed)
    return source
