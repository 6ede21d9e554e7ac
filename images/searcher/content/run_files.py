"""What ingest found out about a whole run: the values of its fields, and its map. Read from the run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import quote

from imgsearch.errors import NotFound
from imgsearch.runs import documents
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Pointer
from searcher.content.files import File, matches
from searcher.search.catalog import Catalog
from searcher.search.errors import Problem
from searcher.search.requests import Facets, Map
from searcher.search.threads import Threads

JSON = "application/json"
KEPT_RUNS = 8
"""Whose files stay in memory: a sprite has some megabytes."""


class Facts:
    """Answers from `facets.json`, `map.json` and `map.webp`. Each raises Problem 404 for a run without that file, and
    what `Catalog.find` raises; `known` is the client's If-None-Match."""

    def __init__(self, catalog: Catalog, storage: Storage, *, threads: Threads) -> None:
        self._catalog = catalog
        self._storage = storage
        self._threads = threads
        self._facets = lru_cache(KEPT_RUNS)(self._read_facets)
        self._map = lru_cache(KEPT_RUNS)(self._read_map)
        self._sprite = lru_cache(KEPT_RUNS)(self._read_sprite)

    async def facets(self, index: str | None, *, run: str | None, field: str | None, known: str) -> File:
        """A schemas.Facets of all fields or of one; raises Problem 404 where no image has that."""
        return await self._file(partial(self._facets_of, field), JSON, index, run, known)

    async def map(self, index: str | None, *, run: str | None, known: str) -> File:
        """A schemas.Map."""
        return await self._file(self._map, JSON, index, run, known)

    async def sprite(self, index: str | None, *, run: str | None, known: str) -> File:
        """The WebP whose tiles the map's points are."""
        return await self._file(self._sprite, "image/webp", index, run, known)

    async def _file(
        self, read: Callable[[Pointer], bytes], media_type: str, index: str | None, run: str | None, known: str
    ) -> File:
        pointer = (await self._catalog.find(index, run)).pointer
        # JSON may be compressed on its way, so that its bytes are not always these.
        etag = f'W/"{pointer.run}"' if media_type == JSON else f'"{pointer.run}"'
        if '"' in known and matches(known, etag):
            return File(etag, None)
        return File(etag, await self._threads.files(read, pointer), media_type)

    def _facets_of(self, field: str | None, pointer: Pointer) -> bytes:
        facets = self._facets(pointer)
        if field is not None:
            fields = [one for one in facets.fields if one.field == field]
            if not fields:
                raise Problem(404, f'no image of index "{pointer.index}" has the field {field!r}; /v1/facets lists all')
            facets = facets.model_copy(update={"fields": fields})
        return facets.model_dump_json().encode()

    def _read_facets(self, pointer: Pointer) -> Facets:
        name = RunFolder(pointer.run).facets
        document = documents.Facets.from_json(self._bytes(name, pointer), name)
        return Facets.model_validate(dataclasses.asdict(document))

    def _read_map(self, pointer: Pointer) -> bytes:
        name = RunFolder(pointer.run).map
        document = documents.Map.from_json(self._bytes(name, pointer), name)
        sprite = f"/v1/map/sprite?index={quote(pointer.index, safe='')}&run={pointer.run}"
        return Map(**dataclasses.asdict(document), sprite=sprite).model_dump_json().encode()

    def _read_sprite(self, pointer: Pointer) -> bytes:
        return self._bytes(RunFolder(pointer.run).sprite, pointer)

    def _bytes(self, name: str, pointer: Pointer) -> bytes:
        try:
            return self._storage.get(name)
        except NotFound as error:
            sentence = (
                f'index "{pointer.index}" has no {name}: its run is older than that, or it could not be made, as the '
                "log of its ingest says; index again"
            )
            raise Problem(404, sentence) from error
