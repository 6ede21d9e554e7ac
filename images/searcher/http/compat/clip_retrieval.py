"""The search of clip-retrieval: what its ClipClient and its page ask `clip-retrieval back` for.

After clip_retrieval/clip_back.py and clip_client.py of rom1504/clip-retrieval. The client sends JSON without saying
so, and more settings than its server has a use for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from searcher.http.api import BUSY
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.requests import Embedding, Name, Picture, Search, Text, Url
from searcher.search.responses import Result

SAME = 0.94
"""The cosine from which on clip-retrieval takes two images for one (KnnService.get_non_uniques)."""

CHOICES = {"text": "text", "image": "image", "image_url": "image_url", "embedding_input": "embedding"}
"""What may be looked for, theirs to ours: the first of them that is given counts."""


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


class KnnSearch(Lenient):
    """What to look for: `text`, `image`, `image_url` or `embedding_input`; of several, the first in this order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "a red bicycle", "modality": "image", "num_images": 5, "indice_name": "photos"}]
        }
    )

    text: Annotated[Text | None, BeforeValidator(_absent_if_empty)] = None
    image: Picture | None = None
    image_url: Url | None = Field(default=None, description="Where an image file is, for the searcher to fetch.")
    embedding_input: Embedding | None = Field(default=None, description="A vector of the index's model.")
    modality: Literal["image"] = Field(
        default="image", description="What is searched: there is no index of captions here."
    )
    num_images: int = Field(default=40, ge=1, description="How many results, at most.")
    indice_name: Name | None = Field(default=None, description="Which index; not needed where there is only one.")
    deduplicate: bool = Field(default=False, description=f"Fold results whose cosine is {SAME} or more into one.")
    use_mclip: Literal[False] = Field(
        default=False, description="There is no second, multilingual model here: the index's own is used."
    )
    num_result_ids: Any = Field(default=None, description="Ignored: each result has its metadata.")
    use_safety_model: Any = Field(default=None, description="Ignored: there is no such model here.")
    use_violence_detector: Any = Field(default=None, description="Ignored: there is no such model here.")
    aesthetic_score: Any = Field(default=None, description="Ignored: there are no aesthetic embeddings here.")
    aesthetic_weight: Any = Field(default=None, description="Ignored: there are no aesthetic embeddings here.")

    @model_validator(mode="after")
    def something(self) -> KnnSearch:
        if all(getattr(self, name) is None for name in CHOICES):
            raise ValueError(f"give one of {', '.join(CHOICES)}")
        return self

    def search(self) -> Search:
        """The same in our words."""
        name = next(name for name in CHOICES if getattr(self, name) is not None)
        return Search(
            **{CHOICES[name]: getattr(self, name)},
            k=self.num_images,
            dedupe=SAME if self.deduplicate else None,
            index=self.indice_name,
        )


class KnnResult(BaseModel):
    """A result. Beside these fields it has those of the image's metadata."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="A text here; clip-retrieval's are numbers.")
    similarity: float = Field(description="Cosine similarity, from -1 to 1.")
    url: str = Field(description="`url` of the metadata, or where the image is on this server.")
    caption: str = Field(description="`caption` of the metadata, or nothing.")
    image_path: str = Field(description="Where the source keeps the image.")


class _AnyTypeIsJson(APIRoute):
    """Reads the body as JSON whatever its Content-Type says: ClipClient sends none, and its page text/plain."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return handle_json


def router(catalog: Catalog, engine: SearchEngine) -> APIRouter:
    """The routes over these two."""
    routes = APIRouter(tags=[TAG], responses=BUSY, route_class=_AnyTypeIsJson)

    @routes.post("/knn-service", response_model=list[KnnResult])
    async def search(query: KnnSearch, request: Request) -> list[dict[str, Any]]:
        """The images nearest to a text, an image or a vector, as of clip-retrieval."""
        ours = {"k": "num_images", "embedding": "embedding_input", "index": "indice_name"}
        with fields_named(ours):
            answer = await engine.search(query.search())
        return [_found(result, str(request.base_url)) for result in answer.results]

    @routes.get("/indices-list")
    async def indexes() -> list[str]:
        """The names of the indexes that are served, as of clip-retrieval."""
        return sorted(catalog.listed())

    return routes


def _found(result: Result, base: str) -> dict[str, Any]:
    """A KnnResult. As a dict, since a field of the metadata may have any name, as `cls`."""
    url, caption = result["metadata"].get("url"), result["metadata"].get("caption")
    return {
        **result["metadata"],
        "id": result["id"],
        "similarity": result["score"],
        "url": url if isinstance(url, str) else base.rstrip("/") + result["image"],
        "caption": caption if isinstance(caption, str) else "",
        "image_path": result["uri"],
    }
