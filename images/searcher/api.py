"""The routes of /v1: what each takes and gives, and nothing of how it is done."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Form, Header, Path, Query
from fastapi.responses import Response

from searcher.catalog import Catalog
from searcher.finder import Finder
from searcher.images import File, Images
from searcher.problems import invalid
from searcher.schemas import Embed, EmbedResponse, ImageForm, Indexes, IndexInfo, Search, SearchResponse

Id = Annotated[str, Path(description="An image's id, from a search.")]
IndexName = Annotated[str | None, Query(description="Which index; not needed where there is only one.")]
Known = Annotated[str, Header(alias="If-None-Match", include_in_schema=False)]


def router(catalog: Catalog, finder: Finder, images: Images) -> APIRouter:
    """The routes over these three."""
    v1 = APIRouter(prefix="/v1")

    @v1.post("/search", response_model_exclude_unset=True)
    async def search(search: Search) -> SearchResponse:
        """The images nearest to a text, an image, an id, an embedding, or a weighted sum of them."""
        return await finder.search(search)

    @v1.post("/search/image", response_model_exclude_unset=True)
    async def search_by_upload(
        form: Annotated[ImageForm, Form(media_type="multipart/form-data")],
    ) -> SearchResponse:
        """The images nearest to an uploaded one."""
        data = await form.file.read()
        if not data:
            raise invalid("file", "it is empty")
        options = form.model_dump(exclude={"file"})  # validated already
        return await finder.search(Search.model_construct(image=data, **options))

    @v1.post("/embed")
    async def embed(embed: Embed) -> EmbedResponse:
        """The vectors of texts or images, for use elsewhere or as `embedding` of a search."""
        return await finder.embed(embed)

    @v1.get("/images/{id}", responses=_binary("image/*"), response_class=Response)
    async def original(id: Id, index: IndexName = None, known: Known = "") -> Response:
        """The original image, read from its source."""
        return _response(await images.original(id, index=index, known=known))

    @v1.get("/images/{id}/thumbnail", responses=_binary("image/webp"), response_class=Response)
    async def thumbnail(id: Id, index: IndexName = None, known: Known = "") -> Response:
        """A small WebP of the image."""
        return _response(await images.thumbnail(id, index=index, known=known))

    @v1.get("/indexes")
    async def indexes() -> Indexes:
        """What is served."""
        pointers = [dataclasses.asdict(index.pointer) for _, index in sorted(catalog.listed().items())]
        return Indexes(indexes=[IndexInfo(**pointer) for pointer in pointers], problems=dict(catalog.problems))

    return v1


def _binary(media_type: str) -> dict[int | str, dict[str, object]]:
    return {
        200: {"content": {media_type: {"schema": {"type": "string", "contentMediaType": media_type}}}},
        304: {"description": "The client's copy, named in If-None-Match, is current."},
    }


def _response(file: File) -> Response:
    headers = {
        "ETag": file.etag,
        # Short, since the same id may show another image after the next run.
        "Cache-Control": "private, max-age=300",
        "X-Content-Type-Options": "nosniff",
    }
    if file.data is None:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)
