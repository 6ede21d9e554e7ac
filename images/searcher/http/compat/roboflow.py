"""CLIP as Roboflow Inference has it: vectors of texts and images, and how alike they are.

After inference/core/entities/{requests,responses}/clip.py and models/clip/clip_model.py of roboflow/inference, and
its published client, inference-sdk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from searcher.http.api import BUSY, IndexName
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.errors import invalid
from searcher.search.requests import MAX_EMBEDDED, Embed, Name, Picture, Text, Url

Kind = Literal["image", "text"]


class Base64Image(Lenient):
    type: Literal["base64"]
    value: Picture


class UrlImage(Lenient):
    type: Literal["url"]
    value: Url = Field(description="Where an image file is, for the searcher to fetch.")


def _tag(thing: Any) -> Any:
    if isinstance(thing, dict):
        return thing.get("type")
    return "text" if isinstance(thing, str) else None


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


def _numbered(given: Any) -> Any:
    """Prompts by their names, or by their numbers where they have none. One image is an object, too."""
    if isinstance(given, dict) and not {"type", "value"} <= given.keys():
        return given
    return dict(enumerate(_listed(given)))


ImageRef = Annotated[Base64Image | UrlImage, Field(discriminator="type")]
Thing = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Base64Image, Tag("base64")] | Annotated[UrlImage, Tag("url")],
    Discriminator(
        _tag,
        custom_error_type="thing",
        custom_error_message='give a text, or an image as {"type": "base64" or "url", "value": …}',
    ),
]
Several = Field(min_length=1, max_length=MAX_EMBEDDED)


class ClipRequest(Lenient):
    clip_version_id: Name | None = Field(
        default=None,
        description="The model that is meant: it has to be that of an index here, as /v1/indexes names it, or its part "
        "before the slash (ViT-B-32).",
    )


class ClipTexts(ClipRequest):
    text: Annotated[list[Text], Several, BeforeValidator(_listed, json_schema_input_type=Text | list[Text])] = Field(
        examples=["a red bicycle"]
    )


class ClipImages(ClipRequest):
    image: Annotated[
        list[ImageRef], Several, BeforeValidator(_listed, json_schema_input_type=ImageRef | list[ImageRef])
    ]


class ClipComparison(ClipRequest):
    subject: Thing
    subject_type: Kind = "image"
    prompt: Annotated[
        dict[int | str, Thing],
        Several,
        BeforeValidator(_numbered, json_schema_input_type=Thing | list[Thing] | dict[str, Thing]),
    ] = Field(description="One or several to compare with; of an object, the answer has its names.")
    prompt_type: Kind = "text"


class ClipAnswer(BaseModel):
    inference_id: None = None
    frame_id: None = None
    time: float = Field(description="Seconds that it took.")


class ClipEmbeddings(ClipAnswer):
    embeddings: list[list[float]] = Field(description="In the order of the request, each of length 1.")


class ClipSimilarity(ClipAnswer):
    similarity: list[float] | dict[str, float] = Field(description="Cosine similarities, from -1 to 1.")
    parent_id: None = None


def router(
    catalog: Catalog, engine: SearchEngine, fetch: Callable[[str], AbstractAsyncContextManager[bytes]]
) -> APIRouter:
    """The routes over these. `fetch` holds the bytes behind a URL or raises Problem."""
    routes = APIRouter(prefix="/clip", tags=[TAG], responses=BUSY)

    async def vectors(things: Sequence[Thing], index: str, field: str) -> list[list[float]]:
        """In the order of the things; those that come together enter the same call of the model."""
        with fields_named({"text": field, "image_url": field}):
            return await asyncio.gather(*(vector(thing, index) for thing in things))

    async def vector(thing: Thing, index: str) -> list[float]:
        match thing:
            case str():
                embed = Embed(text=[thing], index=index)
            case Base64Image():
                embed = Embed(image=[thing.value], index=index)
            case UrlImage():
                async with fetch(thing.value) as data:
                    return (await engine.embed(Embed(image=[data], index=index))).vectors[0]
        return (await engine.embed(embed)).vectors[0]

    @routes.post("/embed_text")
    async def embed_text(request: ClipTexts, index: IndexName = None) -> ClipEmbeddings:
        """The vectors of texts, as of Roboflow Inference."""
        start = perf_counter()
        found = await vectors(request.text, _chosen(catalog, index, request), "text")
        return ClipEmbeddings.model_construct(embeddings=found, time=perf_counter() - start)

    @routes.post("/embed_image")
    async def embed_image(request: ClipImages, index: IndexName = None) -> ClipEmbeddings:
        """The vectors of images, as of Roboflow Inference."""
        start = perf_counter()
        found = await vectors(request.image, _chosen(catalog, index, request), "image")
        return ClipEmbeddings.model_construct(embeddings=found, time=perf_counter() - start)

    @routes.post("/compare")
    async def compare(request: ClipComparison, index: IndexName = None) -> ClipSimilarity:
        """How alike a text or an image is to others, as of Roboflow Inference."""
        start = perf_counter()
        prompts = list(request.prompt.values())
        _check("subject", [request.subject], request.subject_type)
        _check("prompt", prompts, request.prompt_type)
        name = _chosen(catalog, index, request)
        (subject,), others = await asyncio.gather(
            vectors([request.subject], name, "subject"), vectors(prompts, name, "prompt")
        )
        similar = dict(zip(request.prompt, (np.asarray(others) @ np.asarray(subject)).tolist(), strict=True))
        named = isinstance(next(iter(similar)), str)
        return ClipSimilarity.model_construct(
            similarity=similar if named else list(similar.values()), time=perf_counter() - start
        )

    return routes


def _check(field: str, things: Sequence[str | Base64Image | UrlImage], kind: Kind) -> None:
    if any(isinstance(thing, str) != (kind == "text") for thing in things):
        wanted = "a text" if kind == "text" else 'an image, {"type": "base64" or "url", "value": …},'
        raise invalid(field, f"{wanted} has to be here, since {field}_type is {kind}")


def _chosen(catalog: Catalog, name: str | None, request: ClipRequest) -> str:
    """The index whose model is meant: by its name, by its model, or the only one. Raises Problem or TemporaryError."""
    version = request.clip_version_id
    if name is not None or version is None:
        index = catalog.pick(name)
        models = {index.pointer.index: index.pointer.model}
    else:
        models = {index: served.pointer.model for index, served in sorted(catalog.listed().items())}
    for index_name, model in models.items():
        if version in (None, model, model.partition("/")[0]):
            return index_name
    known = ", ".join(sorted(set(models.values()))) or "none"
    raise invalid("clip_version_id", f"no index here has the model {version!r}; there is: {known}. Or leave it out")
