"""The files that ingest writes for a whole run: facets, map and sprite. Read from the run folder."""

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
from searcher.content.files import File, etag_matches
from searcher.search.catalog import Catalog
from searcher.search.errors import Problem
from searcher.search.responses import FacetsResponse, MapResponse
from searcher.search.threads import Threads

JSON = "application/json"
KEPT_RUNS = 8
"""Runs whose files stay in memory. A sprite has a few megabytes."""


class RunFiles:
    """Serves `facets.json`, `map.json` and `map.webp`. Every method raises Problem 404 for a run without that file, and
    the errors of `Catalog.find`."""

    def __init__(self, catalog: Catalog, storage: Storage, *, threads: Threads) -> None:
        self._catalog = catalog
        self._storage = storage
        self._threads = threads
        self._facets = lru_cache(KEPT_RUNS)(self._read_facets)
        self._map = lru_cache(KEPT_RUNS)(self._read_map)
        self._sprite = lru_cache(KEPT_RUNS)(self._read_sprite)

    async def facets(self, index: str | None, *, run: str | None, field: str | None, if_none_match: str) -> File:
        """A FacetsResponse of all fields or of one. Raises Problem 404 for an unknown field."""
        return await self._file(partial(self._facets_of, field), JSON, index, run, if_none_match)

    async def map(self, index: str | None, *, run: str | None, if_none_match: str) -> File:
        """A MapResponse."""
        return await self._file(self._map, JSON, index, run, if_none_match)

    async def sprite(self, index: str | None, *, run: str | None, if_none_match: str) -> File:
        """A WebP with one tile for each point of the map."""
        return await self._file(self._sprite, "image/webp", index, run, if_none_match)

    async def _file(
        self, read: Callable[[Pointer], bytes], media_type: str, index: str | None, run: str | None, if_none_match: str
    ) -> File:
        pointer = (await self._catalog.find(index, run)).pointer
        # Weak for JSON: a compressed response has other bytes.
        etag = f'W/"{pointer.run}"' if media_type == JSON else f'"{pointer.run}"'
        if '"' in if_none_match and etag_matches(if_none_match, etag):
            return File(etag, None)
        return File(etag, await self._threads.files(read, pointer), media_type)

    def _facets_of(self, field: str | None, pointer: Pointer) -> bytes:
        facets = self._facets(pointer)
        if field is not None:
            fields = [facet for facet in facets.fields if facet.field == field]
            if not fields:
                raise Problem(404, f'index "{pointer.index}" has no field {field!r}; see /v1/facets')
            facets = facets.model_copy(update={"fields": fields})
        return facets.model_dump_json().encode()

    def _read_facets(self, pointer: Pointer) -> FacetsResponse:
        name = RunFolder(pointer.run).facets
        document = documents.Facets.from_json(self._bytes(name, pointer), name)
        return FacetsResponse.model_validate(dataclasses.asdict(document))

    def _read_map(self, pointer: Pointer) -> bytes:
        name = RunFolder(pointer.run).map
        document = documents.Map.from_json(self._bytes(name, pointer), name)
        sprite = f"/v1/map/sprite?index={quote(pointer.index, safe='')}&run={pointer.run}"
        return MapResponse(**dataclasses.asdict(document), sprite=sprite).model_dump_json().encode()

    def _read_sprite(self, pointer: Pointer) -> bytes:
        return self._bytes(RunFolder(pointer.run).sprite, pointer)

    def _bytes(self, name: str, pointer: Pointer) -> bytes:
        try:
            return self._storage.get(name)
        except NotFound as error:
            detail = (
                f'index "{pointer.index}" has no {name}: an older version made the run, or ingest failed to write the '
                "file; see the log of ingest, or index again"
            )
            raise Problem(404, detail) from error
