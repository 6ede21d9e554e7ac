"""The CLIP API of Roboflow Inference: vectors of texts and images, and their similarity.

After inference/core/entities/{requests,responses}/clip.py and models/clip/clip_model.py of roboflow/inference, and
its published client, inference-sdk."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from imgsearch.api import MAX_EMBEDDED
from searcher.http import openapi
from searcher.http.clients import RequestClient
from searcher.http.compat import TAG, Lenient, fields_named
from searcher.http.parameters import IndexName
from searcher.search.catalog import Catalog
from searcher.search.clients import Client
from searcher.search.engine import SearchEngine
from searcher.search.errors import invalid
from searcher.search.requests import Name, Picture, Term, Text, Url
from searcher.search.threads import gather

Kind = Literal["image", "text"]


class Base64Image(Lenient):
    type: Literal["base64"]
    value: Picture


class UrlImage(Lenient):
    type: Literal["url"]
    value: Url = Field(description="The URL of an image file that the searcher fetches.")


def _tag(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("type")
    return "text" if isinstance(value, str) else None


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_dict(value: Any) -> Any:
    """Prompts by name, or by number if they have no names. A single image is an object, too."""
    if isinstance(value, dict) and not {"type", "value"} <= value.keys():
        return value
    return dict(enumerate(_as_list(value)))


ImageRef = Annotated[Base64Image | UrlImage, Field(discriminator="type")]
TextOrImage = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Base64Image, Tag("base64")] | Annotated[UrlImage, Tag("url")],
    Discriminator(
        _tag,
        custom_error_type="input",
        custom_error_message='give a text, or an image as {"type": "base64" or "url", "value": …}',
    ),
]
Several = Field(min_length=1, max_length=MAX_EMBEDDED)


class ClipRequest(Lenient):
    clip_version_id: Name | None = Field(
        default=None,
        description="The model: a name from /v1/indexes, or the part of it before the slash (ViT-B-32).",
    )


class ClipTexts(ClipRequest):
    text: Annotated[list[Text], Several, BeforeValidator(_as_list, json_schema_input_type=Text | list[Text])] = Field(
        examples=["a red bicycle"]
    )


class ClipImages(ClipRequest):
    image: Annotated[
        list[ImageRef], Several, BeforeValidator(_as_list, json_schema_input_type=ImageRef | list[ImageRef])
    ]


class ClipComparison(ClipRequest):
    subject: TextOrImage
    subject_type: Kind = "image"
    prompt: Annotated[
        dict[int | str, TextOrImage],
        Several,
        BeforeValidator(_as_dict, json_schema_input_type=TextOrImage | list[TextOrImage] | dict[str, TextOrImage]),
    ] = Field(description="One or several prompts. If it is an object, the response has the same names.")
    prompt_type: Kind = "text"


class ClipResponse(BaseModel):
    inference_id: None = None
    frame_id: None = None
    time: float = Field(description="Duration in seconds.")


class ClipEmbeddings(ClipResponse):
    embeddings: list[list[float]] = Field(description="In the order of the request. Each has length 1.")


class ClipSimilarity(ClipResponse):
    similarity: list[float] | dict[str, float] = Field(description="Cosine similarities, from -1 to 1.")
    parent_id: None = None


def router(catalog: Catalog, engine: SearchEngine) -> APIRouter:
    """All routes of this API."""
    routes = APIRouter(prefix="/clip", tags=[TAG], responses=openapi.TOO_MANY_REQUESTS)

    async def vectors(terms: Sequence[Term], client: Client, index: str, field: str) -> list[list[float]]:
        with fields_named({"text": field, "image_url": field}):
            return await engine.vectors(terms, client, index=index)

    @routes.post("/embed_text")
    async def embed_text(request: ClipTexts, client: RequestClient, index: IndexName = None) -> ClipEmbeddings:
        """Returns the vectors of texts, as Roboflow Inference does."""
        start = perf_counter()
        embeddings = await embed(request.text, client, _index(catalog, index, request), "text")
        return ClipEmbeddings.model_construct(embeddings=embeddings, time=perf_counter() - start)

    @routes.post("/embed_image")
    async def embed_image(request: ClipImages, client: RequestClient, index: IndexName = None) -> ClipEmbeddings:
        """Returns the vectors of images, as Roboflow Inference does."""
        start = perf_counter()
        embeddings = await embed(request.image, client, _index(catalog, index, request), "image")
        return ClipEmbeddings.model_construct(embeddings=embeddings, time=perf_counter() - start)

    @routes.post("/compare")
    async def compare(request: ClipComparison, client: RequestClient, index: IndexName = None) -> ClipSimilarity:
        """Returns the similarity of a text or an image to others, as Roboflow Inference does."""
        start = perf_counter()
        prompts = list(request.prompt.values())
        _check("subject", [request.subject], request.subject_type)
        _check("prompt", prompts, request.prompt_type)
        name = _index(catalog, index, request)
        subject_terms, prompt_terms = [_term(request.subject)], [_term(prompt) for prompt in prompts]
        with fields_named({"image_url": "prompt"}):
            engine.charge([*subject_terms, *prompt_terms], client)
        (subject_vector,), prompt_vectors = await gather(
            [vectors(subject_terms, client, name, "subject"), vectors(prompt_terms, client, name, "prompt")]
        )
        cosines = dict(
            zip(request.prompt, (np.asarray(prompt_vectors) @ np.asarray(subject_vector)).tolist(), strict=True)
        )
        has_names = isinstance(next(iter(cosines)), str)
        return ClipSimilarity.model_construct(
            similarity=cosines if has_names else list(cosines.values()), time=perf_counter() - start
        )

    async def embed(inputs: Sequence[TextOrImage], client: Client, index: str, field: str) -> list[list[float]]:
        terms = [_term(input) for input in inputs]
        with fields_named({"image_url": field}):
            engine.charge(terms, client)
        return await vectors(terms, client, index, field)

    return routes


def _term(input: TextOrImage) -> Term:
    match input:
        case str():
            return Term(text=input)
        case Base64Image():
            return Term(image=input.value)
        case UrlImage():
            return Term(image_url=input.value)


def _check(field: str, inputs: Sequence[str | Base64Image | UrlImage], kind: Kind) -> None:
    if any(isinstance(input, str) != (kind == "text") for input in inputs):
        expected = "a text" if kind == "text" else 'an image as {"type": "base64" or "url", "value": …}'
        raise invalid(field, f"give {expected}, because {field}_type is {kind}")


def _index(catalog: Catalog, name: str | None, request: ClipRequest) -> str:
    """The index to use: by its name, by its model, or the only one. Raises Problem or TemporaryError."""
    version = request.clip_version_id
    if name is not None or version is None:
        index = catalog.pick(name)
        models = {index.pointer.index: index.pointer.model}
    else:
        models = {index: served.pointer.model for index, served in sorted(catalog.listed().items())}
    for index_name, model in models.items():
        if version in (None, model, model.partition("/")[0]):
            return index_name
    available = ", ".join(sorted(set(models.values()))) or "none"
    raise invalid("clip_version_id", f"no index has the model {version!r}; available: {available}")
