"""The routes of /v1: what each takes and gives, and nothing of how it is done."""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, Json

from searcher.content.images import Images
from searcher.content.run_files import Facts
from searcher.http import api_keys, problems
from searcher.http.docs import header
from searcher.http.files import FOR_A_WHILE, FOR_EVER, IF_CURRENT, Conditional, answer, server_timing
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.errors import DOCUMENT, invalid
from searcher.search.requests import Batch, Embed, Filter, Name, Options, Search
from searcher.search.responses import (
    BatchResponse,
    EmbedResponse,
    FacetsResponse,
    IndexesResponse,
    IndexInfo,
    MapResponse,
    SearchResponse,
)

Id = Annotated[str, Path(description="An image's id, from a search.")]
IndexName = Annotated[Name | None, Query(description="Which index; not needed where there is only one.")]
FieldName = Annotated[str | None, Query(min_length=1, description="Only this field of the metadata.")]
Run = Annotated[
    Name | None,
    Query(description="Only of this run: its answer never changes, so it may be kept for long. 410 where it is gone."),
]


def failure(description: str, status: int, detail: str) -> dict[str, Any]:
    """The OpenAPI response object of a problem, with `detail` as its example."""
    title = HTTPStatus(status).phrase
    example = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content = {problems.MEDIA_TYPE: {"schema": DOCUMENT, "example": example}}
    return {"description": description, "content": content}


CACHING = {
    "ETag": header("What If-None-Match and If-Range may name."),
    "Cache-Control": header("How long it may be kept."),
}
NOT_MODIFIED = {"description": "The client's copy, named in If-None-Match, is current.", "headers": CACHING}
GONE: dict[int | str, dict[str, Any]] = {
    410: failure(
        "The run that was asked for is gone: newer ones were published.",
        410,
        'run "r1" of index "photos" is no longer available; search again without the cursor or run=',
    )
}
REFUSED: dict[int | str, dict[str, Any]] = {
    401: {
        **failure("The request brings no API key of this searcher.", 401, api_keys.MISSING),
        "headers": {"WWW-Authenticate": header("`Bearer`.")},
    }
}
BUSY: dict[int | str, dict[str, Any]] = {
    429: {
        **failure(
            "Too many requests, of this client or of all together: try again after Retry-After seconds.",
            429,
            "too many searches wait for the model; try again in a moment",
        ),
        "headers": {
            "Retry-After": header("Seconds.", type="integer"),
            "RateLimit": header("Of a rate limit: how many requests are left, and for how many seconds."),
            "RateLimit-Policy": header("Of a rate limit: how many requests in how many seconds there may be."),
        },
    }
}


class ImageForm(Options):
    """A search by an uploaded image file."""

    model_config = ConfigDict(strict=False)  # a form has only texts

    file: UploadFile = Field(description="The image file.")
    filter: Annotated[Json[Filter] | None, Field(description="The filter, as JSON text.")] = None


def router(catalog: Catalog, engine: SearchEngine, images: Images, facts: Facts) -> APIRouter:
    """The routes over these four."""
    v1 = APIRouter(prefix="/v1", responses=BUSY)

    @v1.post("/search", response_model_exclude_unset=True, responses=GONE)
    async def search(search: Search, response: Response) -> SearchResponse:
        """The images nearest to a text, an image, an id, an embedding, or a weighted sum of them."""
        return _timed(await engine.search(search), response)

    @v1.post("/search/batch", response_model_exclude_unset=True)
    async def search_in_batch(batch: Batch) -> BatchResponse:
        """Several searches at once: each gets its answer, or its problem where it has none."""
        return await engine.batch(batch.searches)

    @v1.post("/search/image", response_model_exclude_unset=True, responses=GONE)
    async def search_by_upload(
        form: Annotated[ImageForm, Form(media_type="multipart/form-data")], response: Response
    ) -> SearchResponse:
        """The images nearest to an uploaded one."""
        data = await form.file.read()
        if not data:
            raise invalid("file", "it is empty")
        options = form.model_dump(exclude={"file"})  # validated already
        return _timed(await engine.search(Search.model_construct(image=data, **options)), response)

    @v1.post("/embed")
    async def embed(embed: Embed) -> EmbedResponse:
        """The vectors of texts or images, for use elsewhere or as `embedding` of a search."""
        return await engine.embed(embed)

    @v1.get("/images/{id}", responses=binary("image/*") | GONE, response_class=Response)
    async def original(id: Id, asked: Conditional, index: IndexName = None, run: Run = None) -> Response:
        """The original image, read from its source."""
        file = await images.original(id, index=index, run=run)
        return answer(file, asked, cache=FOR_EVER if run else FOR_A_WHILE)

    @v1.get("/images/{id}/thumbnail", responses=binary("image/webp") | GONE, response_class=Response)
    async def thumbnail(id: Id, asked: Conditional, index: IndexName = None, run: Run = None) -> Response:
        """A small WebP of the image."""
        file = await images.thumbnail(id, index=index, run=run, known=asked.known)
        return answer(file, asked, cache=FOR_EVER if run else FOR_A_WHILE)

    @v1.get("/facets", responses=_known(FacetsResponse) | GONE, response_class=Response)
    async def facets(asked: Conditional, index: IndexName = None, field: FieldName = None, run: Run = None) -> Response:
        """What the fields of the metadata hold: their values and how often, the range of numbers. For filters."""
        file = await facts.facets(index, run=run, field=field, known=asked.known)
        return answer(file, asked, cache=FOR_EVER if run else IF_CURRENT)

    @v1.get("/map", responses=_known(MapResponse) | GONE, response_class=Response)
    async def map_(asked: Conditional, index: IndexName = None, run: Run = None) -> Response:
        """Some thousand images of the index on a plane, like beside like."""
        file = await facts.map(index, run=run, known=asked.known)
        return answer(file, asked, cache=FOR_EVER if run else IF_CURRENT)

    @v1.get("/map/sprite", responses=binary("image/webp") | GONE, response_class=Response)
    async def sprite(asked: Conditional, index: IndexName = None, run: Run = None) -> Response:
        """The thumbnails of the map, as tiles of one image."""
        file = await facts.sprite(index, run=run, known=asked.known)
        return answer(file, asked, cache=FOR_EVER if run else IF_CURRENT)

    @v1.get("/indexes")
    async def indexes() -> IndexesResponse:
        """What is served."""
        pointers = [dataclasses.asdict(index.pointer) for _, index in sorted(catalog.listed().items())]
        return IndexesResponse(indexes=[IndexInfo(**pointer) for pointer in pointers], problems=dict(catalog.problems))

    return v1


def binary(media_type: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that gives a file."""
    content = {media_type: {"schema": {"type": "string", "contentMediaType": media_type}}}
    ranges = {"Accept-Ranges": header("`bytes`: a part may be asked for with Range.")}
    return {
        200: {"content": content, "headers": {**CACHING, **ranges}},
        206: {
            "description": "The part that Range asks for.",
            "content": content,
            "headers": {**CACHING, **ranges, "Content-Range": header("Which part, of how many bytes.")},
        },
        304: NOT_MODIFIED,
        416: {
            **failure("The file has no such part.", 416, "the file has 2,048 bytes, and none there"),
            "headers": {"Content-Range": header("Of how many bytes the file is.")},
        },
    }


def _known(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "headers": CACHING}, 304: NOT_MODIFIED}


def _timed(answer: SearchResponse, response: Response) -> SearchResponse:
    took = answer.took_ms
    response.headers["Server-Timing"] = server_timing({"encode": took.encode, "store": took.store})
    return answer
