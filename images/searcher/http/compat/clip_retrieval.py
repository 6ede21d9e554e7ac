"""The search API of `clip-retrieval back`, for its ClipClient and its page.

After clip_retrieval/clip_back.py and clip_client.py of rom1504/clip-retrieval. The client sends JSON without its
Content-Type, and more settings than its server uses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from searcher.http import openapi
from searcher.http.clients import RequestClient
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.requests import Embedding, Name, Picture, Search, Text, Url
from searcher.search.responses import Result

SAME = 0.94
"""The cosine from which clip-retrieval treats two images as duplicates (KnnService.get_non_uniques)."""

QUERY_FIELDS = {"text": "text", "image": "image", "image_url": "image_url", "embedding_input": "embedding"}
"""The query fields, from clip-retrieval's name to the name in /v1. The first one in the request counts."""


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


class KnnSearch(Lenient):
    """A query: `text`, `image`, `image_url` or `embedding_input`. Of several, the first in this order counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "a red bicycle", "modality": "image", "num_images": 5, "indice_name": "photos"}]
        }
    )

    text: Annotated[Text | None, BeforeValidator(_absent_if_empty)] = None
    image: Picture | None = None
    image_url: Url | None = Field(default=None, description="The URL of an image file that the searcher fetches.")
    embedding_input: Embedding | None = Field(default=None, description="A vector of the index's model.")
    modality: Literal["image"] = Field(
        default="image", description="The kind of items to search. This server has no index of captions."
    )
    num_images: int = Field(default=40, ge=1, description="The maximum number of results.")
    indice_name: Name | None = Field(default=None, description="The index. Required if there are several.")
    deduplicate: bool = Field(default=False, description=f"Fold results with a cosine of {SAME} or more into one.")
    use_mclip: Literal[False] = Field(
        default=False, description="This server has no second, multilingual model: the model of the index is used."
    )
    num_result_ids: Any = Field(default=None, description="Ignored: every result has its metadata.")
    use_safety_model: Any = Field(default=None, description="Ignored: this server has no such model.")
    use_violence_detector: Any = Field(default=None, description="Ignored: this server has no such model.")
    aesthetic_score: Any = Field(default=None, description="Ignored: this server has no aesthetic embeddings.")
    aesthetic_weight: Any = Field(default=None, description="Ignored: this server has no aesthetic embeddings.")

    @model_validator(mode="after")
    def at_least_one(self) -> KnnSearch:
        if all(getattr(self, name) is None for name in QUERY_FIELDS):
            raise ValueError(f"give one of {', '.join(QUERY_FIELDS)}")
        return self

    def search(self) -> Search:
        """The same search as a request of /v1."""
        name = next(name for name in QUERY_FIELDS if getattr(self, name) is not None)
        return Search(
            **{QUERY_FIELDS[name]: getattr(self, name)},
            k=self.num_images,
            dedupe=SAME if self.deduplicate else None,
            index=self.indice_name,
        )


class KnnResult(BaseModel):
    """A result. It has these fields, and the fields of the image's metadata."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="A text. clip-retrieval's ids are numbers.")
    similarity: float = Field(description="Cosine similarity, from -1 to 1.")
    url: str = Field(description="`url` of the metadata, or the URL of the image on this server.")
    caption: str = Field(description="`caption` of the metadata, or empty.")
    image_path: str = Field(description="The location of the image in its source.")


class _JsonRoute(APIRoute):
    """Reads the body as JSON whatever its Content-Type: ClipClient sends none, and its page sends text/plain."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            other_headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            scope = {**request.scope, "headers": [*other_headers, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return handle_json


def router(catalog: Catalog, engine: SearchEngine) -> APIRouter:
    """All routes of this API."""
    routes = APIRouter(tags=[TAG], responses=openapi.TOO_MANY_REQUESTS, route_class=_JsonRoute)

    @routes.post("/knn-service", response_model=list[KnnResult])
    async def search(query: KnnSearch, client: RequestClient, request: Request) -> list[dict[str, Any]]:
        """Finds the images nearest to a text, an image or a vector, as clip-retrieval does."""
        with fields_named({"k": "num_images", "embedding": "embedding_input", "index": "indice_name"}):
            response = await engine.search(query.search(), client)
        return [_knn_result(result, str(request.base_url)) for result in response.results]

    @routes.get("/indices-list")
    async def indexes() -> list[str]:
        """Lists the names of the indexes, as clip-retrieval does."""
        return sorted(catalog.listed())

    return routes


def _knn_result(result: Result, base: str) -> dict[str, Any]:
    """A KnnResult, as a dict: a metadata field may have any name, such as `cls`."""
    url, caption = result["metadata"].get("url"), result["metadata"].get("caption")
    return {
        **result["metadata"],
        "id": result["id"],
        "similarity": result["score"],
        "url": url if isinstance(url, str) else base.rstrip("/") + result["image"],
        "caption": caption if isinstance(caption, str) else "",
        "image_path": result["uri"],
    }
