"""The images of an index: originals are read from their source, thumbnails from the run folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from time import perf_counter
from urllib.parse import quote

from imgsearch.errors import BadImage, PermanentError, UsageError
from imgsearch.runs.layout import image_id
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import Record, VectorStore
from imgsearch.stores.records import thumbnail
from searcher.content.files import File, content_etag, etag_matches
from searcher.content.media_types import media_type
from searcher.search.catalog import Catalog, ServedIndex
from searcher.search.errors import Problem
from searcher.search.threads import Threads

OPEN_SOURCES = 16
"""Sources that stay open. An index has one."""

_Content = tuple[str, bytes, str]
"""ETag, bytes and media type."""


class Images:
    """Reads image files by image id, from the current run or the given one. Every method raises Problem 404 for an
    unknown image, and the errors of `Catalog.find`."""

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
        """The original file, as it is in its source now."""
        return await self._catalog.using(index, partial(self._file, self._original, id), run=run)

    async def original_at(self, path: str, *, index: str | None) -> File:
        """The original file, by the key of the image in its source."""
        read = partial(self._file, self._original, image_id(path), name=f"at {path!r}")
        return await self._catalog.using(index, read)

    async def thumbnail(self, id: str, *, index: str | None, run: str | None = None, if_none_match: str = "") -> File:
        """The WebP thumbnail from the index."""

        async def read(index: ServedIndex) -> File:
            etag = _thumbnail_etag(id, index)
            # Not for `*`, which matches only if the image exists.
            if '"' in if_none_match and etag_matches(if_none_match, etag):
                return File(etag, None)
            return await self._file(self._thumbnail, id, index)

        return await self._catalog.using(index, read, run=run)

    async def _file(
        self, read: Callable[[Record, ServedIndex], _Content], id: str, index: ServedIndex, *, name: str | None = None
    ) -> File:
        """`name`: the image's name in an error message. Default: its id."""
        start = perf_counter()
        records = await self._threads.store(self._store.get, index.pointer.collection, [id])
        if not records:
            raise Problem(404, f'index "{index.pointer.index}" has no image {name or f"with the id {id!r}"}')
        read_start = perf_counter()
        etag, data, media_type = await self._threads.files(read, records[0], index)
        seconds = {"store": read_start - start, "file": perf_counter() - read_start}
        return File(etag, data, media_type, {step: round(value * 1000, 3) for step, value in seconds.items()})

    def _thumbnail(self, record: Record, index: ServedIndex) -> _Content:
        return _thumbnail_etag(record.id, index), self._storage.get_range(*thumbnail(record)), "image/webp"

    def _original(self, record: Record, index: ServedIndex) -> _Content:
        try:
            data = self._open_source(index.pointer.source).read(record.internal["key"])
            # From the bytes, not the run: ranges of a file that changed in between must not be joined.
            return content_etag(data), data, _media_type(data)
        except (UsageError, PermanentError, BadImage) as error:
            raise Problem(404, f"the original cannot be read; its thumbnail is available: {error}") from error


def _thumbnail_etag(id: str, index: ServedIndex) -> str:
    return f'"{index.pointer.run}-{quote(id, safe="")}"'


def _media_type(data: bytes) -> str:
    """Raises BadImage: this server must not serve an HTML page called .jpg."""
    type = media_type(data)
    if type is None:
        raise BadImage("read", "the file is no longer an image")
    return type
