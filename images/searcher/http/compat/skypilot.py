"""The API of SkyPilot's vector database example: a search by text, the images by their path, and health.

After examples/vector_database/scripts/serve_vectordb.py of skypilot-org/skypilot."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, Field

from imgsearch.sources.uri import parse
from searcher.content.images import Images
from searcher.http.api import BUSY, IndexName, binary
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.http.files import FOR_A_WHILE, Conditional, answer
from searcher.search.catalog import Catalog
from searcher.search.engine import Finder
from searcher.search.requests import Search, Text

N_RESULTS = 5
HEALTH = "/health"
"""What SkyPilot's controller asks whether the example is ready. It has no key, and learns no more than at /metrics."""

ImagePath = Annotated[str, Path(description="An image's path in its source: `image_path` of a search.")]


class ExampleSearch(Lenient):
    text: Text = Field(examples=["a red bicycle"])
    n_results: Annotated[int, Field(ge=1)] | None = Field(
        default=N_RESULTS, description="How many results, at most; null: the default."
    )


class ExampleResult(BaseModel):
    image_path: str = Field(description="In the source. /image/ and this is the image.")
    similarity: float = Field(description="Cosine similarity, from -1 to 1.")


class ExampleHealth(BaseModel):
    status: Literal["healthy"]
    collection_size: int = Field(description="How many images all indexes have that are served.")


def router(catalog: Catalog, finder: Finder, images: Images) -> APIRouter:
    """The routes over these three."""
    routes = APIRouter(tags=[TAG], responses=BUSY)

    @routes.post("/search")
    async def search(query: ExampleSearch, index: IndexName = None) -> list[ExampleResult]:
        """The images nearest to a text, as of SkyPilot's example."""
        with fields_named({"k": "n_results"}):
            found = await finder.search(Search(text=query.text, k=query.n_results or N_RESULTS, index=index))
        # Of the run that was searched: a newer one may have another source.
        searched = await catalog.find(found.index, found.run)
        prefix = parse(searched.pointer.source).image_prefix
        return [
            ExampleResult(image_path=result["uri"].removeprefix(prefix), similarity=result["score"])
            for result in found.results
        ]

    @routes.get("/image/{path:path}", responses=binary("image/*"), response_class=Response)
    async def image(path: ImagePath, asked: Conditional, index: IndexName = None) -> Response:
        """The original image. The path is never one of a file here: it is looked up among those of the index."""
        return answer(await images.original_at(path, index=index), asked, cache=FOR_A_WHILE)

    return routes


def health(catalog: Catalog) -> APIRouter:
    """The route of its health, which needs no key."""
    routes = APIRouter(tags=[TAG], responses=BUSY)

    @routes.get(HEALTH)
    async def health() -> ExampleHealth:
        """How many images there are. Unlike the example's, it is 503 where there is no telling."""
        return ExampleHealth(
            status="healthy", collection_size=sum(index.pointer.images for index in catalog.listed().values())
        )

    return routes
