"""The images behind the results: originals from their source, thumbnails from the run folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache, partial
from time import perf_counter
from urllib.parse import quote

from PIL import Image

from imgsearch.errors import BadImage, PermanentError, UsageError
from imgsearch.runs.layout import image_id
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import Record, VectorStore
from imgsearch.stores.records import thumbnail
from searcher.content.files import File, content_etag, matches
from searcher.search.catalog import Catalog, ServedIndex
from searcher.search.errors import Problem
from searcher.search.threads import Threads

OPEN_SOURCES = 16
"""How many sources stay open; an index has one."""

_Read = tuple[str, bytes, str]
"""ETag, bytes and media type."""


class Images:
    """Reads image files by the id of their image, from the current run or the one that is named. Each raises Problem
    404 where there is none, and what `Catalog.find` raises."""

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

    async def original(self, id: str, *, index: str | None, run: str | None = None) -> File:
        """The file as its source has it now."""
        return await self._catalog.using(index, partial(self._file, self._original, id), run=run)

    async def original_at(self, path: str, *, index: str | None) -> File:
        """The same by the image's key in its source."""
        told = f"at {path!r}"
        return await self._catalog.using(index, partial(self._file, self._original, image_id(path), told=told))

    async def thumbnail(self, id: str, *, index: str | None, run: str | None = None, known: str = "") -> File:
        """The WebP that was made when the image was indexed. `known`: the client's If-None-Match."""

        async def call(index: ServedIndex) -> File:
            etag = _thumbnail_etag(id, index)
            # Not for `*`, which matches only where there is an image.
            return (
                File(etag, None)
                if '"' in known and matches(known, etag)
                else await self._file(self._thumbnail, id, index)
            )

        return await self._catalog.using(index, call, run=run)

    async def _file(
        self, read: Callable[[Record, ServedIndex], _Read], id: str, index: ServedIndex, *, told: str | None = None
    ) -> File:
        """`told`: what the client knows the image by, if not its id."""
        start = perf_counter()
        records = await self._threads.store(self._store.get, index.pointer.collection, [id])
        if not records:
            raise Problem(404, f'index "{index.pointer.index}" has no image {told or f"with the id {id!r}"}')
        found = perf_counter()
        etag, data, media_type = await self._threads.files(read, records[0], index)
        took = {"store": found - start, "file": perf_counter() - found}
        return File(etag, data, media_type, {name: round(seconds * 1000, 3) for name, seconds in took.items()})

    def _thumbnail(self, record: Record, index: ServedIndex) -> _Read:
        return _thumbnail_etag(record.id, index), self._storage.get_range(*thumbnail(record)), "image/webp"

    def _original(self, record: Record, index: ServedIndex) -> _Read:
        try:
            data = self._open_source(index.pointer.source).read(record.metadata["_key"])
            # Of the bytes and not of the run: two parts of a file that changed in between must not look like one.
            return content_etag(data), data, _media_type(data)
        except (UsageError, PermanentError, BadImage) as error:
            raise Problem(404, f"the original cannot be had from here, its thumbnail can: {error}") from error


def _thumbnail_etag(id: str, index: ServedIndex) -> str:
    return f'"{index.pointer.run}-{quote(id, safe="")}"'


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
