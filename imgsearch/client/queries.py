"""The queries of the client, and the JSON that the searcher gets for them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

Image = str | os.PathLike[str] | bytes
"""The path of a file, or its bytes."""


class Term(TypedDict, total=False):
    """One part of a query: exactly one of the first five fields."""

    text: str
    image: Image
    image_url: str
    """The searcher fetches this image."""
    id: str
    """An image of the index."""
    embedding: Sequence[float]
    weight: float
    """Default: 1. A negative weight moves results away from this part."""


class Options(TypedDict, total=False):
    """The arguments of a search beside its text."""

    image: Image | None
    image_url: str | None
    id: str | None
    embedding: Sequence[float] | None
    parts: Sequence[Term] | None
    k: int
    """Results in a page. Default: 10."""
    filter: Mapping[str, Any] | None
    """A filter with Chroma's operators: `{"year": {"$gte": 2020}}`."""
    min_score: float | None
    dedupe: float | None
    """Results whose cosine with a better result is at least this are merged into it; about 0.97 for near-duplicates."""
    index: str | None
    """Needed only if the searcher serves several."""
    include: Sequence[str]
    """`metadata`, `embedding`. Default: `metadata`."""
    cursor: str | None
    """`next_cursor` of the previous page."""


class Query(Options, total=False):
    """One search of a batch: its text or parts, and its options."""

    text: str | None


def query_body(query: Query) -> dict[str, Any]:
    """The JSON object of a query."""
    body = without_none(query)
    if "image" in body:
        body["image"] = image_text(body["image"])
    if "parts" in body:
        body["parts"] = [query_body(part) for part in body["parts"]]
    return body


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are set."""
    return {name: value for name, value in values.items() if value is not None}


def image_text(image: Image) -> str:
    """The file in base64."""
    data = image if isinstance(image, bytes) else Path(image).expanduser().read_bytes()
    return b64encode(data).decode()
