"""The images behind the results: originals from their source, thumbnails from the run folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from urllib.parse import quote

from PIL import Image

from imgsearch.errors import BadImage, PermanentError, UsageError
from imgsearch.layout import RunFolder
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import Record, VectorStore
from searcher.catalog import Catalog, Index
from searcher.problems import Problem
from searcher.threads import Threads

OPEN_SOURCES = 16
"""How many sources stay open; an index has one."""


@dataclass(frozen=True)
class File:
    """An image file for a browser."""

    etag: str
    data: bytes | None
    """None: the client has it."""
    media_type: str = "image/webp"


class Images:
    """Reads image files by the id of their image."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        storage: Storage,
        *,
        open_source: Callable[[str], Source],
        threads: Threads,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._storage = storage
        self._open_source = lru_cache(OPEN_SOURCES)(open_source)
        self._threads = threads

    async def original(self, id: str, *, index: str | None, known: str) -> File:
        """The file as its source has it now; raises Problem 404 where it cannot be had."""
        return await self._catalog.using(index, partial(self._file, self._original, id, known))

    async def thumbnail(self, id: str, *, index: str | None, known: str) -> File:
        """The WebP that was made when the image was indexed. `known`: the client's If-None-Match."""
        return await self._catalog.using(index, partial(self._file, self._thumbnail, id, known))

    async def _file(
        self, read: Callable[[Record, Index], tuple[bytes, str]], id: str, known: str, index: Index
    ) -> File:
        etag = f'"{index.pointer.run}-{quote(id, safe="")}"'
        if etag in known:
            return File(etag, None)
        records = await self._threads.store(self._store.get, index.pointer.collection, [id])
        if not records:
            raise Problem(404, f'index "{index.pointer.index}" has no image with the id {id!r}')
        return File(etag, *await self._threads.files(read, records[0], index))

    def _thumbnail(self, record: Record, index: Index) -> tuple[bytes, str]:
        about = record.metadata
        shard, part = (int(number) for number in about["_thumbs"].split("/"))
        tar = RunFolder(about["_run"]).thumbs(shard, part)
        return self._storage.get_range(tar, about["_offset"], about["_length"]), "image/webp"

    def _original(self, record: Record, index: Index) -> tuple[bytes, str]:
        try:
            data = self._open_source(index.pointer.source).read(record.metadata["_key"])
            return data, _media_type(data)
        except (UsageError, PermanentError, BadImage) as error:
            raise Problem(404, f"the original cannot be had from here, its thumbnail can: {error}") from error


def _media_type(data: bytes) -> str:
    """By the bytes, never by the name: a page called .jpg must not become one of ours."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            media_type = image.get_format_mimetype() or ""
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage("read", "it is no image any more") from error
    if media_type == "image/mpo":  # a camera's JPEG with more pictures behind the first
        return "image/jpeg"
    if not media_type.startswith("image/"):
        raise BadImage("read", f"a browser must not get {media_type or 'an unknown format'}")
    return media_type
