"""The responses of the search API."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field, WithJsonSchema
from typing_extensions import TypedDict

from imgsearch.runs.documents import QueryKind
from searcher.search.errors import DOCUMENT


class Result(TypedDict):
    # A dict and not a model: a search makes many of them, and validates none.

    id: str
    score: Annotated[float, Field(description="Cosine similarity, from -1 to 1.")]
    uri: Annotated[str, Field(description="The image's address in its source.")]
    image: Annotated[str, Field(description="Path of the original, below the URL of this server.")]
    thumbnail: Annotated[str, Field(description="Path of a small WebP, below the URL of this server.")]
    width: Annotated[int, Field(description="Width of the original, in pixels.")]
    height: Annotated[int, Field(description="Height of the original, in pixels.")]
    metadata: NotRequired[
        Annotated[dict[str, Any], Field(description="The image's metadata in its source; if included.")]
    ]
    embedding: NotRequired[Annotated[list[float], Field(description="The image's vector; if included.")]]
    duplicates: NotRequired[
        Annotated[
            list[str],
            Field(
                description="Ids of the results that were folded into this one, best first; with `dedupe`. They are "
                "from this page and the pages before it: later pages may find more."
            ),
        ]
    ]


class Took(BaseModel):
    """Milliseconds. `total` also contains the searcher's own work."""

    encode: float = Field(
        description="Time in the model, with the wait for it and the download of the images of `image_url`."
    )
    store: float = Field(description="Time in the vector store.")
    total: float


class SearchResponse(BaseModel):
    results: list[Result] = Field(description="Best first.")
    next_offset: int | None = Field(description="`offset` of the next page; null on the last page.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page.")
    index: str
    run: str
    model: str
    took_ms: Took


class Failure(BaseModel):
    """The problem of one search of a batch."""

    problem: Annotated[dict[str, Any], WithJsonSchema(DOCUMENT)]


class BatchResponse(BaseModel):
    responses: list[SearchResponse | Failure] = Field(description="In the order of the searches.")


class EmbedResponse(BaseModel):
    model: str
    dim: int
    vectors: list[list[float]] = Field(description="In the order of the request, each of length 1.")


class Recall(BaseModel):
    """The recall of one kind of queries."""

    queries: QueryKind = Field(
        description="Images of the index, images changed a little (vectors at a cosine of 0.9 to them), or texts."
    )
    k: int
    mean: float = Field(description="The share of the k nearest images that a search finds; the mean of all queries.")
    worst: float = Field(description="The mean of the worst twentieth of the queries.")


class IndexInfo(BaseModel):
    index: str
    run: str
    model: str
    dim: int
    images: int
    source: str
    published: str = Field(description="UTC, ISO 8601.")
    recall: list[Recall] = Field(
        description="Against exact search, measured before the run was published. Empty where a search returns all "
        "images, and in runs of an earlier version."
    )


class IndexesResponse(BaseModel):
    indexes: list[IndexInfo]
    problems: dict[str, str] = Field(description="By index: the reason why its newest run is not served.")


class ValueCount(BaseModel):
    """One value of a field."""

    value: str | bool | int | float
    count: int = Field(description="Number of images with this value.")


class FieldValues(BaseModel):
    """The values of one field of the metadata, over all images."""

    field: str
    type: Literal["text", "number", "bool", "list"]
    images: int = Field(description="Number of images with this field.")
    distinct: int | None = Field(description="Number of distinct values; null: too many to count.")
    values: list[ValueCount] = Field(description="The most frequent first, at most 200.")
    min: int | float | None = Field(description="Smallest number, exact; null for other types.")
    max: int | float | None = Field(description="Largest number, exact; null for other types.")
    whole: bool | None = Field(
        default=None,
        description="Whether all numbers are whole, such as 3 or 3.0; null for other types, and in indexes of an "
        "earlier version.",
    )


class FacetsResponse(BaseModel):
    index: str
    run: str
    images: int
    fields: list[FieldValues]


class Point(BaseModel):
    """The position of one image on the map."""

    id: str
    x: float = Field(description="0 is left, 1 is right.")
    y: float = Field(description="0 is top, 1 is bottom.")


class MapResponse(BaseModel):
    """A sample of the images on a plane; similar images are close to each other."""

    index: str
    run: str
    images: int = Field(description="Number of images in the index; the map shows a sample of them.")
    points: list[Point] = Field(
        description="In the order of the sprite: tile i is in column i % columns, row i // columns."
    )
    tile: int = Field(description="Width and height of a tile of the sprite, in pixels.")
    columns: int = Field(description="Tiles in a row of the sprite.")
    sprite: str = Field(description="Path of one image with all thumbnails, below the URL of this server.")
