"""The requests of the search API. Unknown fields are refused, so that a misspelt one is noticed."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

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

from imgsearch.api import MAX_EMBEDDED, MAX_SEARCHES
from imgsearch.stores import filters
from searcher.search.errors import Problem, problem_of_validation

PIXEL = "UklGRhoAAABXRUJQVlA4TA4AAAAvAAAAAAcQEf0PRET/Aw=="
"""A WebP of one black pixel, in base64."""


def from_base64(value: Any) -> Any:
    """The bytes of a base64 text, with or without the head of a data: URL. Bytes stay as they are."""
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        head, comma, value = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("a data: URL must be in base64, data:image/jpeg;base64,…")
    try:
        return binascii.a2b_base64("".join(value.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("invalid base64") from None


def _valid(filter: dict[str, Any]) -> dict[str, Any]:
    filters.parse(filter)
    return filter


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Picture = Annotated[
    bytes,
    BeforeValidator(from_base64),
    Field(min_length=1, description="An image file in base64, or a data: URL of one."),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1, "examples": [PIXEL]}),
]
Embedding = Annotated[list[FiniteFloat], Field(min_length=1, max_length=16_384)]
Filter = Annotated[dict[str, Any], AfterValidator(_valid)]
Include = Literal["metadata", "embedding"]


class Strict(BaseModel):
    """JSON without conversions: `true` is not a number, and neither is a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SingleQuery(Strict):
    """Exactly one of these fields."""

    choices: ClassVar[tuple[str, ...]] = ("text", "image", "image_url", "id", "embedding")

    text: Text | None = Field(default=None, description="Words that describe the image.", examples=["a red bicycle"])
    image: Picture | None = Field(default=None, description="An image file in base64, or a data: URL of one.")
    image_url: Url | None = Field(
        default=None,
        description="The https URL of an image file in a public network. The searcher fetches it.",
        examples=["https://example.com/bicycle.jpg"],
    )
    id: Name | None = Field(default=None, description="The id of an image in the index.")
    embedding: Embedding | None = Field(
        default=None, description="A vector of the index's model. Its length may be any but zero."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        present = [name for name in self.choices if getattr(self, name) is not None]
        if len(present) != 1:
            found = " and ".join(present) if present else "none"
            raise ValueError(f"give exactly one of {', '.join(self.choices)}; this has {found}")
        return self


class Term(SingleQuery):
    """One term of a weighted query."""

    weight: float = Field(
        default=1.0, ge=-100, le=100, description="A negative weight moves results away from the term."
    )


class Options(Strict):
    """Options of a search."""

    k: int = Field(default=10, ge=1, description="Maximum number of results.")
    offset: int = Field(
        default=0,
        ge=0,
        description="Number of best results to skip: `next_offset` of the previous page. It counts in the current "
        "run; with `cursor`, all pages are of one run.",
    )
    cursor: str | None = Field(
        default=None,
        max_length=1024,
        description="`next_cursor` of the previous page. The next page is of the same run, even if a newer run has "
        "been published. Repeat the search with it; only `k` and `include` may change. Use it instead of `offset`. "
        "The status is 410 if its run was deleted.",
    )
    filter: Filter | None = Field(
        default=None,
        description="Chroma's operators: $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains $and $or.",
        examples=[{"label": {"$in": ["cat", "dog"]}}],
    )
    min_score: float | None = Field(default=None, ge=-1, le=1, description="Minimum score of a result.")
    dedupe: float | None = Field(
        default=None,
        ge=0.5,
        le=1,
        description="Fold a result into a better one if the cosine of their vectors is at least this; about 0.97 "
        "for near-duplicates. `k` and `offset` count the results that remain.",
        examples=[0.97],
    )
    index: Name | None = Field(default=None, description="Name of the index. Optional if there is only one.")
    include: list[Include] = Field(
        default=["metadata"], description="Fields of a result in addition to its id and score."
    )

    @property
    def where(self) -> filters.Filter | None:
        """The filter as a tree."""
        return filters.parse(self.filter) if self.filter is not None else None

    @model_validator(mode="after")
    def one_position(self) -> Self:
        if self.cursor is not None and self.offset:
            raise ValueError("give either cursor or offset")
        return self


class Search(SingleQuery, Options):
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
    choices: ClassVar[tuple[str, ...]] = (*SingleQuery.choices, "parts")

    parts: list[Term] | None = Field(
        default=None,
        min_length=1,
        description="Terms of a weighted query: the search uses the normalised sum of their vectors, each times its "
        "weight.",
    )

    def queries(self) -> Sequence[SingleQuery]:
        """The parts, or the search itself: each is one query for the model or the store."""
        return self.parts or [self]

    def terms(self) -> list[Term]:
        """The parts. A single query is one term."""
        return self.parts or [Term(**{name: getattr(self, name) for name in SingleQuery.choices})]


def _search_or_problem(value: Any) -> Search | Problem:
    try:
        return Search.model_validate(value)
    except ValidationError as error:
        return problem_of_validation([{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors()])


Attempt = Annotated[Search | Problem, PlainValidator(_search_or_problem, json_schema_input_type=Search)]
"""A search, or its problem: one invalid search must not fail the others of a batch."""


class Batch(Strict):
    """Independent searches."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        json_schema_extra={"examples": [{"searches": [{"text": "a red bicycle", "k": 5}, {"text": "a cat"}]}]},
    )

    searches: list[Attempt] = Field(min_length=1, max_length=MAX_SEARCHES)


class Embed(Strict):
    """Texts or images to turn into vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": ["a red bicycle", "a cat"]}]})

    text: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_EMBEDDED)
    image: list[Picture] | None = Field(default=None, min_length=1, max_length=MAX_EMBEDDED)
    index: Name | None = Field(
        default=None, description="Name of the index whose model is used. Optional if there is only one."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("give either text or image")
        return self


class LogIn(Strict):
    """A login to the page, which gets a cookie for the API key."""

    key: str
