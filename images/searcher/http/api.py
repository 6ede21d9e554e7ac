"""The routes of /v1."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import Response
from pydantic import ConfigDict, Field, Json

from searcher.content.images import Images
from searcher.content.run_files import RunFiles
from searcher.http import openapi
from searcher.http.clients import RequestClient
from searcher.http.files import CACHE_5_MINUTES, IMMUTABLE, REVALIDATE, RequestConditions, file_response, server_timing
from searcher.http.parameters import FieldName, ImageId, IndexName, RunName
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.errors import invalid
from searcher.search.requests import Batch, Embed, Filter, Options, Search
from searcher.search.responses import (
    BatchResponse,
    EmbedResponse,
    FacetsResponse,
    IndexesResponse,
    IndexInfo,
    MapResponse,
    SearchResponse,
)


class ImageForm(Options):
    """A search by an uploaded image file."""

    model_config = ConfigDict(strict=False)  # every value of a form is text

    file: UploadFile = Field(description="The image file.")
    filter: Annotated[Json[Filter] | None, Field(description="The filter, as JSON text.")] = None


def router(catalog: Catalog, engine: SearchEngine, images: Images, run_files: RunFiles) -> APIRouter:
    """All routes of /v1 but the login."""
    v1 = APIRouter(prefix="/v1", responses=openapi.TOO_MANY_REQUESTS)

    @v1.post("/search", response_model_exclude_unset=True, responses=openapi.GONE)
    async def search(search: Search, client: RequestClient, response: Response) -> SearchResponse:
        """Finds the images nearest to a text, an image, an id, an embedding, or a weighted sum of them."""
        return _with_timing(await engine.search(search, client), response)

    @v1.post("/search/batch", response_model_exclude_unset=True)
    async def search_in_batch(batch: Batch, client: RequestClient) -> BatchResponse:
        """Runs several searches at once. Each gets its own results or its own problem."""
        return await engine.batch(batch.searches, client)

    @v1.post("/search/image", response_model_exclude_unset=True, responses=openapi.GONE)
    async def search_by_upload(
        form: Annotated[ImageForm, Form(media_type="multipart/form-data")], client: RequestClient, response: Response
    ) -> SearchResponse:
        """Finds the images nearest to an uploaded image."""
        data = await form.file.read()
        if not data:
            raise invalid("file", "the file is empty")
        options = form.model_dump(exclude={"file"})  # validated already
        return _with_timing(await engine.search(Search.model_construct(image=data, **options), client), response)

    @v1.post("/embed")
    async def embed(embed: Embed, client: RequestClient) -> EmbedResponse:
        """Returns the vectors of texts or images, for use elsewhere or as `embedding` of a search."""
        return await engine.embed(embed, client)

    @v1.get("/images/{id}", responses=openapi.file("image/*") | openapi.GONE, response_class=Response)
    async def original(
        id: ImageId, conditions: RequestConditions, index: IndexName = None, run: RunName = None
    ) -> Response:
        """Returns the original image, read from its source."""
        file = await images.original(id, index=index, run=run)
        return file_response(file, conditions, cache=IMMUTABLE if run else CACHE_5_MINUTES)

    @v1.get("/images/{id}/thumbnail", responses=openapi.file("image/webp") | openapi.GONE, response_class=Response)
    async def thumbnail(
        id: ImageId, conditions: RequestConditions, index: IndexName = None, run: RunName = None
    ) -> Response:
        """Returns a small WebP of the image."""
        file = await images.thumbnail(id, index=index, run=run, if_none_match=conditions.if_none_match)
        return file_response(file, conditions, cache=IMMUTABLE if run else CACHE_5_MINUTES)

    @v1.get("/facets", responses=openapi.cached_json(FacetsResponse) | openapi.GONE, response_class=Response)
    async def facets(
        conditions: RequestConditions, index: IndexName = None, field: FieldName = None, run: RunName = None
    ) -> Response:
        """Returns the values of each metadata field with their counts, and the range of numbers. For filters."""
        file = await run_files.facets(index, run=run, field=field, if_none_match=conditions.if_none_match)
        return file_response(file, conditions, cache=IMMUTABLE if run else REVALIDATE)

    @v1.get("/map", responses=openapi.cached_json(MapResponse) | openapi.GONE, response_class=Response)
    async def map_(conditions: RequestConditions, index: IndexName = None, run: RunName = None) -> Response:
        """Returns a sample of the index on a plane, with similar images near each other."""
        file = await run_files.map(index, run=run, if_none_match=conditions.if_none_match)
        return file_response(file, conditions, cache=IMMUTABLE if run else REVALIDATE)

    @v1.get("/map/sprite", responses=openapi.file("image/webp") | openapi.GONE, response_class=Response)
    async def sprite(conditions: RequestConditions, index: IndexName = None, run: RunName = None) -> Response:
        """Returns the thumbnails of the map, as tiles of one image."""
        file = await run_files.sprite(index, run=run, if_none_match=conditions.if_none_match)
        return file_response(file, conditions, cache=IMMUTABLE if run else REVALIDATE)

    @v1.get("/indexes")
    async def indexes() -> IndexesResponse:
        """Lists the indexes that are served."""
        pointers = [dataclasses.asdict(index.pointer) for _, index in sorted(catalog.listed().items())]
        return IndexesResponse(indexes=[IndexInfo(**pointer) for pointer in pointers], problems=dict(catalog.problems))

    return v1


def _with_timing(result: SearchResponse, response: Response) -> SearchResponse:
    took = result.took_ms
    response.headers["Server-Timing"] = server_timing({"encode": took.encode, "store": took.store})
    return result
