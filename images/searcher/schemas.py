"""What the search API takes and gives. Unknown fields are refused, so that a misspelt one is noticed."""

from __future__ import annotations

import binascii
from typing import Annotated, Any, ClassVar, Literal, Self

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    Json,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from searcher import filters

MAX_EMBEDDED = 64
"""Texts or images of one /v1/embed."""


def from_base64(value: Any) -> Any:
    """The bytes of base64 text, with or without a data: URL's head; bytes stay as they are."""
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        head, comma, value = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("a data: URL must be in base64, data:image/jpeg;base64,…")
    try:
        return binascii.a2b_base64("".join(value.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Picture = Annotated[
    bytes,
    BeforeValidator(from_base64),
    Field(min_length=1, description="An image file in base64; a data: URL will do."),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Embedding = Annotated[list[FiniteFloat], Field(min_length=1, max_length=16_384)]
Filter = Annotated[dict[str, Any], AfterValidator(filters.check)]
Include = Literal["metadata", "embedding"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Query(Strict):
    """What to look for: exactly one of these."""

    choices: ClassVar[tuple[str, ...]] = ("text", "image", "id", "embedding")

    text: Text | None = Field(default=None, description="Words that describe the image.", examples=["a red bicycle"])
    image: Picture | None = Field(default=None, description="An image file in base64; a data: URL will do.")
    id: Name | None = Field(default=None, description="An image of the index, by its id.")
    embedding: Embedding | None = Field(
        default=None, description="A vector of the index's model, of any length but zero."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        given = [name for name in self.choices if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"give exactly one of {', '.join(self.choices)}; here is {found}")
        return self


class Part(Query):
    """One term of a weighted query."""

    weight: float = Field(default=1.0, ge=-100, le=100, description="Negative: away from it.")


class Options(Strict):
    """How much of what is found to give."""

    k: int = Field(default=10, ge=1, description="How many results, at most.")
    offset: int = Field(
        default=0, ge=0, description="How many of the best to leave out; `next_offset` of the page before."
    )
    filter: Filter | None = Field(
        default=None,
        description="Chroma's operators: $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains $and $or.",
        examples=[{"label": {"$in": ["cat", "dog"]}}],
    )
    min_score: float | None = Field(default=None, ge=-1, le=1, description="Leave out what is less similar.")
    index: Name | None = Field(default=None, description="Which index; not needed where there is only one.")
    include: list[Include] = Field(
        default=["metadata"], description="What each result carries beside its id and score."
    )


class Search(Query, Options):
    """A search by text, image, id, embedding, or a weighted sum of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a red bicycle", "k": 5},
                {"text": "a cat", "filter": {"$and": [{"year": {"$gte": 2020}}, {"label": {"$ne": "dog"}}]}},
                {
                    "parts": [{"text": "a street at night"}, {"text": "rain", "weight": -0.5}],
                    "min_score": 0.2,
                },
            ]
        }
    )
    choices: ClassVar[tuple[str, ...]] = (*Query.choices, "parts")

    parts: list[Part] | None = Field(
        default=None, min_length=1, description="The normalised sum of these, each times its weight, is looked for."
    )

    def terms(self) -> list[Part]:
        """The parts; a query of one kind is one part."""
        return self.parts or [Part(text=self.text, image=self.image, id=self.id, embedding=self.embedding)]


class ImageForm(Options):
    """A search by an uploaded image file."""

    file: UploadFile = Field(description="The image file.")
    filter: Annotated[Json[Filter] | None, Field(description="The filter, as JSON text.")] = None


class Result(BaseModel):
    id: str
    score: float = Field(description="Cosine similarity, from -1 to 1.")
    uri: str = Field(description="Where the source keeps the image.")
    image: str = Field(description="Path of the original on this server.")
    thumbnail: str = Field(description="Path of a small WebP on this server.")
    metadata: dict[str, Any] = Field(default={}, description="What the source says about it; if included.")
    embedding: list[float] = Field(default=[], description="Its vector; if included.")


class Took(BaseModel):
    """Milliseconds. What `total` has beyond the others is ours."""

    encode: float = Field(description="In the model, with the wait for it.")
    store: float
    total: float


class SearchResponse(BaseModel):
    results: list[Result] = Field(description="Best first.")
    next_offset: int | None = Field(description="`offset` of the next page; null: this was the last.")
    index: str
    run: str
    model: str
    took_ms: Took


class Embed(Strict):
    """Texts or images to turn into vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": ["a red bicycle", "a cat"]}]})

    text: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_EMBEDDED)
    image: list[Picture] | None = Field(default=None, min_length=1, max_length=MAX_EMBEDDED)
    index: Name | None = Field(default=None, description="Whose model; not needed where there is only one index.")

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("give either text or image")
        return self


class EmbedResponse(BaseModel):
    model: str
    dim: int
    vectors: list[list[float]] = Field(description="In the order of the request, each of length 1.")


class LogIn(Strict):
    """What the page sends for its cookie."""

    key: str


class IndexInfo(BaseModel):
    index: str
    run: str
    model: str
    dim: int
    images: int
    source: str
    published: str = Field(description="UTC, ISO 8601.")


class Indexes(BaseModel):
    indexes: list[IndexInfo]
    problems: dict[str, str] = Field(description="Why the newest run of an index is not served, by index.")
