"""The API of SkyPilot's vector database example: search by text, images by their path, and health.

After examples/vector_database/scripts/serve_vectordb.py of skypilot-org/skypilot."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, Field

from imgsearch.sources.uri import parse_source
from searcher.content.images import Images
from searcher.http import openapi
from searcher.http.clients import RequestClient
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.http.files import CACHE_5_MINUTES, RequestConditions, file_response
from searcher.http.parameters import IndexName
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.requests import Search, Text

N_RESULTS = 5
HEALTH = "/health"
"""The readiness probe of SkyPilot's controller, which has no API key. It shows no more than /metrics."""

ImagePath = Annotated[str, Path(description="The path of an image in its source, from `image_path` of a result.")]


class ExampleSearch(Lenient):
    text: Text = Field(examples=["a red bicycle"])
    n_results: Annotated[int, Field(ge=1)] | None = Field(
        default=N_RESULTS, description="The maximum number of results. Null: the default."
    )


class ExampleResult(BaseModel):
    image_path: str = Field(description="Path in the source. The image is at /image/ and this path.")
    similarity: float = Field(description="Cosine similarity, from -1 to 1.")


class ExampleHealth(BaseModel):
    status: Literal["healthy"]
    collection_size: int = Field(description="Images in all indexes that are served.")


def router(catalog: Catalog, engine: SearchEngine, images: Images) -> APIRouter:
    """The routes that need an API key."""
    routes = APIRouter(tags=[TAG], responses=openapi.TOO_MANY_REQUESTS)

    @routes.post("/search")
    async def search(query: ExampleSearch, client: RequestClient, index: IndexName = None) -> list[ExampleResult]:
        """Finds the images nearest to a text, as SkyPilot's example does."""
        with fields_named({"k": "n_results"}):
            example = Search(text=query.text, k=query.n_results or N_RESULTS, index=index)
            response = await engine.search(example, client)
        # The source of the run that was searched: a newer run may have another one.
        searched = await catalog.find(response.index, response.run)
        prefix = parse_source(searched.pointer.source).image_prefix
        return [
            ExampleResult(image_path=result["uri"].removeprefix(prefix), similarity=result["score"])
            for result in response.results
        ]

    @routes.get("/image/{path:path}", responses=openapi.file("image/*"), response_class=Response)
    async def image(path: ImagePath, conditions: RequestConditions, index: IndexName = None) -> Response:
        """Returns the original image. The path is looked up in the index: it never names a file on the server."""
        return file_response(await images.original_at(path, index=index), conditions, cache=CACHE_5_MINUTES)

    return routes


def health(catalog: Catalog) -> APIRouter:
    """The health route, which needs no API key."""
    routes = APIRouter(tags=[TAG], responses=openapi.TOO_MANY_REQUESTS)

    @routes.get(HEALTH)
    async def health() -> ExampleHealth:
        """Returns the number of images. Unlike the example, it returns 503 while the number is unknown."""
        return ExampleHealth(
            status="healthy", collection_size=sum(index.pointer.images for index in catalog.listed().values())
        )

    return routes
