"""What the search API takes and gives. Unknown fields are refused, so that a misspelt one is noticed."""

from __future__ import annotations

import binascii
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import TypedDict

from imgsearch.stores import filters
from searcher.search import errors
from searcher.search.errors import Problem

MAX_EMBEDDED = 64
"""Texts or images of one /v1/embed."""
MAX_SEARCHES = 64
"""Of one /v1/search/batch."""
PIXEL = "UklGRhoAAABXRUJQVlA4TA4AAAAvAAAAAAcQEf0PRET/Aw=="
"""A WebP of one black pixel, in base64."""


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
Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Picture = Annotated[
    bytes,
    BeforeValidator(from_base64),
    Field(min_length=1, description="An image file in base64; a data: URL will do."),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1, "examples": [PIXEL]}),
]
Embedding = Annotated[list[FiniteFloat], Field(min_length=1, max_length=16_384)]
Filter = Annotated[dict[str, Any], AfterValidator(filters.check)]
Include = Literal["metadata", "embedding"]


class Strict(BaseModel):
    """JSON that is taken as it is: `true` is no number, and neither is a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(Strict):
    """What to look for: exactly one of these."""

    choices: ClassVar[tuple[str, ...]] = ("text", "image", "image_url", "id", "embedding")

    text: Text | None = Field(default=None, description="Words that describe the image.", examples=["a red bicycle"])
    image: Picture | None = Field(default=None, description="An image file in base64; a data: URL will do.")
    image_url: Url | None = Field(
        default=None,
        description="Where an image file is, for the searcher to fetch: https, in a public network.",
        examples=["https://example.com/bicycle.jpg"],
    )
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
        default=0,
        ge=0,
        description="How many of the best to leave out; `next_offset` of the page before. Counts in the run that is "
        "current; with `cursor`, pages stay with theirs.",
    )
    cursor: str | None = Field(
        default=None,
        max_length=1024,
        description="`next_cursor` of the page before, to go on where it ended: in the same run, though a newer one "
        "may have been published since. Give the same search with it; only `k` and `include` may change. Instead of "
        "`offset`. 410 where its run is gone.",
    )
    filter: Filter | None = Field(
        default=None,
        description="Chroma's operators: $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains $and $or.",
        examples=[{"label": {"$in": ["cat", "dog"]}}],
    )
    min_score: float | None = Field(default=None, ge=-1, le=1, description="Leave out what is less similar.")
    dedupe: float | None = Field(
        default=None,
        ge=0.5,
        le=1,
        description="Fold a result into a better one where the cosine of their vectors is at least this; 0.97 or so "
        "for near-duplicates. `k` and `offset` then count what is left.",
        examples=[0.97],
    )
    index: Name | None = Field(default=None, description="Which index; not needed where there is only one.")
    include: list[Include] = Field(
        default=["metadata"], description="What each result carries beside its id and score."
    )

    @model_validator(mode="after")
    def one_place(self) -> Self:
        if self.cursor is not None and self.offset:
            raise ValueError("give either cursor or offset")
        return self


class Search(Query, Options):
    """A search by text, image, URL of an image, id, embedding, or a weighted sum of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a red bicycle", "k": 5},
                {"text": "a cat", "filter": {"$and": [{"year": {"$gte": 2020}}, {"label": {"$ne": "dog"}}]}},
                {
                    "parts": [{"text": "a street at night"}, {"text": "rain", "weight": -0.5}],
                    "min_score": 0.2,
                },
                {"text": "a beach", "dedupe": 0.97, "include": []},
            ]
        }
    )
    choices: ClassVar[tuple[str, ...]] = (*Query.choices, "parts")

    parts: list[Part] | None = Field(
        default=None, min_length=1, description="The normalised sum of these, each times its weight, is looked for."
    )

    def terms(self) -> list[Part]:
        """The parts; a query of one kind is one part."""
        return self.parts or [Part(**{name: getattr(self, name) for name in Query.choices})]


def _or_problem(value: Any) -> Search | Problem:
    try:
        return Search.model_validate(value)
    except ValidationError as error:
        return errors.of_validation([{**one, "loc": ("body", *one["loc"])} for one in error.errors()])


Attempt = Annotated[Search | Problem, PlainValidator(_or_problem, json_schema_input_type=Search)]
"""A search, or what is wrong with it: one mistake must not cost the others of a batch their answer."""


class Batch(Strict):
    """Searches that have nothing to do with each other."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        json_schema_extra={"examples": [{"searches": [{"text": "a red bicycle", "k": 5}, {"text": "a cat"}]}]},
    )

    searches: list[Attempt] = Field(min_length=1, max_length=MAX_SEARCHES)


class Result(TypedDict):
    # A dict: a search makes many of them, and nothing here needs the objects of a model.

    id: str
    score: Annotated[float, Field(description="Cosine similarity, from -1 to 1.")]
    uri: Annotated[str, Field(description="Where the source keeps the image.")]
    image: Annotated[str, Field(description="Path of the original on this server.")]
    thumbnail: Annotated[str, Field(description="Path of a small WebP on this server.")]
    width: Annotated[int, Field(description="Of the original, in pixels.")]
    height: int
    metadata: NotRequired[Annotated[dict[str, Any], Field(description="What the source says about it; if included.")]]
    embedding: NotRequired[Annotated[list[float], Field(description="Its vector; if included.")]]
    duplicates: NotRequired[
        Annotated[
            list[str],
            Field(
                description="Ids of the results that were folded into it, best first; with `dedupe`. Only of what was "
                "looked through for this page: later pages may find more."
            ),
        ]
    ]


class Took(BaseModel):
    """Milliseconds. What `total` has beyond the others is ours."""

    encode: float = Field(description="In the model, with the wait for it and for the images of `image_url`.")
    store: float
    total: float


class SearchResponse(BaseModel):
    results: list[Result] = Field(description="Best first.")
    next_offset: int | None = Field(description="`offset` of the next page; null: this was the last.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this was the last.")
    index: str
    run: str
    model: str
    took_ms: Took


class Failure(BaseModel):
    """In the place of a search that could not be answered."""

    problem: Annotated[dict[str, Any], WithJsonSchema(errors.DOCUMENT)]


class BatchResponse(BaseModel):
    responses: list[SearchResponse | Failure] = Field(description="In the order of the searches.")


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


class FacetValue(BaseModel):
    value: str | bool | int | float
    count: int = Field(description="How many images have it.")


class Facet(BaseModel):
    """What one field of the metadata holds, over all images."""

    field: str
    type: Literal["text", "number", "bool", "list"]
    images: int = Field(description="How many have the field.")
    distinct: int | None = Field(description="How many values there are; null: more than were counted.")
    values: list[FacetValue] = Field(description="The most frequent first, at most 200.")
    min: float | None = Field(description="Of numbers; null for other types.")
    max: float | None = Field(description="Of numbers; null for other types.")


class Facets(BaseModel):
    index: str
    run: str
    images: int
    fields: list[Facet]


class Point(BaseModel):
    id: str
    x: float = Field(description="From 0, left, to 1.")
    y: float = Field(description="From 0, top, to 1.")


class Map(BaseModel):
    """A sample of the images on a plane: like lies beside like."""

    index: str
    run: str
    images: int = Field(description="Of the index; the map has a sample of them.")
    points: list[Point] = Field(
        description="In the order of the sprite: tile i is in column i % columns, row i // columns."
    )
    tile: int = Field(description="Width and height of a tile of the sprite, in pixels.")
    columns: int = Field(description="Tiles in a row of the sprite.")
    sprite: str = Field(description="Path of the thumbnails, all in one image, on this server.")
