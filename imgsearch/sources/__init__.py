"""Where images come from: one protocol, so that every source is planned, read and resumed in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Metadata = Mapping[str, Any]
"""Values are str, int, float, bool or a list of one of those; what else a source has is turned into str."""


@dataclass(frozen=True)
class Item:
    """What a plan is made of: one file with one image, or one row group with many."""

    key: str
    """Path relative to the source, with `/`; what the image's id is computed from."""
    size: int
    """Bytes, as far as the listing knows; balances the shards."""
    etag: str = ""
    """Changes when the content does (mtime and size, an object's etag, a revision); an update compares it."""
    images: int = 1
    row_group: int = -1
    """Parquet: which row group of the file `key`; -1 for an image file."""
    first_row: int = 0
    """Parquet: number in the file of the row group's first row; an image's key is `key#row`."""
    metadata: Metadata = field(default_factory=dict)
    """Of an image file. A row group's metadata is in its rows, read with the pixels."""


@dataclass(frozen=True)
class SourceImage:
    """One image on its way into the embedder, not read yet where reading costs I/O."""

    key: str
    etag: str
    metadata: Metadata
    load: Callable[[], bytes]
    """The encoded bytes; raises BadImage("read", …) where they cannot be had. Called from any thread."""


class Source(Protocol):
    """A place with images. Opened by `open_source`; holds no pixels."""

    @property
    def uri(self) -> str:
        """As given, made absolute: what plan.json records."""

    @property
    def skipped(self) -> Counter[str]:
        """What `items` passed over so far, by a short reason."""

    def items(self) -> Iterator[Item]:
        """Every item once, in no particular order, with flat memory; raises UsageError where there is nothing
        to list, TemporaryError where the place does not answer."""

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        """Metadata kept beside the items (metadata.jsonl), by item key; joined to them by the plan."""

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """The images of `items` in their order, without the first `skip`; exactly `item.images` an item, a row
        group that cannot be read included (each image's `load` then raises BadImage)."""

    def read(self, key: str) -> bytes:
        """The encoded bytes of one image by its key; raises NotFound, or BadImage where it cannot be read."""
