"""The results of the client, from the JSON of the searcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imgsearch.runs.documents import RecallFigure

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """One found image."""

    id: str
    score: float
    """Cosine similarity, from -1 to 1."""
    uri: str
    """The image in its source."""
    image: str
    """Path of the original on the server, for `Client.image`."""
    thumbnail: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: Sequence[float] = ()
    duplicates: Sequence[str] = ()
    """Ids of the results that were merged into this one."""


@dataclass(frozen=True)
class Page:
    """The results of one search, best first. Iterate over the page to get them."""

    results: Sequence[Result]
    next_cursor: str | None
    """None on the last page."""
    index: str
    run: str
    model: str
    took_ms: Mapping[str, float]
    """`encode`, `store` and `total`."""

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True)
class Index:
    """One index that is served."""

    index: str
    run: str
    model: str
    dim: int
    images: int
    source: str
    published: str
    """UTC, ISO 8601."""
    recall: Sequence[RecallFigure] = ()
    """Against exact search. Empty where a search returns all images, and from a searcher of an earlier version."""


def parse_page(payload: Mapping[str, Any]) -> Page:
    return parse(Page, {**payload, "results": [parse(Result, result) for result in payload["results"]]})


def parse(kind: type[T], payload: Mapping[str, Any]) -> T:
    """One result of the type `kind`. Ignores the fields that a newer searcher adds."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in payload.items() if name in names})
