"""Where images come from: one protocol, so that every source is planned, read and resumed in the same way."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from imgsearch.errors import UsageError

PARQUET = re.compile(r"(.+\.parquet)(?:\?(.*))?")

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
    """Changes when the content does (mtime and size, an object's hash); an update compares it up to an `@`.
    What follows the `@` says where that content is kept (the hub: a commit)."""
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
        """Metadata kept beside the items (metadata.jsonl), by item key, once all of `items` was listed; joined to
        them by the plan."""

    def images(self, items: Iterable[Item], skip: int = 0) -> Iterator[SourceImage]:
        """The images of `items` in their order, without the first `skip`; exactly `item.images` for an item,
        also where its row group cannot be read (each image's `load` then raises BadImage)."""

    def read(self, key: str) -> bytes:
        """The encoded bytes of one image by its key; raises NotFound, or BadImage where it cannot be read."""


def open_source(uri: str) -> Source:
    """The source behind `uri`; raises UsageError for one of no known kind. Nothing is listed or read yet."""
    if uri.startswith("hf://"):
        from imgsearch.sources.hub import open_dataset

        return open_dataset(uri)
    if re.match(r"(s3|gs|az)://", uri):
        from imgsearch.sources import objects

        if parquet := PARQUET.fullmatch(uri):
            return objects.open_pattern(parquet[1], **options(uri, parquet[2] or "", {"column"}))
        return objects.open_prefix(uri)
    path = unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri
    if not path or re.match(r"[a-z0-9+.-]+://", path):
        raise UsageError(
            f"no source understands {uri!r}; use a folder, a .parquet file or pattern, either of them also in a bucket "
            "(s3://bucket/prefix, gs://…, az://…), or hf://datasets/NAME?split=train"
        )
    if parquet := PARQUET.fullmatch(path):
        from imgsearch.sources.parquet import open_pattern

        return open_pattern(parquet[1], **options(uri, parquet[2] or "", {"column"}))
    from imgsearch.sources.folder import open_folder

    return open_folder(path)


def options(uri: str, query: str, known: set[str]) -> dict[str, str]:
    """What a URI says behind its `?`; raises UsageError for a name that is not in `known`."""
    found = dict(parse_qsl(query, keep_blank_values=True))
    if wrong := sorted(found.keys() - known):
        raise UsageError(f"{uri} has the unknown option {wrong[0]!r}; known are {', '.join(sorted(known))}")
    return {name: value for name, value in found.items() if value}


def printable(text: str) -> str:
    """`text` as valid Unicode: what is none, such as a byte of a file name that is not UTF-8, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Any values as Metadata. None, NaN, bytes and empty lists say nothing, so they are left out."""
    return {printable(name): value for name, raw in values.items() if (value := _plain(raw)) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(one, str | int | float | None) for one in value):
        flat = [kept for one in value if (kept := _scalar(one)) is not None]
        kinds = {type(one) for one in flat}
        if len(kinds) < 2:
            return flat or None
        if kinds == {int, float}:
            return [float(one) for one in flat]
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _scalar(float(str(value)))  # stores hold 64 bits
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, bytes) else printable(str(value))
